"""Reads data sets with XML files of Pascal VOC."""

import os
from collections import Counter
from pathlib import Path

import numpy as np

from data.annotations import Annotations, Objects, build_annotations
from data.box_formats import box_format_remarks
from data.faults import Faults
from data.images import Header, read_headers
from data.remarks import Remark
from data.voc_folders import Sources
from data.voc_pairs import MAX_EXAMPLES, Entry, VocFolders, left_out_remarks, shown_paths, split_entries
from data.voc_xml import VocObject
from detector.batch import Size
from detector.text import plural

CORNERS = "x1 y1 x2 y2"


def read_voc(root: Path, sources: Sources, searched: Path | None = None) -> dict[str, Annotations]:
    """Read the splits of a Pascal VOC set from their ``sources``, see ``data.voc_folders.find_voc``.

    ``searched`` is the folder in which the sources were found: its other XML files are counted. None if a user gave them.

    An XML file belongs to the image of the same name, in the same sub-folder, else to its ``<filename>``; case counts only
    where two names differ by nothing else. An image without an XML file has no objects. Classes are the names of all
    splits in alphabetical order, with the ids 1, 2, ...; images are numbered from 1 in the order of their paths.

    Coordinates are those of Pascal VOC: pixels are counted from 1, so the left border of a box is at xmin - 1. If a corner
    of any file is below 1 or has a fraction, the whole set counts from 0, and xmin is the border. Objects that are
    ``difficult`` become crowds, see ``_objects``.

    Raises ValueError with file and line for malformed XML, and for sizes that are not those of the image.
    """
    faults = Faults(str(root))
    files = VocFolders(faults)
    remarks: dict[str, list[Remark]] = {split: [] for split in sources}
    entries = {split: split_entries(split_sources, files, remarks[split]) for split, split_sources in sources.items()}
    remarks["train"] += left_out_remarks(searched, sources, entries, files)
    faults.raise_if_any()
    class_names = _class_names(entries, faults)
    from_zero = [_place(e, one) for found in entries.values() for e in found for one in e.objects if _counts_from_zero(one)]
    origin = 0 if from_zero else 1
    if from_zero:
        subject = plural(len(from_zero), "object has a corner", "objects have corners")
        text = f"{subject} below 1 or with a fraction, so pixels are counted from 0, not 1, in the whole set"
        remarks["train"].append(Remark("note", text, tuple(from_zero[:MAX_EXAMPLES])))
    headers = {split: read_headers([entry.image for entry in found], faults) for split, found in entries.items()}
    sizes = {split: _sizes(found, headers[split], faults, remarks[split]) for split, found in entries.items()}
    faults.raise_if_any()
    return {
        split: _annotations(f"{root} ({split})", root, found, sizes[split], class_names, origin, remarks[split])
        for split, found in entries.items()
    }


def _class_names(entries: dict[str, list[Entry]], faults: Faults) -> list[str]:
    """Return the names of all classes, sorted; add a fault for names that differ by case alone, or if there are none."""
    places: dict[str, Path] = {}
    counts: Counter[str] = Counter()
    for file in filter(None, (entry.file for found in entries.values() for entry in found)):
        for one in file.objects:
            counts[one.name] += 1
            places.setdefault(one.name, file.path)
    by_lower: dict[str, list[str]] = {}
    for name in sorted(counts):
        by_lower.setdefault(name.lower(), []).append(name)
    for names in by_lower.values():
        if len(names) > 1:
            shown = " and ".join(f"{name!r} ({counts[name]} x, e.g. {places[name]})" for name in names)
            faults.add(f"the classes {shown} differ by case alone; give them one name")
    if not counts:
        faults.add("no XML file has an object, so there are no classes; label some images first")
        faults.raise_if_any()
    return sorted(counts)


def _counts_from_zero(one: VocObject) -> bool:
    """Return True if the corners show that pixels are counted from 0."""
    return min(one.corners[:2]) < 1 or not all(value.is_integer() for value in one.corners)


