"""Samples: one augmented picture for training, one letterboxed picture for evaluation."""

import random
import warnings
from typing import Any, NamedTuple

import albumentations as A
import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from data.annotations import Annotations
from data.images import BadImageError, read_image
from data.mosaic import Source
from data.transforms import check_output
from detector.batch import Batch, Target
from detector.letterbox import GREY, fit_letterbox, letterbox, to_canvas


class Sample(NamedTuple):
    image: np.ndarray  # (H, W, 3) uint8 RGB
    target: Target


class Pictures:
    """The pictures of an annotation file, and what to do about those that cannot be decoded.

    ``skipped`` marks them, (I,) uint8; it is in shared memory, so that what workers find is known everywhere.
    """

    def __init__(self, annotations: Annotations, on_bad_image: str) -> None:
        self.annotations, self.on_bad_image = annotations, on_bad_image
        self.skipped = torch.zeros(len(annotations), dtype=torch.uint8).share_memory_()

    def read(self, index: int) -> np.ndarray | None:
        """Return the picture, (H, W, 3) uint8 RGB, or None if it is bad and bad ones are skipped."""
        path = self.annotations.image_path(index)
        try:
            return read_image(path, tuple(self.annotations.sizes[index].tolist()))
        except BadImageError as error:
            if self.on_bad_image == "raise":
                raise
            if not self.skipped[index]:
                self.skipped[index] = 1
                warnings.warn(f"skipped: {error}", stacklevel=2)
            return None

    def skipped_paths(self) -> list[str]:
        return [str(self.annotations.image_path(index)) for index in self.skipped.nonzero().flatten().tolist()]


class TrainDataset(Dataset[Sample]):
    """Augmented pictures, asked for by (index, epoch). A sample depends on seed, epoch and index alone.

    Pictures are joined to mosaics in epochs before ``close_epoch`` (None: in all). A bad picture that is to be skipped is
    replaced by the next one in the file. A plain index, as Lightning's ``overfit_batches`` asks for, means epoch 0.
    """

    def __init__(
        self,
        pictures: Pictures,
        pipeline: A.Compose,
        size: tuple[int, int],
        seed: int,
        mosaic: float,
        close_epoch: int | None,
    ) -> None:
        self.pictures, self.pipeline, self.size, self.seed = pictures, pipeline, size, seed
        self.mosaic, self.close_epoch = mosaic, close_epoch

    def __len__(self) -> int:
        return len(self.pictures.annotations)

    def __getitem__(self, key: tuple[int, int] | int) -> Sample:
        index, epoch = key if isinstance(key, tuple) else (key, 0)
        draw = np.random.default_rng([self.seed, epoch, index])
        chosen = [index]
        is_open = self.close_epoch is None or epoch < self.close_epoch
        if draw.random() < self.mosaic and is_open:
            chosen += draw.integers(len(self), size=3).tolist()
        found = [self._usable(number) for number in chosen]
        sources, labels = self._sources(found)
        # One generator for all transforms: Compose.set_random_seed would give each the same draws as its neighbour.
        self.pipeline.set_random_state(draw, random.Random(int(draw.integers(2**63))))
        result = self.pipeline(image=sources[0].image, bboxes=sources[0].boxes, partners=sources[1:])
        check_output(result["image"], self.size)
        return Sample(result["image"], self._target(result["bboxes"], labels, found[0][0]))

    def _usable(self, index: int) -> tuple[int, np.ndarray]:
        for step in range(len(self)):
            candidate = (index + step) % len(self)
            if (image := self.pictures.read(candidate)) is not None:
                return candidate, image
        raise ValueError(f"{self.pictures.annotations.folder}: none of its {len(self)} pictures can be decoded")

    def _sources(self, found: list[tuple[int, np.ndarray]]) -> tuple[list[Source], np.ndarray]:
        """Scale the pictures to fit the input size and number their objects; return the labels by that number, too."""
        sources, all_labels, count = [], [], 0
        for index, image in found:
            boxes, labels = self.pictures.annotations.objects(index)
            height, width = image.shape[:2]
            place = fit_letterbox((height, width), self.size)
            if (place.height, place.width) != (height, width):
                image = cv2.resize(image, (place.width, place.height), interpolation=cv2.INTER_LINEAR)
            boxes = boxes * np.array([place.width / width, place.height / height] * 2, np.float32)
            numbers = np.arange(count, count + len(boxes), dtype=np.float32)
            sources.append(Source(image, np.column_stack([boxes, numbers])))
            all_labels.append(labels)
            count += len(boxes)
        return sources, np.concatenate(all_labels)

    def _target(self, bboxes: Any, labels: np.ndarray, index: int) -> Target:
        # Without boxes albumentations returns other shapes and types than with.
        found = np.asarray(bboxes, np.float32).reshape(-1, 5) if len(bboxes) else np.zeros((0, 5), np.float32)
        return Target(
            boxes=torch.from_numpy(found[:, :4].copy()),
            labels=torch.from_numpy(labels[np.rint(found[:, 4]).astype(np.int64)]),
            image_id=int(self.pictures.annotations.image_ids[index]),
        )


class EvalDataset(Dataset[Sample]):
    """Letterboxed pictures in the file's order, with their objects except crowds.

    A bad picture that is to be skipped becomes plain grey under its own id: its objects count as missed. Another picture
    in its place would be evaluated twice.
    """

    def __init__(self, pictures: Pictures, size: tuple[int, int]) -> None:
        self.pictures, self.size = pictures, size

    def __len__(self) -> int:
        return len(self.pictures.annotations)

    def __getitem__(self, index: int) -> Sample:
        annotations = self.pictures.annotations
        image = self.pictures.read(index)
        if image is None:
            image = np.full((*annotations.sizes[index], 3), GREY, np.uint8)
        boxes, labels = annotations.objects(index)
        image, place = letterbox(image, self.size)
        target = Target(
            boxes=torch.from_numpy(to_canvas(boxes, place)),
            labels=torch.from_numpy(labels.copy()),
            image_id=int(annotations.image_ids[index]),
            letterbox=place,
        )
        return Sample(image, target)


def collate(samples: list[Sample]) -> Batch:
    """Stack pictures to (B, 3, H, W) uint8; objects stay a list, since every picture has its own number of them."""
    height, width = samples[0].image.shape[:2]
    images = torch.empty((len(samples), 3, height, width), dtype=torch.uint8)
    for planes, sample in zip(images, samples):
        cv2.split(sample.image, list(planes.numpy()))  # much faster than a transposing copy
    return Batch(images=images, targets=[sample.target for sample in samples])


def init_worker(worker_id: int) -> None:
    """One thread per worker process: more would compete with the other workers."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
