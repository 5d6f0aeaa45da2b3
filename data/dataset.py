"""Datasets: one augmented image for training, one letterboxed image for evaluation."""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from data.cache import PoolCache, RamCache
from data.mosaic import MosaicTile
from data.reader import ImageReader, ScaledImage
from data.sampler import EpochOrder, SampleKey
from data.transforms import TrainPipeline
from detector.batch import Batch, Size, Target
from detector.imaging.letterbox import GRAY, letterbox, to_canvas

NEVER = 2**62  # an epoch that no training reaches


class Sample(NamedTuple):
    image: np.ndarray  # (H, W, 3) uint8 RGB
    target: Target


class TrainDataset(Dataset[Sample]):
    """Augmented images by SampleKey. A sample depends only on the key, the seed and the settings.

    ``mosaic`` and ``mixup`` are probabilities; both mix an image with others of its pool, in epochs before ``close_epoch``
    (None: in all epochs), which ``close_from`` may bring forward. A bad image that is skipped is replaced by the next one
    in the file. A plain index, which Lightning's ``overfit_batches`` uses, means epoch 0.
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
        self.mosaic, self.mixup = mosaic, mixup
        # In shared memory: the worker processes see it when a training closes earlier.
        self._close_epoch = torch.tensor([NEVER if close_epoch is None else close_epoch]).share_memory_()
        self.cache = cache

    @property
    def close_epoch(self) -> int | None:
        epoch = int(self._close_epoch)
        return None if epoch == NEVER else epoch

    def close_from(self, epoch: int) -> None:
        """Mix no images from ``epoch`` on, also in worker processes; call it before samples of that epoch are made."""
        self._close_epoch.clamp_(max=epoch)

    def __len__(self) -> int:
        return self.order.length

    def __getitem__(self, key: SampleKey | int) -> Sample:
        index, epoch, size = key if isinstance(key, tuple) else (key, 0, self.pipeline.size)
        layers, pool, rng = self._choose_images(index, epoch)
        images = [[self._load_usable(chosen, pool) for chosen in layer] for layer in layers]
        tiles, labels = self._tiles(images)
        image, objects = self.pipeline(tiles, rng, size)
        first_index, _ = images[0][0]
        target = Target(
            boxes=torch.from_numpy(objects[:, :4].copy()),
            labels=torch.from_numpy(labels[np.rint(objects[:, 4]).astype(np.int64)]),
            image_id=self.reader.annotations.image_id(first_index),
        )
        return Sample(image, target)

    def describe(self, key: SampleKey | int) -> str:
        """Return the paths of the images of a sample, in words."""
        index, epoch = key[:2] if isinstance(key, tuple) else (key, 0)
        layers, _, _ = self._choose_images(index, epoch)
        paths = [str(self.reader.annotations.image_path(chosen)) for layer in layers for chosen in layer]
        partners = f", mixed with {', '.join(paths[1:])}" if paths[1:] else ""
        return f"training image {paths[0]} (index {index}, epoch {epoch}){partners}"

    def _choose_images(self, index: int, epoch: int) -> tuple[list[list[int]], tuple[int, int], np.random.Generator]:
        """Return the images of each layer, the pool (epoch and number), and the generator for the rest of the sample.

        ``index`` is that of a sample, as are those of its pool; see ``EpochOrder``.
        """
        rng = np.random.default_rng([self.order.seed, epoch, index])
        number, members = self.order.pool_of(index, epoch)
        mixing = epoch < int(self._close_epoch)
        layers = [[index]]
        if mixing and rng.random() < self.mixup:
            layers.append([int(rng.choice(members))])
        for layer in layers:
            if mixing and rng.random() < self.mosaic:
                layer += rng.choice(members, size=3).tolist()
        images = self.order.images(epoch)
        return [images[layer].tolist() for layer in layers], (epoch, number), rng

    def _load_usable(self, index: int, pool: tuple[int, int]) -> tuple[int, ScaledImage]:
        """Return image ``index``, or the next one that is not bad, and its index."""
        num_images = len(self.reader.annotations)
        for step in range(num_images):
            candidate = (index + step) % num_images
            if (scaled := self._load(candidate, pool)) is not None:
                return candidate, scaled
        raise ValueError(f"{self.reader.annotations.folder}: none of its images can be decoded, {num_images} in all")

    def _load(self, index: int, pool: tuple[int, int]) -> ScaledImage | None:
        size = self.pipeline.size
        if isinstance(self.cache, RamCache):
            return self.cache.get(index)
        if self.cache is None:
            return self.reader.read_scaled(index, size)
        return self.cache.get(pool, index, lambda missing: self.reader.read_scaled(missing, size))

    def _tiles(self, layers: list[list[tuple[int, ScaledImage]]]) -> tuple[list[list[MosaicTile]], np.ndarray]:
        """Return the tiles of each layer, with objects numbered over all images, and the labels by these numbers."""
        tile_layers, all_labels, count = [], [], 0
        for layer in layers:
            tiles = []
            for index, scaled in layer:
                boxes, labels = self.reader.annotations.objects(index)
                objects = np.empty((len(boxes), 5), np.float32)
                np.multiply(boxes, np.array(scaled.scale * 2, np.float32), out=objects[:, :4])
                objects[:, 4] = np.arange(count, count + len(boxes))
                tiles.append(MosaicTile(scaled.image, objects))
                all_labels.append(labels)
                count += len(boxes)
            tile_layers.append(tiles)
        return tile_layers, np.concatenate(all_labels)


class EvalDataset(Dataset[Sample]):
    """Letterboxed images by SampleKey, with their objects except crowds. A plain index means ``size``.

    A bad image that is skipped becomes plain gray and keeps its id, so its objects count as missed. Another image in its
    place would be evaluated twice.
    """

    def __init__(self, reader: ImageReader, size: Size) -> None:
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
        image, placement = letterbox(image, size)
        target = Target(
            boxes=torch.from_numpy(to_canvas(boxes, placement)),
            labels=torch.from_numpy(labels.copy()),
            image_id=annotations.image_id(index),
            letterbox=placement,
        )
        return Sample(image, target)

    def describe(self, key: SampleKey | int) -> str:
        """Return the path of the image, in words."""
        return f"image {self.reader.annotations.image_path(key[0] if isinstance(key, tuple) else key)}"


def collate(samples: list[Sample]) -> Batch:
    """Stack images to (B, 3, H, W) uint8. Targets stay a list: each image has its own number of objects."""
    height, width = samples[0].image.shape[:2]
    images = torch.empty((len(samples), 3, height, width), dtype=torch.uint8)
    for planes, sample in zip(images, samples):
        assert sample.image.shape == (height, width, 3), "the images of a batch have one size"
        cv2.split(sample.image, list(planes.numpy()))  # much faster than a transposing copy
    return Batch(images=images, targets=[sample.target for sample in samples])
