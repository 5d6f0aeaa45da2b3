"""Reads data sets with YOLO text labels and a ``data.yaml``."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data.annotations import Annotations, Objects, build_annotations
from data.box_formats import CXCYWH, box_format_remarks
from data.faults import Faults
from data.images import read_headers
from data.remarks import Remark, log_remarks
from data.yolo_folders import find_images, label_path, label_remarks, read_lines
from data.yolo_yaml import YoloFile, load_data_yaml
from detector.text import plural

TOLERANCE = 0.01  # shares of the image may leave 0..1 by this much: they are often rounded


def read_yolo(path: Path) -> dict[str, Annotations]:
    """Read the splits "train", "val" and, if it exists, "test" that the file ``path`` describes.

    The file has ``train``, ``val`` (or ``valid``) and ``test``: each a folder of images (with sub-folders), a text file with
    one image a line, or a list of these. It has ``names``, the class names: a list, or a mapping from 0 on. It may have
    ``path``, the folder that the splits are relative to (by default the file's own), and ``nc``, the number of classes.

    The labels of ``images/a/b.jpg`` are in ``labels/a/b.txt`` (the last folder ``images`` is replaced), or beside the image
    if no folder has that name. A line is ``class x y width height``, center and sides as shares of the upright image, or
    ``class x1 y1 x2 y2 ...``, a polygon, of which the box is used. An image without a label file has no objects. Images are
    numbered from 1 in the order of their paths.

    Hidden files are left out, and each real file comes once. Remarks count these, labels without images, and labels and
    images of other names, places and formats. A test split that is missing or faulty is left out with a warning.
    """
    file = load_data_yaml(path)
    splits: dict[str, Annotations] = {}
    left_out: list[Remark] = []
    for split, value in file.splits.items():
        try:
            if value:
                splits[split] = _read_split(f"{path} ({split})", f"{path}: {split}", file, value)
        except ValueError as error:
            if split != "test":
                raise
            left_out = [Remark("warning", f"the test split is left out, since training does not need it: {error}")]
            log_remarks(str(path), left_out)
    splits["train"] = replace(splits["train"], remarks=(*splits["train"].remarks, *left_out))
    return splits


def _read_split(name: str, key: str, file: YoloFile, value: Any) -> Annotations:
    """Read the split that has ``value`` in the data.yaml; ``key`` is its name there, for messages."""
    faults, folder = Faults(name), file.folder
    found = find_images(value, folder, key)
    images, remarks = found.images, [*found.remarks, *label_remarks(found, folder)]
    sizes = np.array([header.upright for header in read_headers(images, faults)])
    objects = _read_objects(images, sizes, len(file.class_names), faults, remarks)
    names = [str(image.relative_to(folder) if image.is_relative_to(folder) else image.resolve()) for image in images]
    ids, category_ids = np.arange(1, len(images) + 1), list(range(len(file.class_names)))
    return build_annotations(
        name, folder, ids, sizes, names, objects, category_ids, file.class_names, upright=True, remarks=remarks
    )


def _read_objects(images: list[Path], sizes: np.ndarray, num_classes: int, faults: Faults, remarks: list[Remark]) -> Objects:
    """Read the label files of all images, of ``sizes`` (I, 2); raise the faults, also those that there were before.

    Adds a remark if there are polygons, or if the boxes look like those of another format.
    """
    files = [label_path(image) for image in images]
    rows = {index: _read_labels(file, num_classes, faults) for index, file in enumerate(files) if os.path.isfile(file)}
    if not rows:
        hints = "".join(f". {one.line()}" for one in remarks if one.level == "warning")
        faults.add(
            f"no image has labels: looked for {files[0]} and {len(files) - 1} more; correct the folders' names{hints}"
        )
    faults.raise_if_any()
    table = np.concatenate(list(rows.values()))
    image_indices = np.repeat(list(rows), [len(labels) for labels in rows.values()])
    height, width = sizes[image_indices].T
    scale = np.stack([width, height, width, height], axis=1)
    bboxes = np.concatenate([table[:, 1:3] - table[:, 3:5] / 2, table[:, 3:5]], axis=1) * scale
    remarks += _polygon_remarks(table[:, 5])
    described = partial(_line_of, rows=rows, files=files)
    for one in box_format_remarks(table[:, 1:5] * scale, sizes[image_indices], CXCYWH, described):
        if one.level == "error":
            faults.add(one.text)
        else:
            remarks.append(one)
    faults.raise_if_any()
    return Objects(
        ids=np.arange(1, len(table) + 1),
        image_indices=image_indices,
        bboxes=bboxes,
        areas=bboxes[:, 2:].clip(0).prod(axis=1),
        crowds=np.zeros(len(table), bool),
        labels=table[:, 0].astype(np.int64),
    )


def _polygon_remarks(corners: np.ndarray) -> list[Remark]:
    """Return a note if labels are polygons, ``corners`` (N,) being their number of points, 0 for boxes."""
    if not (polygons := int((corners > 0).sum())):
        return []
    text = f"{plural(polygons, 'label is a polygon', 'labels are polygons')}, of which the upright box around them is used"
    if rotated := int((corners == 4).sum()):
        text += f"; {rotated} of them {'has' if rotated == 1 else 'have'} four points, as rotated boxes do"
    return [Remark("note", text)]


def _line_of(n: int, rows: dict[int, np.ndarray], files: list[Path]) -> str:
    """Return the numbers and the file of object ``n`` in words."""
    ends = np.cumsum([len(labels) for labels in rows.values()])
    index = list(rows)[int(np.searchsorted(ends, n, side="right"))]
    numbers = np.concatenate(list(rows.values()))[n, :5]
    return f"{' '.join(f'{value:.6g}' for value in numbers)} in {files[index]}"


def _read_labels(file: Path, num_classes: int, faults: Faults) -> np.ndarray:
    """Return the objects of a label file, (N, 6) float64: class, center and sides as shares of the image, and the number of
    points of a polygon or 0.
    """
    rows = []
    try:
        lines = read_lines(file)
    except ValueError as error:
        faults.add(str(error))
        lines = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                rows.append(_parse_line(line.split(), num_classes))
            except ValueError as error:
                faults.add(f"{file}, line {number}: {error}")
                break  # report one fault a file
    return np.array(rows, np.float64).reshape(-1, 6)


def _parse_line(words: list[str], num_classes: int) -> tuple[float, ...]:
    """Return class, center and sides, as shares of the image, and the number of points of a polygon, 0 for a box.

    Raises ValueError with the fault.
    """
    shown = " ".join(words[:6])
    try:
        label, *values = map(float, words)
    except ValueError:
        raise ValueError(f"{shown!r} is not all numbers; expected class x y width height") from None
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        hint = "; the sixth looks like the score of a prediction: remove it" if len(values) == 5 else ""
        raise ValueError(
            f"{shown!r} has {plural(len(words), 'number')}; expected class x y width height, or class and a polygon{hint}"
        )
    if label not in range(num_classes):
        raise ValueError(
            f"the class is {words[0]}; expected a whole number from 0 to {num_classes - 1}, an index into names"
        )
    if not all(-TOLERANCE <= value <= 1 + TOLERANCE for value in values):
        raise ValueError(f"{shown!r} leaves 0..1; expected shares of the image's width and height, not pixels or percent")
    if len(values) == 4:
        return label, *values, 0
    xs, ys = values[0::2], values[1::2]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    return label, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top, len(xs)
