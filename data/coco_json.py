"""Reads the JSON of COCO annotation files, only the parts that boxes need."""

from pathlib import Path
from typing import Any

import msgspec

from detector.files import DuplicateKeyError, load_json, refuse_lfs_pointer

LARGE_FILE = 2**26  # bytes; in larger files, repeated keys of single entries are not looked for: it would take seconds


class ImageEntry(msgspec.Struct, gc=False):
    """An entry of 'images'. Fields have no types here, so that faults get our own messages."""

    id: Any = None
    file_name: Any = None
    height: Any = None
    width: Any = None


class AnnotationEntry(msgspec.Struct, gc=False):
    """An entry of 'annotations'. Polygons, and fields that are not listed, are never turned into Python objects."""

    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    area: Any = None
    iscrowd: Any = 0
    attributes: Any = None  # of CVAT, with the rotation of the box
    rotation: Any = None
    angle: Any = None
    segmentation: msgspec.Raw = msgspec.Raw()  # not decoded


class CategoryEntry(msgspec.Struct):
    """An entry of 'categories'."""

    id: Any = None
    name: Any = None


class CocoFile(msgspec.Struct):
    """The parts of a COCO annotation file that are read."""

    images: list[ImageEntry]
    annotations: list[AnnotationEntry]
    categories: list[CategoryEntry]
    licenses: Any = ()


def load_coco_json(path: Path) -> CocoFile:
    """Return the content of a COCO annotation file. Raises ValueError for other files, and for keys given twice."""
    if not path.is_file():
        raise ValueError(f"there is no annotation file {path} (looked from {Path.cwd()}); correct data.root or its name")
    content = path.read_bytes()
    try:
        file = msgspec.json.decode(content, type=CocoFile)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _load_slowly(content, path)  # gives better errors, and allows NaN as Python's json does
    if _may_repeat_keys(content, file):
        _load_slowly(content, path)
    return file


def _may_repeat_keys(content: bytes, file: CocoFile) -> bool:
    """Return True if a key is there more often than it has entries. Names in other parts of the file count, too."""
    most = dict.fromkeys(("images", "annotations", "categories"), 1)
    if len(content) <= LARGE_FILE:
        num_entries = len(file.images) + len(file.annotations) + len(file.categories)
        num_licenses = len(file.licenses) if isinstance(file.licenses, list) else 0
        most |= dict.fromkeys(("bbox", "image_id", "category_id", "area", "iscrowd"), len(file.annotations))
        most |= dict.fromkeys(("file_name", "height", "width"), len(file.images))
        most |= {"id": num_entries + num_licenses, "name": len(file.categories) + num_licenses}
    return any(content.count(f'"{key}"'.encode()) > number for key, number in most.items())


def _load_slowly(text: bytes, path: Path) -> CocoFile:
    refuse_lfs_pointer(path)
    try:
        content = load_json(text)
    except DuplicateKeyError as error:
        raise ValueError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:  # syntax, encoding, numbers with thousands of digits, deep nesting
        raise ValueError(f"{path}: is not JSON ({error}); expected a COCO annotation file") from None
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            state = "misses the key" if entries is None else "has no list of objects under the key"
            raise ValueError(f"{path}: is not a COCO annotation file: it {state} {key!r}")
    for annotation in content["annotations"]:
        annotation.pop("segmentation", None)
    return msgspec.convert(content, CocoFile)
