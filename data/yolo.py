"""Data sets with YOLO text labels and a ``data.yaml``, read as they are."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from data.annotations import Annotations, Faults, Objects, build_annotations
from data.images import stored_size
from detector.files import read_yaml
from detector.imaging.read import IMAGE_SUFFIXES, BadImageError
from detector.text import plural

TOLERANCE = 0.01  # shares of the image may leave 0..1 by this much, rounded as they often are


def read_yolo(path: Path) -> dict[str, Annotations]:
    """Read the splits "train", "val" and, if there is one, "test" that the file ``path`` describes.

    It has ``train``, ``val`` and ``test``, each a folder of images (sub-folders included), a text file with an image a
    line, or a list of these; ``names`` of the classes, a list or a mapping from 0 on; and may have ``path``, what the
    former are relative to (the file's own folder by default), and ``nc``, the number of classes.

    The labels of ``images/a/b.jpg`` are in ``labels/a/b.txt``, the last folder ``images`` being exchanged, or beside the
    image if there is none. A line is ``class x y width height``, center and sides as shares of the upright image, or
    ``class x1 y1 x2 y2 ...``, a polygon, whose box is taken. An image without such a file has no objects. Images are
    numbered from 1 on in the order of their paths. A test split that is not there, or faulty, is left out with a warning.
    """
    content = _load(path)
    names = _read_names(content, path)
    folder = _root(content, path)
    values = {split: content.get(split) for split in ("train", "val", "test")}
    values["val"] = values["val"] or content.get("validation")
    found = {}
    for split, value in values.items():
        try:
            if value:
                images = _find_images(value, folder, f"{path}: {split}")
                found[split] = _read_split(f"{path} ({split})", folder, images, names)
            elif split != "test":
                raise ValueError(f"{path}: has no {split!r}; give it a folder of images or a text file with their paths")
        except ValueError as error:
            if split != "test":
                raise
            rank_zero_warn(f"the test split is left out, since training does without: {error}")
    return found


def label_path(image: Path) -> Path:
    """Return where the labels of an image are."""
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
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise ValueError(f"{path}: names has the keys {list(names)[:10]}; expected 0 to {len(names) - 1}")
        names = [names[n] for n in range(len(names))]
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


def _root(content: dict[str, Any], path: Path) -> Path:
    """Return the folder that splits are relative to: ``path`` seen from the file, or else from here or from datasets/.

    A file that is in a folder of that name itself means its own folder.
    """
    given = content.get("path")
    candidates = [path.parent]
    if given:
        candidates = [path.parent / str(given), Path(str(given)), Path("datasets", str(given))]
        if path.resolve().parent.name == Path(str(given)).name:
            candidates.append(path.parent)
    for candidate in candidates:
        if os.path.isdir(candidate):
            return candidate
    looked = " or ".join(str(candidate.resolve()) for candidate in candidates)
    raise ValueError(f"{path}: path is {given!r}, but there is no folder {looked}; correct path, or get the data set first")


def _find_images(value: Any, folder: Path, who: str) -> list[Path]:
    entries = value if isinstance(value, list) else [value]
    images: dict[Path, None] = {}  # a set that keeps its order
    listed = 0
    for entry in entries:
        place = _locate(str(entry), folder)
        if os.path.isdir(place):
            found = _list_folder(place)
        elif os.path.isfile(place):
            found = _read_list(place, folder)
        else:
            raise ValueError(f"{who} is {entry!r}, but there is no {place}; correct it, or get the data set first")
        if not found:
            raise ValueError(f"{who} is {entry!r}, but {place} has no images ({', '.join(IMAGE_SUFFIXES)})")
        images.update(dict.fromkeys(found))
        listed += len(found)
    if listed > len(images):
        many = plural(listed - len(images), "image is", "images are")
        rank_zero_warn(f"{who}: {many} listed more than once; each is taken once")
    return list(images)


def _list_folder(folder: Path) -> list[Path]:
    """Return the images in ``folder`` and below, behind links too, sorted."""
    paths = [Path(at, name) for at, _, names in os.walk(folder, followlinks=True) for name in names]
    return sorted(path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."))


def _locate(entry: str, folder: Path) -> Path:
    place = folder / entry
    if not os.path.exists(place) and entry.startswith("../"):  # as some exporters write, meaning the file's own folder
        place = folder / entry.removeprefix("../")
    return place


def _read_list(file: Path, folder: Path) -> list[Path]:
    lines = [line.strip().replace("\\", "/") for line in _read_lines(file)]  # also if written on Windows
    bases = file.parent, folder  # "./a.jpg" is beside the list by custom; others are tried there first, too
    found = []
    for line in filter(None, lines):
        candidates = [base / line for base in bases]
        found.append(next((c for c in candidates if os.path.isfile(c)), candidates[0]))
    return found


def _read_split(name: str, folder: Path, images: list[Path], class_names: list[str]) -> Annotations:
    faults = Faults(name)
    sizes = _read_sizes(images, faults)
    files = [label_path(image) for image in images]
    rows, positions = [], []
    for position, file in enumerate(files):
        if os.path.isfile(file):
            found = _read_labels(file, len(class_names), faults)
            rows.append(found)
            positions += [position] * len(found)
    if not rows:
        faults.add(f"no image has labels: looked for {files[0]} and {len(files) - 1} more; correct the folders' names")
    faults.raise_if_any()
    table = np.concatenate(rows)
    owners = np.array(positions, np.int64)
    height, width = sizes[owners].T
    scale = np.stack([width, height, width, height], axis=1)
    bboxes = np.concatenate([table[:, 1:3] - table[:, 3:] / 2, table[:, 3:]], axis=1) * scale
    objects = Objects(
        ids=np.arange(1, len(table) + 1),
        positions=owners,
        bboxes=bboxes,
        areas=bboxes[:, 2:].clip(0).prod(axis=1),
        crowds=np.zeros(len(table), bool),
        labels=table[:, 0].astype(np.int64),
    )
    names = [_relative(image, folder) for image in images]
    ids = np.arange(1, len(images) + 1)
    return build_annotations(name, folder, ids, sizes, names, objects, list(range(len(class_names))), class_names, True)


def _relative(image: Path, folder: Path) -> str:
    return str(image.relative_to(folder) if image.is_relative_to(folder) else image.resolve())


def _read_sizes(images: list[Path], faults: Faults) -> np.ndarray:
    """Return height and width of each image, (I, 2), from the files' headers."""

    def read(image: Path) -> tuple[int, int] | BadImageError:
        try:
            return stored_size(image)
        except BadImageError as error:
            return error

    with ThreadPoolExecutor(16) as pool:  # mostly waiting for the disk
        found = list(pool.map(read, images, chunksize=64))
    if bad := [size for size in found if isinstance(size, BadImageError)]:
        faults.add(str(bad[0]), len(bad))
    return np.array([(1, 1) if isinstance(size, BadImageError) else size for size in found])


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
                rows.append(_read_line(line.split(), num_classes))
            except ValueError as error:
                faults.add(f"{file}, line {number}: {error}")
                break  # one fault a file says enough
    return np.array(rows, np.float64).reshape(-1, 5)


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()  # editors on Windows put a mark at the beginning
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: is not a text file in UTF-8 ({error})") from None


def _read_line(words: list[str], num_classes: int) -> tuple[float, ...]:
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
            f"the class is {words[0]}; expected a whole number from 0 to {num_classes - 1}, as names lists them"
        )
    if not all(-TOLERANCE <= value <= 1 + TOLERANCE for value in values):
        raise ValueError(f"{shown!r} leaves 0..1; expected shares of the image's width and height, not pixels")
    if len(values) > 4:
        xs, ys = values[0::2], values[1::2]
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
        values = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    return label, *values
