"""Reads COCO annotation files into flat arrays, with all checks of their content."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data.annotations import Annotations, Objects, build_annotations
from data.box_formats import XYWH, area_remarks, box_format_remarks
from data.coco_entries import Entries, is_number
from data.coco_json import load_coco_json
from data.faults import Faults
from data.remarks import Remark
from data.rotated_boxes import upright_boxes
from data.segmentations import segmentation_remarks
from detector.files import SYSTEM_NAMES
from detector.text import plural

COCO_DOWNLOAD = """\
    mkdir -p {root} && cd {root}
    for file in zips/train2017.zip zips/val2017.zip annotations/annotations_trainval2017.zip; do
        wget http://images.cocodataset.org/$file && unzip -q $(basename $file) && rm $(basename $file)
    done"""


def read_coco(path: Path, folder: Path) -> Annotations:
    """Read and check the COCO annotation file ``path`` whose images are in ``folder``.

    Raises a ValueError with file, entries and remedies for every fault that would spoil training or evaluation. For
    training, boxes without area are left out, and boxes that stick out of their image are clipped; warnings count both.
    Of rotated rectangles, the upright boxes around them are used, with a warning.
    """
    content = load_coco_json(path)
    faults = Faults(str(path))
    remarks: list[Remark] = []
    category_ids, class_names = read_categories(Entries("category", "categories", content.categories, faults))
    image_ids, sizes, names = _read_images(Entries("image", "images", content.images, faults))
    faults.raise_if_any()
    annotations = Entries("annotation", "annotations", content.annotations, faults)
    objects = _read_objects(annotations, image_ids, sizes, category_ids, remarks)
    debris = _debris_without_objects(names, objects)
    if 0 < len(debris) < len(names):
        text = f"{plural(len(debris), 'image')} left out: hidden files of a system or viewer, without objects"
        remarks.append(Remark("warning", text, tuple(names[n] for n in debris)))
        keep = np.setdiff1d(np.arange(len(names)), debris)
        objects = replace(objects, image_indices=np.searchsorted(keep, objects.image_indices))
        image_ids, sizes, names = image_ids[keep], sizes[keep], [names[n] for n in keep]
    check_files_exist(names, folder, faults)
    faults.raise_if_any()
    return build_annotations(str(path), folder, image_ids, sizes, names, objects, category_ids, class_names, remarks=remarks)


def check_root(root: Path, is_coco: bool) -> None:
    """Raise a ValueError if the data set's folder does not exist; for COCO itself, with the commands to download it."""
    if root.is_dir():
        return
    if root.is_file():
        raise ValueError(
            f"data.root: {root} is a file; expected the folder of a data set in COCO or Pascal VOC format, or a data.yaml "
            "of YOLO. Give annotation files as data.train_annotations and data.val_annotations, relative to data.root"
        )
    remedy = "set data.root to the folder of a data set in COCO or Pascal VOC format, or to a data.yaml of YOLO"
    if is_coco:
        remedy += ", or get COCO 2017 (about 20 GB):\n" + COCO_DOWNLOAD.format(root=root)
    raise ValueError(f"data.root: there is no folder {root} (looked from {Path.cwd()}); {remedy}")


def read_categories(categories: Entries) -> tuple[list[int], list[str]]:
    """Return the ids, ascending, and the names in the same order."""
    faults = categories.faults
    names: dict[int, str] = {}
    ids = categories.ids()
    if ids.dtype.kind == "S":
        shown = categories.values("id")[0]
        faults.add(f"the category ids are text, e.g. {shown!r}; number them, in 'categories' and in each category_id")
        ids = np.arange(len(ids))
    for id_, name in zip(ids.tolist(), categories.values("name")):
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


