"""What an annotation file holds once it is read and checked, whatever its format: flat arrays."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from os.path import commonpath, join, relpath
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from detector.batch import xywh_to_xyxy
from detector.text import plural


@dataclass(frozen=True)
class Annotations:
    """The images and objects of a split: I images in the file's order, and N objects sorted by image.

    The objects of image i are those from ``offsets[i]`` to ``offsets[i + 1]``. Arrays are shared between forked workers;
    lists of dicts would be copied bit by bit as the workers touch them.
    """

    name: str  # what messages call it: the annotation file or files
    folder: Path  # that file names are relative to
    image_ids: np.ndarray  # (I,) int64
    sizes: np.ndarray  # (I, 2) int64, height and width
    file_names: np.ndarray  # (I,) bytes, UTF-8
    offsets: np.ndarray  # (I + 1,) int64
    ids: np.ndarray  # (N,) int64
    bboxes: np.ndarray  # (N, 4) float64, x y width height as in the file, so possibly sticking out of the image
    areas: np.ndarray  # (N,) float64
    crowds: np.ndarray  # (N,) bool
    labels: np.ndarray  # (N,) int64, 0..C-1
    category_ids: list[int]  # C of them, ascending
    class_names: list[str]  # in the same order
    upright: bool = False  # whether sizes and boxes are those of the images as viewers show them, EXIF rotation applied

    def __len__(self) -> int:
        return len(self.image_ids)

    def image_path(self, index: int) -> Path:
        return self.folder / self.file_names[index].decode()

    def objects(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes (N, 4) float32, x1 y1 x2 y2 clipped to the image, and labels (N,) int64, to train on.

        Crowds are left out, and so is what has no area inside the image.
        """
        own = slice(self.offsets[index], self.offsets[index + 1])
        height, width = self.sizes[index]
        boxes = clip_bboxes(self.bboxes[own], height, width)
        usable = have_area(boxes) & ~self.crowds[own]
        return boxes[usable].astype(np.float32), self.labels[own][usable]

    def image_indices(self) -> np.ndarray:
        """Return the index of each object's image, (N,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def as_single_class(self) -> "Annotations":
        """Return the same with all objects in one class, ``object``, under the smallest category id."""
        return replace(self, labels=np.zeros_like(self.labels), category_ids=self.category_ids[:1], class_names=["object"])

    def ground_truth(self) -> dict[str, Any]:
        """Return what pycocotools needs for box evaluation: a dict in COCO format, with original ids and crowds.

        Boxes are as in the file, not clipped, and those without area are among them: the numbers are those of an evaluation
        outside of this project.
        """
        images = [
            {"id": id_, "file_name": name.decode(), "height": height, "width": width}
            for id_, name, (height, width) in zip(self.image_ids.tolist(), self.file_names, self.sizes.tolist())
        ]
        category_ids = np.array(self.category_ids)[self.labels]
        columns = (self.ids, self.image_ids[self.image_indices()], category_ids, self.bboxes, self.areas)
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
        rows = zip(*(column.tolist() for column in (*columns, self.crowds.astype(int))))
        categories = [{"id": id_, "name": name} for id_, name in zip(self.category_ids, self.class_names)]
        annotations = [dict(zip(keys, row)) for row in rows]
        info = {"pictures": str(self.folder.resolve()), "upright": self.upright}  # for who shows them
        return {"info": info, "images": images, "annotations": annotations, "categories": categories}

    def summary(self) -> str:
        """Say in one line what was read."""
        crowds = int(self.crowds.sum())
        empty = int((np.diff(self.offsets) == 0).sum())
        return (
            f"{self.name}: {plural(len(self), 'image')}, {empty} of them without objects, "
            f"{plural(len(self.ids) - crowds, 'object')}, {plural(crowds, 'crowd')}, "
            f"{plural(len(self.class_names), 'class', 'classes')}; images in {self.folder}"
        )


@dataclass(frozen=True)
class Objects:
    """N objects in the order of a file, one array per property; see Annotations."""

    ids: np.ndarray
    positions: np.ndarray  # (N,) int64, the image's number
    bboxes: np.ndarray
    areas: np.ndarray
    crowds: np.ndarray
    labels: np.ndarray


class Faults:
    """What is wrong with a file, collected, so that one error can name all of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.texts: list[str] = []

    def add(self, text: str, count: int = 1) -> None:
        """Note a fault; ``count`` is how many entries have it, of which ``text`` describes one."""
        self.texts.append(text + (f" (and {count - 1} more like it)" if count > 1 else ""))

    def raise_if_any(self) -> None:
        """Raise a ValueError that names the file and all faults so far."""
        if len(self.texts) == 1:
            raise ValueError(f"{self.name}: {self.texts[0]}")
        if self.texts:
            raise ValueError(
                f"{self.name} has {len(self.texts)} faults:\n" + "\n".join(f"    {text}" for text in self.texts)
            )


