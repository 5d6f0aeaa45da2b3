"""Reads data sets with YOLO text labels and a ``data.yaml``."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from data.annotations import Annotations, Objects, build_annotations
from data.faults import Faults
from data.images import stored_size
from detector.files import read_yaml
from detector.imaging.read import IMAGE_SUFFIXES, BadImageError
from detector.text import plural

TOLERANCE = 0.01  # shares of the image may leave 0..1 by this much: they are often rounded


def read_yolo(path: Path) -> dict[str, Annotations]:
    """Read the splits "train", "val" and, if it exists, "test" that the file ``path`` describes.

    The file has ``train``, ``val`` and ``test``: each a folder of images (with sub-folders), a text file with one image a
    line, or a list of these. It has ``names``, the class names: a list, or a mapping from 0 on. It may have ``path``, the
    folder that the splits are relative to (by default the file's own), and ``nc``, the number of classes.

    The labels of ``images/a/b.jpg`` are in ``labels/a/b.txt`` (the last folder ``images`` is replaced), or beside the image
    if no folder has that name. A line is ``class x y width height``, center and sides as shares of the upright image, or
    ``class x1 y1 x2 y2 ...``, a polygon, of which the box is used. An image without a label file has no objects. Images are
    numbered from 1 in the order of their paths. A test split that is missing or faulty is left out with a warning.
    """
    content = _load(path)
    names = _read_names(content, path)
    folder = _root(content, path)
    values = {split: content.get(split) for split in ("train", "val", "test")}
    values["val"] = values["val"] or content.get("validation")
    splits = {}
    for split, value in values.items():
        try:
            if value:
                images = _find_images(value, folder, f"{path}: {split}")
                splits[split] = _read_split(f"{path} ({split})", folder, images, names)
            elif split != "test":
                raise ValueError(f"{path}: has no {split!r}; give it a folder of images or a text file with their paths")
        except ValueError as error:
            if split != "test":
                raise
            rank_zero_warn(f"the test split is left out, since training does not need it: {error}")
    return splits


def label_path(image: Path) -> Path:
    """Return the path of an image's label file."""
    parts = list(image.parts)
    for n in range(len(parts) - 2, -1, -1):
        if parts[n] == "images":
            parts[n] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"data.root: there is no file {path} (looked from {Path.cwd()}); give a data.yaml or a folder")
    content = read_yaml(path, "expected train, val and names")
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds {str(content)[:80]!r}; expected a mapping with train, val and names")
    if "kpt_shape" in content:
        raise ValueError(f"{path}: describes key points (kpt_shape), whose labels have other columns; give labels of boxes")
    return content


def _read_names(content: dict[str, Any], path: Path) -> list[str]:
    names, count = content.get("names"), content.get("nc")
    if names is None and isinstance(count, int) and count > 0:
        names = [f"class_{n}" for n in range(count)]
    if isinstance(names, dict):
        names = _names_by_number(names, path)
    if not isinstance(names, list) or not names:
        raise ValueError(f"{path}: names is {names!r}; expected the names of the classes, a list or a mapping from 0 on")
    if odd := [name for name in names if isinstance(name, bool) or not isinstance(name, str | int | float)]:
        raise ValueError(f"{path}: names has {odd[0]!r}; expected text (quote yes, no, on and off, which YAML turns)")
    names = [str(name) for name in names]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: names lists one name twice: {names}; rename or merge the classes")
    if count is not None and count != len(names):
        raise ValueError(f"{path}: nc is {count!r}, but names has {len(names)}; make them agree")
    return names


def _names_by_number(names: dict[Any, Any], path: Path) -> list[Any]:
    """Return the values of a mapping from class numbers to names, in the order of the numbers, which may be quoted."""
    by_number = {int(key) if isinstance(key, str) and key.isdecimal() else key: name for key, name in names.items()}
    numbers = range(len(names))
    if len(by_number) < len(names) or any(type(key) is not int or key not in numbers for key in by_number):
        raise ValueError(
            f"{path}: names has the keys {list(names)[:10]}; expected 0 to {len(names) - 1}, each once (labels count the "
            "classes from 0, and classes that are not used need a name, too)"
        )
    return [by_number[number] for number in numbers]


def _root(content: dict[str, Any], path: Path) -> Path:
    """Return the folder that splits are relative to: ``path``, relative to the file, to here, or to datasets/.

    If the file's own folder has the name of ``path``, the file's own folder is tried last.
    """
    root = content.get("path")
    candidates = [path.parent]
    if root:
        candidates = [path.parent / str(root), Path(str(root)), Path("datasets", str(root))]
        if path.resolve().parent.name == Path(str(root)).name:
            candidates.append(path.parent)
    for candidate in candidates:
        if os.path.isdir(candidate):
            return candidate
    tried = " or ".join(str(candidate.resolve()) for candidate in candidates)
    raise ValueError(f"{path}: path is {root!r}, but there is no folder {tried}; correct path, or get the data set first")


def _find_images(value: Any, folder: Path, name: str) -> list[Path]:
    """Return the images of the split's ``value``, one entry or a list of entries; ``name`` is for messages."""
    entries = value if isinstance(value, list) else [value]
    images = [image for entry in entries for image in _images_of_entry(entry, folder, name)]
    unique = list(dict.fromkeys(images))
    if len(unique) < len(images):
        repeated = plural(len(images) - len(unique), "image is", "images are")
        rank_zero_warn(f"{name}: {repeated} listed more than once; each is taken once")
    return unique