def _read_images(images: Entries) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return ids (I,), sizes (I, 2) height and width, and file names."""
    if not images.entries:
        images.faults.add("lists no images; expected at least one entry under 'images'")
    ids = images.ids()
    images.check_unique(ids)
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


def _read_objects(
    annotations: Entries, image_ids: np.ndarray, sizes: np.ndarray, category_ids: list[int], remarks: list[Remark]
) -> Objects:
    """Return one array per property of the N annotations, in the file's order. Faulty values are replaced by others.

    Adds remarks on ids, rotations, and boxes in other formats.
    """
    ids = annotations.ids()
    if ids.dtype.kind == "S":
        remarks.append(Remark("note", "annotation ids are text; annotations are numbered from 1, in the order of the file"))
        ids = np.arange(1, len(ids) + 1)
    else:
        annotations.check_unique(ids)
    image_indices = indices_of_images(annotations, image_ids)
    category_refs = annotations.whole_numbers("category_id", fallback=category_ids[0])
    labels, unknown = look_up(category_refs, np.array(category_ids))
    annotations.add_fault(unknown, lambda n: f"refers to category_id {category_refs[n]}; listed are {category_ids}")
    bboxes = _read_bboxes(annotations)
    _remark_on_boxes(annotations, bboxes, sizes[image_indices], remarks)
    bboxes, rotated = upright_boxes(annotations.entries, bboxes, sizes[image_indices])
    remarks += rotated
    return Objects(ids, image_indices, bboxes, _read_areas(annotations, bboxes), _read_crowds(annotations), labels)


def indices_of_images(annotations: Entries, image_ids: np.ndarray) -> np.ndarray:
    """Return the index of each annotation's image, (N,)."""
    refs = annotations.values("image_id")
    if differing := [n for n, ref in enumerate(refs) if isinstance(ref, str) != (image_ids.dtype.kind == "S")]:
        kinds = ("text", "numbers") if isinstance(refs[differing[0]], str) else ("no text", "text")
        annotations.add_fault(
            differing, lambda n: f"has image_id {refs[n]!r}, which is {kinds[0]}, but ids in 'images' are {kinds[1]}"
        )
        return np.zeros(len(refs), np.int64)
    order = np.argsort(image_ids)
    values = annotations.ids("image_id")
    positions, unknown = look_up(values, image_ids[order])
    annotations.add_fault(unknown, lambda n: f"refers to image_id {refs[n]!r}, which 'images' does not list")
    return order[positions]


def _remark_on_boxes(annotations: Entries, bboxes: np.ndarray, sizes: np.ndarray, remarks: list[Remark]) -> None:
    """Add a fault or a remark if boxes look like those of another format."""

    def describe(n: int) -> str:
        height, width = sizes[n].tolist()
        return f"{annotations.name(n)} with {[round(side, 4) for side in bboxes[n].tolist()]} in a {width} x {height} image"

    given = [area if area is not None and is_number(area) else np.nan for area in annotations.values("area")]
    found = box_format_remarks(bboxes, sizes, XYWH, describe) or area_remarks(bboxes, np.array(given, float), describe)
    found = found or segmentation_remarks(annotations.values("segmentation"), bboxes, sizes, describe)
    for one in found:
        if one.level == "error":
            annotations.faults.add(one.line())
        else:
            remarks.append(one)


def look_up(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of each value in the sorted array ``known``, and the indices of the values that are not in it."""
    indices = np.searchsorted(known, values).clip(0, len(known) - 1)
    return indices, np.flatnonzero(known[indices] != values)


def _read_bboxes(annotations: Entries) -> np.ndarray:
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
    annotations.add_fault(faulty, lambda n: f"has the bbox {values[n]!r}; expected {_expected_bbox(values[n])}")
    return np.tile([0.0, 0.0, 2.0, 2.0], (len(values), 1))


def _expected_bbox(value: Any) -> str:
    expected = "four finite numbers, [x, y, width, height]"
    if isinstance(value, list) and len(value) == 5:
        return f"{expected}: five look like a rotated box, of which the upright box around it can be used"
    if isinstance(value, list) and len(value) in (6, 8):
        return f"{expected}: {len(value)} look like corners of a polygon, of which the box around it can be used"
    if value is None:
        return f"{expected}; if there is a segmentation or key points, compute the box from them first"
    return expected


def _read_areas(annotations: Entries, bboxes: np.ndarray) -> np.ndarray:
    """Return the areas; a missing area is that of the box."""
    values, areas = annotations.values("area"), bboxes[:, 2:].clip(0).prod(axis=1)
    missing = np.array([value is None for value in values], bool)
    faulty: list[int] | np.ndarray = []
    if not set(map(type, values)) <= {float, type(None)}:
        faulty = [n for n, value in enumerate(values) if value is not None and not is_number(value)]
    if not faulty:
        areas[~missing] = np.array([value for value in values if value is not None], np.float64)
        faulty = np.flatnonzero(~np.isfinite(areas) | (areas < 0))
    annotations.add_fault(faulty, lambda n: f"has the area {values[n]!r}; expected a finite number, 0 or more")
    return areas


def _read_crowds(annotations: Entries) -> np.ndarray:
    values = annotations.values("iscrowd")
    faulty = [n for n, value in enumerate(values) if value not in (0, 1)]
    annotations.add_fault(faulty, lambda n: f"has iscrowd {values[n]!r}; expected 0 or 1")
    return np.array([value == 1 for value in values], bool)


def _is_bbox(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(is_number(side) for side in value)


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


def _debris_without_objects(names: list[str], objects: Objects) -> list[int]:
    """Return the indices of listed images that a system has written beside the images, such as ``._a.jpg``."""
    counts = np.bincount(objects.image_indices, minlength=len(names))
    return [n for n, name in enumerate(names) if not counts[n] and _is_debris(name)]


def _is_debris(name: str) -> bool:
    *folders, base = name.replace("\\", "/").lower().split("/")
    return base.startswith("._") or not SYSTEM_NAMES.isdisjoint([*folders, base])