def clip_bboxes(bboxes: np.ndarray, height: np.ndarray | int, width: np.ndarray | int) -> np.ndarray:
    """Return x y width height (N, 4) as x1 y1 x2 y2, clipped to images of that height and width, one or N of them."""
    corners = xywh_to_xyxy(bboxes)
    np.clip(corners[:, 0::2].T, 0, width, out=corners[:, 0::2].T)
    np.clip(corners[:, 1::2].T, 0, height, out=corners[:, 1::2].T)
    return corners


def have_area(boxes: np.ndarray) -> np.ndarray:
    """Return (N,) bool: which of ``boxes`` (N, 4), x1 y1 x2 y2, are wider and taller than nothing."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def faulty_boxes(annotations: Annotations) -> tuple[np.ndarray, np.ndarray]:
    """Return two masks (N,) of the objects: without area inside their image, and others that stick out of it."""
    return _faulty(annotations.bboxes, annotations.sizes[annotations.image_indices()])


def _faulty(bboxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    solid = have_area(clip_bboxes(bboxes, *sizes.T))
    limits = sizes[:, ::-1] * (1 + 1e-6)  # shares of the image turned into pixels need not come out round
    outside = (bboxes[:, :2] < -1e-3).any(axis=1) | (xywh_to_xyxy(bboxes)[:, 2:] > limits).any(axis=1)
    return ~solid, solid & outside


def build_annotations(
    name: str,
    folder: Path,
    image_ids: np.ndarray,
    sizes: np.ndarray,
    file_names: list[str],
    objects: Objects,
    category_ids: list[int],
    class_names: list[str],
    upright: bool = False,
) -> Annotations:
    """Sort the objects by image. Boxes without area in their image, or sticking out of it, are counted in warnings."""
    empty, outside = _faulty(objects.bboxes, sizes[objects.positions])
    _warn(
        name,
        objects.ids[empty],
        ("box has", "boxes have"),
        "no area inside the image; dropped from training, and missed in evaluation, as by pycocotools",
    )
    _warn(name, objects.ids[outside], ("box sticks", "boxes stick"), "out of the image; clipped to it for training")
    ids = objects.ids
    if (ids <= 0).any():
        # pycocotools marks a found object by its annotation id and takes 0 for not found.
        ids = np.arange(1, len(ids) + 1)
        rank_zero_warn(f"{name}: pycocotools never counts annotation id 0 as found; numbered anew from 1 for evaluation")
    order = np.argsort(objects.positions, kind="stable")
    annotations = Annotations(
        name=name,
        folder=folder,
        image_ids=image_ids,
        sizes=sizes,
        file_names=np.array([name.encode() for name in file_names]),
        offsets=np.searchsorted(objects.positions[order], np.arange(len(image_ids) + 1)),
        ids=ids[order],
        bboxes=objects.bboxes[order],
        areas=objects.areas[order],
        crowds=objects.crowds[order],
        labels=objects.labels[order],
        category_ids=category_ids,
        class_names=class_names,
        upright=upright,
    )
    rank_zero_info(annotations.summary())
    if annotations.crowds.all():
        rank_zero_warn(f"{name}: has no objects at all; nothing can be learned or measured from it")
    return annotations


def join_annotations(parts: list[Annotations]) -> Annotations:
    """Return several files as one. Lists of categories are united; the same id must have the same name everywhere.

    Ids of images or annotations that appear in more than one file are numbered anew, all of them, which is reported:
    predictions then have the new ids.
    """
    if len(parts) == 1:
        return parts[0]
    names = _unite_categories(parts)
    category_ids = sorted(names)
    folder = Path(commonpath([part.folder.resolve() for part in parts]))
    labels = [np.searchsorted(category_ids, np.array(part.category_ids))[part.labels] for part in parts]
    file_names = [
        join(relpath(part.folder.resolve(), folder), name.decode()).removeprefix("./").encode()
        for part in parts
        for name in part.file_names
    ]
    sizes = np.cumsum([0] + [len(part.ids) for part in parts])
    joined = Annotations(
        name=" + ".join(part.name for part in parts),
        folder=folder,
        image_ids=_unique_ids([part.image_ids for part in parts], "image", parts),
        sizes=np.concatenate([part.sizes for part in parts]),
        file_names=np.array(file_names),
        offsets=np.concatenate([[0], *(part.offsets[1:] + start for part, start in zip(parts, sizes))]),
        ids=_unique_ids([part.ids for part in parts], "annotation", parts),
        bboxes=np.concatenate([part.bboxes for part in parts]),
        areas=np.concatenate([part.areas for part in parts]),
        crowds=np.concatenate([part.crowds for part in parts]),
        labels=np.concatenate(labels),
        category_ids=category_ids,
        class_names=[names[id_] for id_ in category_ids],
        upright=parts[0].upright,
    )
    rank_zero_info(joined.summary())
    return joined


def _unite_categories(parts: list[Annotations]) -> dict[int, str]:
    names: dict[int, str] = {}
    ids: dict[str, int] = {}
    for part in parts:
        for id_, name in zip(part.category_ids, part.class_names):
            if names.setdefault(id_, name) != name or ids.setdefault(name, id_) != id_:
                raise ValueError(
                    f"{part.name} cannot be joined with {parts[0].name}: it has category {id_} {name!r}, and a file before "
                    f"it has {id_} {names[id_]!r} or {name!r} under the id {ids.get(name, id_)}; give both the same ids"
                )
    return names


def _unique_ids(ids: list[np.ndarray], kind: str, parts: list[Annotations]) -> np.ndarray:
    joined = np.concatenate(ids)
    if len(np.unique(joined)) == len(joined):
        return joined
    rank_zero_info(f"{len(parts)} files share {kind} ids; numbered anew from 1, in the files' order")
    return np.arange(1, len(joined) + 1)


def check_same_classes(train: Annotations, other: Annotations) -> None:
    """Raise a ValueError that shows the difference unless both files list the same categories, by id and name."""
    ours = dict(zip(train.category_ids, train.class_names))
    theirs = dict(zip(other.category_ids, other.class_names))
    differing = [id_ for id_ in sorted(ours.keys() | theirs.keys()) if ours.get(id_) != theirs.get(id_)]
    if differing:
        lines = [f"    id {id_}: {ours.get(id_, '(none)')} | {theirs.get(id_, '(none)')}" for id_ in differing[:20]]
        raise ValueError(
            f"{train.name} and {other.name} list different categories, so labels would be mixed up; give both the same "
            f"list, unused ones included. {len(differing)} differ (first file | second file):\n" + "\n".join(lines)
        )


def repeated(values: Iterable[Any]) -> list[Any]:
    """Return the values that occur more than once, in the order of their second occurrence."""
    seen, twice = set(), {}
    for value in values:
        if value in seen:
            twice[value] = None
        seen.add(value)
    return list(twice)


def _warn(name: str, ids: np.ndarray, one_or_many: tuple[str, str], what: str) -> None:
    if len(ids):
        shown = ", ".join(map(str, ids[:5].tolist())) + (" ..." if len(ids) > 5 else "")
        rank_zero_warn(f"{name}: {plural(len(ids), *one_or_many)} {what} (annotation ids {shown})")