def _place(entry: Entry, one: VocObject) -> str:
    """Return class, file and line of an object, for a message."""
    assert entry.file is not None, "it has objects"
    return f"{one.name} in {entry.file.path}, line {one.line}"


def _sizes(entries: list[Entry], headers: list[Header], faults: Faults, remarks: list[Remark]) -> np.ndarray:
    """Return height and width of each image, (I, 2), as its XML file means them; add a fault if they are not the image's.

    A file that states the size of the turned image describes it as viewers show it. A file without size describes the
    image as viewers show it, too.
    """
    sizes, wrong = [], []
    for entry, header in zip(entries, headers):
        size = entry.file.size if entry.file else None
        sizes.append(size or header.upright)
        if entry.file and size and size not in (header.upright, header.stored) and header.stored != (1, 1):
            wrong.append((entry.file.path, size, header))
    if wrong:
        path, stated, header = wrong[0]
        faults.add(f"{path}: {_size_message(stated, header.upright)}", len(wrong))
    without = [entry.file.path for entry in entries if entry.file and entry.file.size is None]
    if without:
        text = f"{plural(len(without), 'XML file states', 'XML files state')} no size; those of the images are used"
        remarks.append(Remark("note", text, shown_paths(without)))
    return np.array(sizes)


def _size_message(stated: Size, actual: Size) -> str:
    hint = "; width and height are exchanged" if stated == actual[::-1] else ""
    return (
        f"states a size of {stated[1]} x {stated[0]} (width x height), but the image is {actual[1]} x {actual[0]}{hint}: "
        "boxes may be misplaced. If they fit the image, correct or remove <size>; else restore the image"
    )


def _annotations(
    name: str,
    root: Path,
    entries: list[Entry],
    sizes: np.ndarray,
    class_names: list[str],
    origin: int,
    remarks: list[Remark],
) -> Annotations:
    objects, corners = _objects(entries, class_names, origin)
    described = [_place(entry, one) for entry in entries for one in entry.objects]
    for one in box_format_remarks(corners, sizes[objects.image_indices], CORNERS, described.__getitem__):
        if one.level == "error":
            raise ValueError(f"{name}: {one.text}")
        remarks.append(one)
    if difficult := int(objects.crowds.sum()):
        subject = plural(difficult, "object is difficult", "objects are difficult")
        remarks.append(Remark("note", f"{subject}: not trained on, and neither right nor wrong in evaluation, as crowds"))
    paths = [Path(os.path.abspath(entry.image)) for entry in entries]
    folder = Path(os.path.abspath(root))
    names = [str(path.relative_to(folder) if path.is_relative_to(folder) else path) for path in paths]
    ids, category_ids = np.arange(1, len(entries) + 1), list(range(1, len(class_names) + 1))
    return build_annotations(name, root, ids, sizes, names, objects, category_ids, class_names, remarks=remarks)


def _objects(entries: list[Entry], class_names: list[str], origin: int) -> tuple[Objects, np.ndarray]:
    """Return the objects of a split, and their corners x1 y1 x2 y2 (N, 4) in pixels counted from 0.

    Difficult objects become crowds: training leaves them out, and evaluation counts detections of them neither as right
    nor as wrong, which is how Pascal VOC evaluates.
    """
    found = [(index, one) for index, entry in enumerate(entries) for one in entry.objects]
    labels = {name: label for label, name in enumerate(class_names)}
    corners = np.array([one.corners for _, one in found], np.float64).reshape(-1, 4) - [origin, origin, 0, 0]
    bboxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    objects = Objects(
        ids=np.arange(1, len(found) + 1),
        image_indices=np.array([index for index, _ in found], np.int64),
        bboxes=bboxes,
        areas=bboxes[:, 2:].clip(0).prod(axis=1),
        crowds=np.array([one.difficult for _, one in found], bool),
        labels=np.array([labels[one.name] for _, one in found], np.int64),
    )
    return objects, corners
