"""Reads COCO annotation files into flat arrays, with all checks of their content."""

import json
import os
import sys
from collections.abc import Callable
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


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[dict[str, Any]]


def read_coco(path: Path, folder: Path) -> Annotations:
    """Read and check the COCO annotation file ``path`` whose images are in ``folder``.

    Raises a ValueError with file, entries and remedies for every fault that would spoil training or evaluation. For
    training, boxes without area are left out, and boxes that stick out of their image are clipped; warnings count both.
    """
    content = _load(path)
    faults = Faults(str(path))
    category_ids, class_names = _read_categories(content.categories, faults)
    image_ids, sizes, names = _read_images(content.images, faults)
    faults.raise_if_any()
    check_files_exist(names, folder, faults)
    objects = _read_objects(content.annotations, faults, image_ids, category_ids)
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


def _read_categories(entries: list[dict[str, Any]], faults: Faults) -> tuple[list[int], list[str]]:
    names: dict[int, str] = {}
    ids = _whole([entry.get("id") for entry in entries], "id", lambda n: f"category {entries[n]}", faults)
    for id_, name in zip(ids.tolist(), [entry.get("name") for entry in entries]):
        if not isinstance(name, str) or not name:
            faults.add(f"category {id_} has the name {name!r}; expected text")
        elif id_ in names:
            faults.add(f"category id {id_} is used twice, for {names[id_]!r} and {name!r}; keep one")
        elif name in names.values():
            faults.add(f"the category name {name!r} is used for more than one id; rename or merge them")
        names[id_] = name
    if not entries:
        faults.add("lists no categories; add every class under 'categories'")
    return sorted(names), [names[id_] for id_ in sorted(names)]


def _read_images(entries: list[_Image], faults: Faults) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return ids (I,), sizes (I, 2) height and width, and file names."""
    if not entries:
        faults.add("lists no images; expected at least one entry under 'images'")

    def name_of(n: int) -> str:
        return f"image {entries[n].id}" if entries[n].id is not None else f"entry {n} of 'images'"

    ids = _whole([entry.id for entry in entries], "id", name_of, faults)
    _check_unique(ids, "image id", faults)
    sides = [_whole([getattr(e, key) for e in entries], key, name_of, faults, fallback=1) for key in ("height", "width")]
    sizes = np.stack(sides, axis=1)
    if len(bad := np.flatnonzero((sizes < 1).any(axis=1))):
        size = tuple(sizes[bad[0]].tolist())
        faults.add(f"{name_of(bad[0])} has the height and width {size}; expected whole numbers above 0", len(bad))
    names = [entry.file_name for entry in entries]
    if bad := [n for n, name in enumerate(names) if not isinstance(name, str) or not name]:
        text = f"{name_of(bad[0])} has the file_name {names[bad[0]]!r}; expected a path below the images' folder"
        faults.add(text, len(bad))
    return ids, sizes, names


def _read_objects(entries: list[_Annotation], faults: Faults, image_ids: np.ndarray, category_ids: list[int]) -> Objects:
    """Return one array per property of the N annotations, in the file's order. Faulty values are replaced by others."""

    def name_of(n: int) -> str:
        return f"annotation {entries[n].id}" if entries[n].id is not None else f"entry {n} of 'annotations'"

    ids = _whole([entry.id for entry in entries], "id", name_of, faults)
    _check_unique(ids, "annotation id", faults)
    refs = _whole([entry.image_id for entry in entries], "image_id", name_of, faults, fallback=int(image_ids[0]))
    order = np.argsort(image_ids)
    positions, unknown = _look_up(refs, image_ids[order])
    if len(unknown):
        text = f"{name_of(unknown[0])} refers to image_id {refs[unknown[0]]}, which 'images' does not list"
        faults.add(text, len(unknown))
    refs = _whole([entry.category_id for entry in entries], "category_id", name_of, faults, fallback=category_ids[0])
    labels, unknown = _look_up(refs, np.array(category_ids))
    if len(unknown):
        text = f"{name_of(unknown[0])} refers to category_id {refs[unknown[0]]}; listed are {category_ids}"
        faults.add(text, len(unknown))
    bboxes = _read_bboxes([entry.bbox for entry in entries], name_of, faults)
    areas = _read_areas([entry.area for entry in entries], bboxes, name_of, faults)
    crowds = _read_crowds([entry.iscrowd for entry in entries], name_of, faults)
    return Objects(ids, order[positions], bboxes, areas, crowds, labels)