def _images_of_entry(entry: Any, folder: Path, name: str) -> list[Path]:
    path = folder / str(entry)
    if not os.path.exists(path) and str(entry).startswith("../"):  # some exporters write it for the file's own folder
        path = folder / str(entry).removeprefix("../")
    if os.path.isdir(path):
        images = _list_folder(path)
    elif os.path.isfile(path):
        images = _read_list(path, folder)
    else:
        raise ValueError(f"{name} is {entry!r}, but there is no {path}; correct it, or get the data set first")
    if not images:
        raise ValueError(f"{name} is {entry!r}, but {path} has no images ({', '.join(IMAGE_SUFFIXES)})")
    return images


def _list_folder(folder: Path) -> list[Path]:
    """Return the images in ``folder`` and its sub-folders, sorted. Links are followed."""
    paths = [Path(at, name) for at, _, names in os.walk(folder, followlinks=True) for name in names]
    return sorted(path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."))


def _read_list(file: Path, folder: Path) -> list[Path]:
    """Return the images in a text file: paths relative to the file or, if there is no such image, to ``folder``."""
    lines = [line.strip().replace("\\", "/") for line in _read_lines(file)]  # backslashes are from Windows
    images = []
    for line in filter(None, lines):
        candidates = [file.parent / line, folder / line]
        images.append(next((path for path in candidates if os.path.isfile(path)), candidates[0]))
    return images


def _read_split(name: str, folder: Path, images: list[Path], class_names: list[str]) -> Annotations:
    faults = Faults(name)
    sizes = _read_sizes(images, faults)
    objects = _read_objects(images, sizes, len(class_names), faults)
    names = [str(image.relative_to(folder) if image.is_relative_to(folder) else image.resolve()) for image in images]
    ids = np.arange(1, len(images) + 1)
    return build_annotations(name, folder, ids, sizes, names, objects, list(range(len(class_names))), class_names, True)


def _read_objects(images: list[Path], sizes: np.ndarray, num_classes: int, faults: Faults) -> Objects:
    """Read the label files of all images, of ``sizes`` (I, 2); raise the faults, also those that there were before."""
    files = [label_path(image) for image in images]
    rows = {index: _read_labels(file, num_classes, faults) for index, file in enumerate(files) if os.path.isfile(file)}
    if not rows:
        faults.add(f"no image has labels: looked for {files[0]} and {len(files) - 1} more; correct the folders' names")
    faults.raise_if_any()
    table = np.concatenate(list(rows.values()))
    image_indices = np.repeat(list(rows), [len(labels) for labels in rows.values()])
    height, width = sizes[image_indices].T
    scale = np.stack([width, height, width, height], axis=1)
    bboxes = np.concatenate([table[:, 1:3] - table[:, 3:] / 2, table[:, 3:]], axis=1) * scale
    return Objects(
        ids=np.arange(1, len(table) + 1),
        image_indices=image_indices,
        bboxes=bboxes,
        areas=bboxes[:, 2:].clip(0).prod(axis=1),
        crowds=np.zeros(len(table), bool),
        labels=table[:, 0].astype(np.int64),
    )


def _read_sizes(images: list[Path], faults: Faults) -> np.ndarray:
    """Return height and width of each image, (I, 2), from the files' headers."""

    def read(image: Path) -> tuple[int, int] | BadImageError:
        try:
            return stored_size(image)
        except BadImageError as error:
            return error

    with ThreadPoolExecutor(16) as pool:  # mostly waiting for the disk
        results = list(pool.map(read, images, chunksize=64))
    if errors := [result for result in results if isinstance(result, BadImageError)]:
        faults.add(str(errors[0]), len(errors))
    return np.array([(1, 1) if isinstance(result, BadImageError) else result for result in results])


def _read_labels(file: Path, num_classes: int, faults: Faults) -> np.ndarray:
    """Return the objects of a label file, (N, 5) float64: class, then center and sides as shares of the image."""
    rows = []
    try:
        lines = _read_lines(file)
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
    return np.array(rows, np.float64).reshape(-1, 5)


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()  # sig: editors on Windows write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: is not a text file in UTF-8 ({error})") from None


def _parse_line(words: list[str], num_classes: int) -> tuple[float, ...]:
    """Return class, center and sides, as shares of the image. Raises ValueError with the fault."""
    shown = " ".join(words[:6])
    try:
        label, *values = map(float, words)
    except ValueError:
        raise ValueError(f"{shown!r} is not all numbers; expected class x y width height") from None
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise ValueError(
            f"{shown!r} has {plural(len(words), 'number')}; expected class x y width height, or class and a polygon"
        )
    if label not in range(num_classes):
        raise ValueError(
            f"the class is {words[0]}; expected a whole number from 0 to {num_classes - 1}, an index into names"
        )
    if not all(-TOLERANCE <= value <= 1 + TOLERANCE for value in values):
        raise ValueError(f"{shown!r} leaves 0..1; expected shares of the image's width and height, not pixels")
    if len(values) > 4:
        xs, ys = values[0::2], values[1::2]
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
        values = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    return label, *values
