"""The annotations of a split as flat arrays, the same for all file formats."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from data.remarks import Remark, log_remarks
from detector.batch import Size, xywh_to_xyxy
from detector.imaging.sixteen_bits import FULL_RANGE, SampleRange
from detector.text import decode_name, encode_name, plural


@dataclass(frozen=True)
class Annotations:
    """The images and objects of a split: I images in the file's order, and N objects sorted by image.

    The objects of image i are those from ``offsets[i]`` to ``offsets[i + 1]``. Forked workers share arrays; of lists of
    dicts each worker would copy every entry that it touches.
    """

    name: str  # of the annotation file or files, for messages
    folder: Path  # file names are relative to it
    image_ids: np.ndarray  # (I,) int64, or bytes (UTF-8) if the file has text as ids
    sizes: np.ndarray  # (I, 2) int64, height and width
    file_names: np.ndarray  # (I,) bytes, UTF-8
    offsets: np.ndarray  # (I + 1,) int64
    ids: np.ndarray  # (N,) int64
    bboxes: np.ndarray  # (N, 4) float64, x y width height as in the file, may stick out of the image
    areas: np.ndarray  # (N,) float64
    crowds: np.ndarray  # (N,) bool
    labels: np.ndarray  # (N,) int64, 0..C-1
    category_ids: list[int]  # C of them, ascending
    class_names: list[str]  # C of them, in the same order
    upright: bool = False  # sizes and boxes are those of the images as viewers show them, EXIF rotation applied
    remarks: tuple[Remark, ...] = ()  # of the reader
    sixteen_bit_range: SampleRange = FULL_RANGE  # for images with 16 bits a sample, see ``to_eight_bits``
    held_out: float | None = None  # the share of the training images that this validation split was made of

    def __len__(self) -> int:
        return len(self.image_ids)

    def image_id(self, index: int) -> int | str:
        """Return the id of an image as in the file."""
        id_ = self.image_ids[index]
        return decode_name(id_) if isinstance(id_, bytes) else int(id_)

    def file_name(self, index: int) -> str:
        return decode_name(self.file_names[index])

    def image_path(self, index: int) -> Path:
        return self.folder / self.file_name(index)

    def size(self, index: int) -> Size:
        height, width = self.sizes[index].tolist()
        return height, width

    def common_folder(self) -> Path:
        """Return the deepest folder that all images are in; ``folder`` without images."""
        folders = [self.folder / one for one in {os.path.dirname(decode_name(name)) for name in self.file_names}]
        if len({path.is_absolute() for path in folders}) > 1:
            folders = [path.absolute() for path in folders]
        return Path(os.path.commonpath([os.path.normpath(path) for path in folders])) if folders else self.folder

    def object_slice(self, index: int) -> slice:
        """Return the slice of the arrays of objects that belongs to image ``index``."""
        return slice(self.offsets[index], self.offsets[index + 1])

    def image_indices(self) -> np.ndarray:
        """Return the index of each object's image, (N,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def objects(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the training objects of an image: boxes (N, 4) float32, x1 y1 x2 y2 clipped to the image, and labels (N,).

        Crowds, and boxes without area inside the image, are left out.
        """
        objects = self.object_slice(index)
        boxes = clip_bboxes(self.bboxes[objects], *self.sizes[index])
        usable = have_area(boxes) & ~self.crowds[objects]
        return boxes[usable].astype(np.float32), self.labels[objects][usable]

    def as_single_class(self) -> "Annotations":
        """Return a copy with all objects in one class, ``object``, with the smallest category id."""
        return replace(self, labels=np.zeros_like(self.labels), category_ids=self.category_ids[:1], class_names=["object"])

    def subset(self, indices: np.ndarray) -> "Annotations":
        """Return a copy with the images ``indices``, ascending, and their objects; ids stay."""
        chosen = np.isin(self.image_indices(), indices)
        return replace(
            self,
            image_ids=self.image_ids[indices],
            sizes=self.sizes[indices],
            file_names=self.file_names[indices],
            offsets=np.concatenate([[0], np.cumsum(np.diff(self.offsets)[indices])]),
            ids=self.ids[chosen],
            bboxes=self.bboxes[chosen],
            areas=self.areas[chosen],
            crowds=self.crowds[chosen],
            labels=self.labels[chosen],
        )

    def ground_truth(self) -> dict[str, Any]:
        """Return the split in COCO format, with original ids and crowds, for box evaluation by pycocotools.

        Boxes are as in the file: not clipped, and those without area are included. So AP is the same as that of an
        evaluation outside of this project.
        """
        images = [
            {"id": self.image_id(n), "file_name": decode_name(name), "height": height, "width": width}
            for n, (name, (height, width)) in enumerate(zip(self.file_names, self.sizes.tolist()))
        ]
        category_ids = np.array(self.category_ids)[self.labels]
        image_ids = np.array([image["id"] for image in images])[self.image_indices()]
        columns = (self.ids, image_ids, category_ids, self.bboxes, self.areas)
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
        rows = zip(*(column.tolist() for column in (*columns, self.crowds.astype(int))))
        annotations = [dict(zip(keys, row)) for row in rows]
        categories = [{"id": id_, "name": name} for id_, name in zip(self.category_ids, self.class_names)]
        info = {"pictures": str(self.folder.resolve()), "upright": self.upright}  # the report shows images from this folder
        if self.sixteen_bit_range != FULL_RANGE:
            info["sixteen_bit_range"] = list(self.sixteen_bit_range)
        return {"info": info, "images": images, "annotations": annotations, "categories": categories}

    def summary(self) -> str:
        """Return one line with the numbers of images, objects and classes."""
        crowds = int(self.crowds.sum())
        empty = int((np.diff(self.offsets) == 0).sum())
        return (
            f"{self.name}: {plural(len(self), 'image')}, {empty} of them without objects, "
            f"{plural(len(self.ids) - crowds, 'object')}, {plural(crowds, 'crowd')}, "
            f"{plural(len(self.class_names), 'class', 'classes')}; images in {self.common_folder()}"
        )


@dataclass(frozen=True)
class Objects:
    """N objects in the order of a file, one array for each property; see Annotations."""

    ids: np.ndarray
    image_indices: np.ndarray  # (N,) int64
    bboxes: np.ndarray
    areas: np.ndarray
    crowds: np.ndarray
    labels: np.ndarray


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
    remarks: Sequence[Remark] = (),
) -> Annotations:
    """Build Annotations from objects in any order.

    Logs the ``remarks``, and warns of boxes without area in their image or sticking out of it.
    """
    ids, renumbered = _positive_ids(objects.ids)
    remarks = (*remarks, *renumbered)
    log_remarks(name, remarks)
    _warn_of_faulty_boxes(name, objects, sizes)
    order = np.argsort(objects.image_indices, kind="stable")
    annotations = Annotations(
        name=name,
        folder=folder,
        image_ids=image_ids,
        sizes=sizes,
        file_names=np.array([encode_name(name) for name in file_names]),
        offsets=np.searchsorted(objects.image_indices[order], np.arange(len(image_ids) + 1)),
        ids=ids[order],
        bboxes=objects.bboxes[order],
        areas=objects.areas[order],
        crowds=objects.crowds[order],
        labels=objects.labels[order],
        category_ids=category_ids,
        class_names=class_names,
        upright=upright,
        remarks=remarks,
    )
    rank_zero_info(annotations.summary())
    if annotations.crowds.all():
        rank_zero_warn(f"{name}: has no objects at all; nothing can be learned or measured from it")
    return annotations


def clip_bboxes(bboxes: np.ndarray, height: np.ndarray | int, width: np.ndarray | int) -> np.ndarray:
    """Convert x y width height (N, 4) to x1 y1 x2 y2, clipped to the image; ``height`` and ``width`` are numbers or (N,)."""
    corners = xywh_to_xyxy(bboxes)
    np.clip(corners[:, 0::2].T, 0, width, out=corners[:, 0::2].T)
    np.clip(corners[:, 1::2].T, 0, height, out=corners[:, 1::2].T)
    return corners


def have_area(boxes: np.ndarray) -> np.ndarray:
    """Return a mask (N,) of the ``boxes`` (N, 4), x1 y1 x2 y2, with width and height above zero."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def faulty_boxes(bboxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two masks (N,) of ``bboxes`` (N, 4) x y width height: without area in their image, and sticking out of it.

    ``sizes`` (N, 2) are height and width of each box's image. No box is in both masks.
    """
    empty = ~have_area(clip_bboxes(bboxes, *sizes.T))
    limits = sizes[:, ::-1] * (1 + 1e-6)  # shares of the image converted to pixels have rounding errors
    outside = (bboxes[:, :2] < -1e-3).any(axis=1) | (xywh_to_xyxy(bboxes)[:, 2:] > limits).any(axis=1)
    return empty, outside & ~empty


def _warn_of_faulty_boxes(name: str, objects: Objects, sizes: np.ndarray) -> None:
    empty, outside = faulty_boxes(objects.bboxes, sizes[objects.image_indices])
    for mask, one, many, text in (
        (empty, "box has", "boxes have",
         "no area inside the image; dropped from training, and missed in evaluation, as by pycocotools"),
        (outside, "box sticks", "boxes stick", "out of the image; clipped to it for training"),
    ):  # fmt: skip
        if mask.any():
            ids = objects.ids[mask].tolist()
            shown = ", ".join(map(str, ids[:5])) + (" ..." if len(ids) > 5 else "")
            rank_zero_warn(f"{name}: {plural(len(ids), one, many)} {text} (annotation ids {shown})")


def _positive_ids(ids: np.ndarray) -> tuple[np.ndarray, list[Remark]]:
    """Return ``ids``, or new ones from 1 and a remark if one is 0 or less.

    pycocotools stores the annotation id of a detection's match, and reads 0 as "no match".
    """
    if (ids > 0).all():
        return ids, []
    text = "pycocotools never counts annotation id 0 as found; annotations are renumbered from 1 for evaluation"
    return np.arange(1, len(ids) + 1), [Remark("warning", text)]
