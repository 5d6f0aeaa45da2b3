"""Datasets of labeled images: one augmented image, perhaps mixed with another, or one center crop."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.classification.augmentation import ClassAugmentation, EvalTransform, TrainTransform
from data.classification.mixing import Mix, draw_mix, mix_images
from data.classification.reader import LabeledImageReader, crop_source_side
from data.sampler import SampleKey
from data.user_transforms import seeded_globals
from detector.batch import ClassBatch
from detector.imaging.letterbox import GRAY


class ClassSample(NamedTuple):
    image: Tensor  # (3, H, W) uint8 RGB
    label: int
    other_label: int
    share: float  # of ``label``
    index: int  # type: ignore[assignment]  # hides the method of tuples


class ClassTrainDataset(Dataset[ClassSample]):
    """Augmented images by SampleKey. A sample depends only on the key's index and epoch, the seed and the settings.

    With mixup or cutmix, each image is mixed with another one of the whole set, drawn for this sample. (timm mixes the
    images of a batch, so samples depend on the batch.) A bad image that is skipped is replaced by the next one, with its
    label. A plain index, which Lightning's ``overfit_batches`` uses, means epoch 0.
    """

    def __init__(self, reader: LabeledImageReader, transform: TrainTransform, augment: ClassAugmentation, seed: int) -> None:
        self.reader, self.transform, self.augment, self.seed = reader, transform, augment, seed
        self.smallest_side = crop_source_side(transform.size, augment.scale[0])

    def __len__(self) -> int:
        return len(self.reader.index)

    def __getitem__(self, key: SampleKey | int) -> ClassSample:
        index, epoch = key[:2] if isinstance(key, tuple) else (key, 0)
        rng, mix = self._draw(index, epoch)
        first, original = self._load_usable(index)
        label = other_label = self.reader.index.label(first)
        share = 1.0
        with seeded_globals(int(rng.integers(2**63))):
            image = self.transform(original)
            if mix is not None:
                second, other_image = self._load_usable(mix.partner)
                image, share = mix_images(image, self.transform(other_image), mix)
                other_label = self.reader.index.label(second)
        return ClassSample(image, label, other_label, share, index)

    def describe(self, key: SampleKey | int) -> str:
        """Return the paths of the images of a sample, in words."""
        index, epoch = key[:2] if isinstance(key, tuple) else (key, 0)
        _, mix = self._draw(index, epoch)
        partner = "" if mix is None else f", mixed with {self.reader.index.path(mix.partner)}"
        return f"training image {self.reader.index.path(index)} (index {index}, epoch {epoch}){partner}"

    def _draw(self, index: int, epoch: int) -> tuple[np.random.Generator, Mix | None]:
        rng = np.random.default_rng([self.seed, epoch, index])
        return rng, draw_mix(self.augment, len(self), rng)

    def _load_usable(self, index: int) -> tuple[int, np.ndarray]:
        """Return image ``index``, or the next one that is not bad, and its index."""
        for step in range(len(self)):
            candidate = (index + step) % len(self)
            if (image := self.reader.read(candidate, self.smallest_side)) is not None:
                return candidate, image
        raise ValueError(f"{self.reader.index.root}: none of its images can be decoded, {len(self)} in all")


class ClassEvalDataset(Dataset[ClassSample]):
    """Center crops by SampleKey.

    A bad image that is skipped becomes plain gray and keeps its label, so it will mostly count as wrong. Another image in
    its place would be evaluated twice.
    """

    def __init__(self, reader: LabeledImageReader, transform: EvalTransform) -> None:
        self.reader, self.transform = reader, transform

    def __len__(self) -> int:
        return len(self.reader.index)

    def __getitem__(self, key: SampleKey | int) -> ClassSample:
        index = key[0] if isinstance(key, tuple) else key
        image = self.reader.read(index)
        if image is None:
            image = np.full((*self.transform.size, 3), GRAY, np.uint8)
        label = self.reader.index.label(index)
        return ClassSample(self.transform(image), label, label, 1.0, index)

    def describe(self, key: SampleKey | int) -> str:
        """Return the path of the image, in words."""
        return f"image {self.reader.index.path(key[0] if isinstance(key, tuple) else key)}"


def collate_labeled(samples: list[ClassSample]) -> ClassBatch:
    """Stack samples to a batch."""
    images, labels, other_labels, shares, indices = zip(*samples)
    return ClassBatch(
        images=torch.stack(images),
        labels=torch.tensor(labels),
        other_labels=torch.tensor(other_labels),
        shares=torch.tensor(shares, dtype=torch.float32),
        indices=torch.tensor(indices),
    )
