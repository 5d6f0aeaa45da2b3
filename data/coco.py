"""Reads COCO annotation files into flat arrays, with all checks of their content."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from data.annotations import Annotations, Objects, build_annotations
from data.faults import Faults
from detector.text import plural

COCO_DOWNLOAD = """\
    mkdir -p {root} && cd {root}
    for file in zips/train2017.zip zips/val2017.zip annotations/annotations_trainval2017.zip; do
        wget http://images.cocodataset.org/$file && unzip -q $(basename $file) && rm $(basename $file)
    done"""


class _Image(msgspec.Struct, gc=False):
    """An entry of 'images'. Fields have no types here, so that faults get our own messages."""

    id: Any = None
    file_name: Any = None
    height: Any = None
    width: Any = None


class _Annotation(msgspec.Struct, gc=False):
    """An entry of 'annotations'. Fields that are not listed, polygons above all, are never turned into Python objects."""

    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    area: Any = None
    iscrowd: Any = 0


class _Category(msgspec.Struct):
    """An entry of 'categories'."""

    id: Any = None
    name: Any = None


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read_coco(path: Path, folder: Path) -> Annotations:
    """Read and check the COCO annotation file ``path`` whose images are in ``folder``.

    Raises a ValueError with file, entries and remedies for every fault that would spoil training or evaluation. For
    training, boxes without area are left out, and boxes that stick out of their image are clipped; warnings count both.
    """
    content = _load(path)
    faults = Faults(str(path))
    category_ids, class_names = _read_categories(_Entries("category", "categories", content.categories, faults))
    image_ids, sizes, names = _read_images(_Entries("image", "images", content.images, faults))
    faults.raise_if_any()
    check_files_exist(names, folder, faults)
    objects = _read_objects(_Entries("annotation", "annotations", content.annotations, faults), image_ids, category_ids)
    faults.raise_if_any()
    return build_annotations(str(path), folder, image_ids, sizes, names, objects, category_ids, class_names)


def check_root(root: Path, is_coco: bool) -> None:
    """Raise a ValueError if the data set's folder does not exist; for COCO itself, with the commands to download it."""
    if root.is_dir():
        return
    remedy = "set data.root to the folder of a COCO-format data set, or to a data.yaml"
    if is_coco:
        remedy += ", or get COCO 2017 (about 20 GB):\n" + COCO_DOWNLOAD.format(root=root)
    raise ValueError(f"data.root: there is no folder {root} (looked from {Path.cwd()}); {remedy}")


