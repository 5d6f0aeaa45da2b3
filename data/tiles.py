"""Tiles of the images of a split: for evaluation, and cut once to train on them."""

from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from data.annotations import Annotations, clip_bboxes, have_area
from data.dataset import Sample
from data.reader import ImageReader
from data.sampler import SampleKey
from detector.batch import Size, Target, Tile
from detector.imaging.letterbox import GRAY, letterbox, to_canvas
from detector.imaging.tiles import Tiling, cut


class TileObjects(NamedTuple):
    """The objects of an image that reach into a tile."""

    rows: np.ndarray  # (N,) int64, their places among the objects of the split
    boxes: np.ndarray  # (N, 4) float64, x1 y1 x2 y2 in pixels of the tile, clipped to it
    visible: np.ndarray  # (N,) float64, share of each box in the image that is in the tile, above 0 and up to 1


def objects_in(annotations: Annotations, index: int, tile: Tile) -> TileObjects:
    """Return the objects of image ``index`` that reach into ``tile``. Boxes without area in the image are left out."""
    objects = annotations.object_slice(index)
    boxes = clip_bboxes(annotations.bboxes[objects], *annotations.sizes[index])
    corner = np.array([tile.x, tile.y] * 2)
    inside = np.clip(boxes - corner, 0, [tile.width, tile.height] * 2)
    usable = have_area(boxes) & have_area(inside)
    rows = np.arange(objects.start, objects.stop)[usable]
    return TileObjects(rows, inside[usable], areas_of(inside[usable]) / areas_of(boxes[usable]))


def areas_of(boxes: np.ndarray) -> np.ndarray:
    """Return the areas (N,) of ``boxes`` (N, 4) x1 y1 x2 y2."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


class TileDataset(Dataset[Sample]):
    """Letterboxed tiles of all images by SampleKey, and the whole of each image that has several; see ``Tiling.parts``.

    The objects of a tile are those of which half is visible, without crowds; they only matter for the loss. A bad image that
    is skipped is gray, as in ``EvalDataset``. The last image stays decoded, as its tiles follow one another.
    """

    def __init__(self, reader: ImageReader, size: Size, tiling: Tiling) -> None:
        self.reader, self.size = reader, size
        annotations = reader.annotations
        self.parts = [(n, tile) for n in range(len(annotations)) for tile in tiling.parts(annotations.size(n))]
        self._last: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, key: SampleKey | int) -> Sample:
        index, tile = self.parts[key[0] if isinstance(key, tuple) else key]
        annotations = self.reader.annotations
        image, placement = letterbox(cut(self._image(index), tile), self.size)
        rows, boxes, visible = objects_in(annotations, index, tile)
        keep = (visible >= 0.5) & ~annotations.crowds[rows]
        target = Target(
            boxes=torch.from_numpy(to_canvas(boxes[keep].astype(np.float32), placement)),
            labels=torch.from_numpy(annotations.labels[rows[keep]]),
            image_id=annotations.image_id(index),
            letterbox=placement,
            tile=tile,
        )
        return Sample(image, target)

    def describe(self, key: SampleKey | int) -> str:
        """Return the path of the image and the place of the tile, in words."""
        index, tile = self.parts[key[0] if isinstance(key, tuple) else key]
        return f"image {self.reader.annotations.image_path(index)}, tile at x {tile.x}, y {tile.y}"

    def _image(self, index: int) -> np.ndarray:
        if self._last is None or self._last[0] != index:
            image = self.reader.read(index)
            if image is None:
                image = np.full((*self.reader.annotations.sizes[index], 3), GRAY, np.uint8)
            self._last = index, image
        return self._last[1]
