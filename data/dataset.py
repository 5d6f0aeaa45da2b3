"""Samples: one augmented image for training, one letterboxed image for evaluation."""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from data.cache import Fitted, ImageReader, PoolCache, RamCache
from data.mosaic import Source
from data.sampler import EpochOrder, SampleKey
from data.transforms import TrainPipeline
from detector.batch import Batch, Target
from detector.imaging.letterbox import GRAY, letterbox, to_canvas


class Sample(NamedTuple):
    image: np.ndarray  # (H, W, 3) uint8 RGB
    target: Target


class TrainDataset(Dataset[Sample]):
    """Augmented images, asked for by SampleKey. A sample depends on key, seed and settings alone.

    Images are mixed (mosaic, mixup) with others of their pool in epochs before ``close_epoch`` (None: in all). A bad
    image that is to be skipped is replaced by the next one in the file. A plain index, as Lightning's ``overfit_batches``
    asks for, means epoch 0.
    """

    def __init__(
        self,
        reader: ImageReader,
        pipeline: TrainPipeline,
        order: EpochOrder,
        mosaic: float,
        mixup: float,
        close_epoch: int | None,
        cache: PoolCache | RamCache | None = None,
    ) -> None:
        self.reader, self.pipeline, self.order = reader, pipeline, order
        self.mosaic, self.mixup, self.close_epoch = mosaic, mixup, close_epoch
        self.cache = cache

    def __len__(self) -> int:
        return len(self.reader.annotations)

    def __getitem__(self, key: SampleKey | int) -> Sample:
        index, epoch, size = key if isinstance(key, tuple) else (key, 0, self.pipeline.size)
        layers, pool, draw = self._choose(index, epoch)
        found = [[self._usable(number, pool) for number in layer] for layer in layers]
        sources, labels = self._sources(found)
        image, objects = self.pipeline(sources, draw, size)
        target = Target(
            boxes=torch.from_numpy(objects[:, :4].copy()),
            labels=torch.from_numpy(labels[np.rint(objects[:, 4]).astype(np.int64)]),
            image_id=int(self.reader.annotations.image_ids[found[0][0][0]]),
        )
        return Sample(image, target)

    def describe(self, key: SampleKey | int) -> str:
        """Name the images of a sample."""
        index, epoch = key[:2] if isinstance(key, tuple) else (key, 0)
        layers, _, _ = self._choose(index, epoch)
        paths = [str(self.reader.annotations.image_path(number)) for layer in layers for number in layer]
        mixed = f", mixed with {', '.join(paths[1:])}" if paths[1:] else ""
        return f"training image {paths[0]} (index {index}, epoch {epoch}){mixed}"

    def _choose(self, index: int, epoch: int) -> tuple[list[list[int]], tuple[int, int], np.random.Generator]:
        """Return the images of each layer, the pool (epoch and number), and what the rest is drawn from."""
        draw = np.random.default_rng([self.order.seed, epoch, index])
        number, members = self.order.pool_of(index, epoch)
        is_open = self.close_epoch is None or epoch < self.close_epoch
        layers = [[index]]
        if is_open and draw.random() < self.mixup:
            layers.append([int(draw.choice(members))])
        for layer in layers:
            if is_open and draw.random() < self.mosaic:
                layer += draw.choice(members, size=3).tolist()
        return layers, (epoch, number), draw

    def _usable(self, index: int, pool: tuple[int, int]) -> tuple[int, Fitted]:
        for step in range(len(self)):
            candidate = (index + step) % len(self)
            if (fitted := self._fitted(candidate, pool)) is not None:
                return candidate, fitted
        raise ValueError(f"{self.reader.annotations.folder}: none of its images can be decoded, {len(self)} in all")

    def _fitted(self, index: int, pool: tuple[int, int]) -> Fitted | None:
        size = self.pipeline.size
        if isinstance(self.cache, RamCache):
            return self.cache.get(index)
        if self.cache is None:
            return self.reader.fitted(index, size)
        return self.cache.get(pool, index, lambda number: self.reader.fitted(number, size))

    def _sources(self, found: list[list[tuple[int, Fitted]]]) -> tuple[list[list[Source]], np.ndarray]:
        """Number the objects of all images; return the labels by that number, too."""
        layers, all_labels, count = [], [], 0
        for layer in found:
            sources = []
            for index, fitted in layer:
                boxes, labels = self.reader.annotations.objects(index)
                numbered = np.empty((len(boxes), 5), np.float32)
                np.multiply(boxes, np.array(fitted.scale * 2, np.float32), out=numbered[:, :4])
                numbered[:, 4] = np.arange(count, count + len(boxes))
                sources.append(Source(fitted.image, numbered))
                all_labels.append(labels)
                count += len(boxes)
            layers.append(sources)
        return layers, np.concatenate(all_labels)


class EvalDataset(Dataset[Sample]):
    """Letterboxed images, asked for by SampleKey, with their objects except crowds. A plain index means ``size``.

    A bad image that is to be skipped becomes plain gray under its own id: its objects count as missed. Another image
    in its place would be evaluated twice.
    """

    def __init__(self, reader: ImageReader, size: tuple[int, int]) -> None:
        self.reader, self.size = reader, size

    def __len__(self) -> int:
        return len(self.reader.annotations)

    def __getitem__(self, key: SampleKey | int) -> Sample:
        index, _, size = key if isinstance(key, tuple) else (key, 0, self.size)
        annotations = self.reader.annotations
        image = self.reader.read(index)
        if image is None:
            image = np.full((*annotations.sizes[index], 3), GRAY, np.uint8)
        boxes, labels = annotations.objects(index)
        image, place = letterbox(image, size)
        target = Target(
            boxes=torch.from_numpy(to_canvas(boxes, place)),
            labels=torch.from_numpy(labels.copy()),
            image_id=int(annotations.image_ids[index]),
            letterbox=place,
        )
        return Sample(image, target)

    def describe(self, key: SampleKey | int) -> str:
        """Name the image."""
        return f"image {self.reader.annotations.image_path(key[0] if isinstance(key, tuple) else key)}"


def collate(samples: list[Sample]) -> Batch:
    """Stack images to (B, 3, H, W) uint8; objects stay a list, since every image has its own number of them."""
    height, width = samples[0].image.shape[:2]
    images = torch.empty((len(samples), 3, height, width), dtype=torch.uint8)
    for planes, sample in zip(images, samples):
        cv2.split(sample.image, list(planes.numpy()))  # much faster than a transposing copy
    return Batch(images=images, targets=[sample.target for sample in samples])