def _load(path: Path) -> _File:
    if not path.is_file():
        raise ValueError(f"there is no annotation file {path} (looked from {Path.cwd()}); correct data.root or its name")
    content = path.read_bytes()
    try:
        return msgspec.json.decode(content, type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _load_slowly(content, path)  # gives better errors, and allows NaN as Python's json does


def _load_slowly(text: bytes, path: Path) -> _File:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # syntax, encoding, numbers with thousands of digits, deep nesting
        raise ValueError(f"{path}: is not JSON ({error}); expected a COCO annotation file") from None
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            state = "misses the key" if entries is None else "has no list of objects under the key"
            raise ValueError(f"{path}: is not a COCO annotation file: it {state} {key!r}")
    return msgspec.convert(content, _File)


@dataclass(frozen=True)
class _Entries:
    """The entries of one list of the file, e.g. "images", whose entries are called "image". Adds faults of their values."""

    kind: str
    list_name: str
    entries: list[Any]
    faults: Faults

    def values(self, key: str) -> list[Any]:
        return [getattr(entry, key) for entry in self.entries]

    def add_fault(self, faulty: Sequence[int], describe: Callable[[int], str]) -> None:
        """Add a fault if there are ``faulty`` entries; ``describe`` returns the fault of an entry in words."""
        if len(faulty):
            first = int(faulty[0])
            id_ = self.entries[first].id
            name = f"{self.kind} {id_}" if id_ is not None else f"entry {first} of {self.list_name!r}"
            self.faults.add(f"{name} {describe(first)}", len(faulty))

    def whole_numbers(self, key: str, fallback: int = 0) -> np.ndarray:
        """Return the values of ``key`` as int64. A value that is not a whole number becomes ``fallback`` and is a fault."""
        values = self.values(key)
        if set(map(type, values)) <= {int} and max(map(abs, values), default=0) < 2**63:  # bool is another type
            return np.array(values, np.int64)
        faulty = [n for n, value in enumerate(values) if not _is_whole_number(value)]
        self.add_fault(faulty, lambda n: f"has {key} {values[n]!r}; expected a whole number of at most 63 bits")
        return np.array([int(value) if _is_whole_number(value) else fallback for value in values], np.int64)

    def unique_ids(self) -> np.ndarray:
        """Return the ids as int64. An id that is used twice is a fault."""
        ids = self.whole_numbers("id")
        values, counts = np.unique(ids, return_counts=True)
        if twice := values[counts > 1].tolist():
            text = plural(len(twice), f"{self.kind} id is", f"{self.kind} ids are")
            self.faults.add(f"{text} used twice, e.g. {twice[:3]}; make them unique")
        return ids


def _read_categories(categories: _Entries) -> tuple[list[int], list[str]]:
    """Return the ids, ascending, and the names in the same order."""
    faults, names = categories.faults, {}
    for id_, name in zip(categories.whole_numbers("id").tolist(), categories.values("name")):
        if not isinstance(name, str) or not name:
            faults.add(f"category {id_} has the name {name!r}; expected text")
        elif id_ in names:
            faults.add(f"category id {id_} is used twice, for {names[id_]!r} and {name!r}; keep one")
        elif name in names.values():
            faults.add(f"the category name {name!r} is used for more than one id; rename or merge them")
        names[id_] = name
    if not names:
        faults.add("lists no categories; add every class under 'categories'")
    return sorted(names), [names[id_] for id_ in sorted(names)]


def _read_images(images: _Entries) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return ids (I,), sizes (I, 2) height and width, and file names."""
    if not images.entries:
        images.faults.add("lists no images; expected at least one entry under 'images'")
    ids = images.unique_ids()
    sizes = np.stack([images.whole_numbers(side, fallback=1) for side in ("height", "width")], axis=1)
    images.add_fault(
        np.flatnonzero((sizes < 1).any(axis=1)),
        lambda n: f"has the height and width {tuple(sizes[n].tolist())}; expected whole numbers above 0",
    )
    names = images.values("file_name")
    images.add_fault(
        [n for n, name in enumerate(names) if not isinstance(name, str) or not name],
        lambda n: f"has the file_name {names[n]!r}; expected a path below the images' folder",
    )
    return ids, sizes, names


def _read_objects(annotations: _Entries, image_ids: np.ndarray, category_ids: list[int]) -> Objects:
    """Return one array per property of the N annotations, in the file's order. Faulty values are replaced by others."""
    ids = annotations.unique_ids()
    image_refs = annotations.whole_numbers("image_id", fallback=int(image_ids[0]))
    order = np.argsort(image_ids)
    positions, unknown = _look_up(image_refs, image_ids[order])
    annotations.add_fault(unknown, lambda n: f"refers to image_id {image_refs[n]}, which 'images' does not list")
    category_refs = annotations.whole_numbers("category_id", fallback=category_ids[0])
    labels, unknown = _look_up(category_refs, np.array(category_ids))
    annotations.add_fault(unknown, lambda n: f"refers to category_id {category_refs[n]}; listed are {category_ids}")
    bboxes = _read_bboxes(annotations)
    return Objects(ids, order[positions], bboxes, _read_areas(annotations, bboxes), _read_crowds(annotations), labels)


def _look_up(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of each value in the sorted array ``known``, and the indices of the values that are not in it."""
    indices = np.searchsorted(known, values).clip(0, len(known) - 1)
    return indices, np.flatnonzero(known[indices] != values)


def _read_bboxes(annotations: _Entries) -> np.ndarray:
    values = annotations.values("bbox")
    try:
        bboxes = np.array(values) if values else np.zeros((0, 4))
    except ValueError:  # not equally long
        bboxes = np.zeros(0)
    if bboxes.shape == (len(values), 4) and bboxes.dtype.kind in "if" and np.isfinite(bboxes).all():
        return bboxes.astype(np.float64)
    faulty = [n for n, bbox in enumerate(values) if not _is_bbox(bbox)]
    if not faulty:
        return np.array(values, np.float64)  # with whole numbers of more than 64 bits
    annotations.add_fault(
        faulty, lambda n: f"has the bbox {values[n]!r}; expected four finite numbers, [x, y, width, height]"
    )
    return np.ones((len(values), 4))


def _read_areas(annotations: _Entries, bboxes: np.ndarray) -> np.ndarray:
    """Return the areas; a missing area is that of the box."""
    values, areas = annotations.values("area"), bboxes[:, 2:].clip(0).prod(axis=1)
    missing = np.array([value is None for value in values], bool)
    faulty = []
    if not set(map(type, values)) <= {float, type(None)}:
        faulty = [n for n, value in enumerate(values) if value is not None and not _is_number(value)]
    if not faulty:
        areas[~missing] = np.array([value for value in values if value is not None], np.float64)
        faulty = np.flatnonzero(~np.isfinite(areas) | (areas < 0))
    annotations.add_fault(faulty, lambda n: f"has the area {values[n]!r}; expected a finite number, 0 or more")
    return areas


def _read_crowds(annotations: _Entries) -> np.ndarray:
    values = annotations.values("iscrowd")
    faulty = [n for n, value in enumerate(values) if value not in (0, 1)]
    annotations.add_fault(faulty, lambda n: f"has iscrowd {values[n]!r}; expected 0 or 1")
    return np.array([value == 1 for value in values], bool)


def _is_bbox(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(_is_number(side) for side in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_whole_number(value: Any) -> bool:
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return is_whole and not isinstance(value, bool) and abs(value) < 2**63


def check_files_exist(names: list[str], folder: Path, faults: Faults) -> None:
    """Add a fault if ``folder`` or files in it are missing."""
    if not folder.is_dir():
        faults.add(f"there is no image folder {folder}; correct data.root or the folder's name")
        return
    listings: dict[str, set[str]] = {}
    missing = []
    for name in names:  # listing each folder once is many times faster than checking each file
        parent, _, base = name.rpartition("/")
        if parent not in listings:
            listings[parent] = set(os.listdir(folder / parent)) if (folder / parent).is_dir() else set()
        if base not in listings[parent]:
            missing.append(name)
    if missing:
        images = f"of {len(names)} images {'is' if len(missing) == 1 else 'are'}"
        faults.add(
            f"{len(missing)} {images} not in {folder}, e.g. {', '.join(missing[:3])}; "
            "put them there, correct the folder's name, or remove them from the file"
        )