def _whole(values: list[Any], key: str, name_of: Callable[[int], str], faults: Faults, fallback: int = 0) -> np.ndarray:
    """Return ``values`` as int64; a value that is not a whole number becomes ``fallback`` and is a fault."""
    if set(map(type, values)) <= {int} and max(map(abs, values), default=0) < 2**63:  # bool is another type
        return np.array(values, np.int64)
    values, bad = list(values), []
    for n, value in enumerate(values):
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
            values[n] = int(value)
        elif not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
            bad.append((n, value))
            values[n] = fallback
    if bad:
        n, value = bad[0]
        faults.add(f"{name_of(n)} has {key} {value!r}; expected a whole number of at most 63 bits", len(bad))
    return np.array(values, np.int64)


def _look_up(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of each value in the sorted array ``known``, and the indices of the values that are not in it."""
    indices = np.searchsorted(known, values).clip(0, len(known) - 1)
    return indices, np.flatnonzero(known[indices] != values)


def _read_bboxes(values: list[Any], name_of: Callable[[int], str], faults: Faults) -> np.ndarray:
    try:
        bboxes = np.array(values) if values else np.zeros((0, 4))
    except ValueError:  # not equally long
        bboxes = np.zeros(0)
    if bboxes.shape == (len(values), 4) and bboxes.dtype.kind in "if" and np.isfinite(bboxes).all():
        return bboxes.astype(np.float64)
    bad = [n for n, bbox in enumerate(values) if not _is_bbox(bbox)]
    if not bad:
        return np.array(values, np.float64)  # whole numbers of more than 64 bits are among them
    text = f"{name_of(bad[0])} has the bbox {values[bad[0]]!r}; expected four finite numbers, [x, y, width, height]"
    faults.add(text, len(bad))
    return np.ones((len(values), 4))


def _read_areas(values: list[Any], bboxes: np.ndarray, name_of: Callable[[int], str], faults: Faults) -> np.ndarray:
    """Return the areas; a missing area is that of the box."""
    areas = bboxes[:, 2:].clip(0).prod(axis=1)
    missing = np.array([value is None for value in values], bool)
    bad = []
    if not set(map(type, values)) <= {float, type(None)}:
        bad = [n for n, value in enumerate(values) if value is not None and not _is_number(value)]
    if not bad:
        areas[~missing] = np.array([value for value in values if value is not None], np.float64)
        bad = np.flatnonzero(~np.isfinite(areas) | (areas < 0)).tolist()
    if bad:
        faults.add(f"{name_of(bad[0])} has the area {values[bad[0]]!r}; expected a finite number, 0 or more", len(bad))
    return areas


def _read_crowds(values: list[Any], name_of: Callable[[int], str], faults: Faults) -> np.ndarray:
    if bad := [n for n, value in enumerate(values) if value not in (0, 1)]:
        faults.add(f"{name_of(bad[0])} has iscrowd {values[bad[0]]!r}; expected 0 or 1", len(bad))
    return np.array([value == 1 for value in values], bool)


def _is_bbox(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(_is_number(side) for side in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _check_unique(ids: np.ndarray, name: str, faults: Faults) -> None:
    values, counts = np.unique(ids, return_counts=True)
    if twice := values[counts > 1].tolist():
        faults.add(f"{plural(len(twice), f'{name} is', f'{name}s are')} used twice, e.g. {twice[:3]}; make them unique")


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
