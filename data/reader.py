"""Reads the images of a split, whole or scaled to fit the input. Bad images raise an error, or are skipped."""

import warnings
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch

from data.annotations import Annotations
from data.images import read_image
from detector.batch import Size
from detector.imaging.letterbox import fit_letterbox
from detector.imaging.read import BadImageError

BadImages = Literal["raise", "skip"]


@dataclass(frozen=True)
class ScaledImage:
    """An image scaled to fit an input."""

    image: np.ndarray  # (h, w, 3) uint8 RGB
    scale: tuple[float, float]  # x, y: factors from the original image, for its boxes


class SkippedImages:
    """The images of a split that could not be decoded. ``on_bad_image`` is "raise" or "skip".

    ``flags`` (I,) uint8 is 1 for skipped images. It is in shared memory, so the main process sees those of its workers.
    """

    def __init__(self, num_images: int, on_bad_image: BadImages) -> None:
        self.on_bad_image = on_bad_image
        self.flags = torch.zeros(num_images, dtype=torch.uint8).share_memory_()

    def add(self, index: int, error: BadImageError) -> None:
        """Raise ``error``, or note that image ``index`` is skipped, with a warning for the first time."""
        if self.on_bad_image == "raise":
            raise error
        if not self.flags[index]:
            self.flags[index] = 1
            warnings.warn(f"skipped: {error}", stacklevel=2)

    def indices(self) -> list[int]:
        """Return the indices of the images skipped so far."""
        return self.flags.nonzero().flatten().tolist()


class ImageReader:
    """Reads the images of a split. ``on_bad_image`` is "raise" or "skip", for images that cannot be decoded."""

    def __init__(self, annotations: Annotations, on_bad_image: BadImages) -> None:
        self.annotations = annotations
        self.skipped = SkippedImages(len(annotations), on_bad_image)

    def read(self, index: int) -> np.ndarray | None:
        """Return the image, (H, W, 3) uint8 RGB, or None if it is bad and bad images are skipped."""
        return self._read_or_skip(index, factor=1)

    def read_scaled(self, index: int, size: Size) -> ScaledImage | None:
        """Return the image scaled to fit ``size`` (height, width), or None like ``read``.

        A JPEG at least twice as large as needed is decoded at a half, a quarter or an eighth of its size. The pixels depend
        only on the file and ``size``.
        """
        original = self.annotations.size(index)
        placement = fit_letterbox(original, size)
        factor = next((f for f in (8, 4, 2) if max(original) >= f * max(placement.height, placement.width)), 1)
        image = self._read_or_skip(index, factor)
        if image is None:
            return None
        covered = original
        if image.shape[:2] != original:
            # The decoder rounds an odd number of pixels up: its last pixel lies half outside of the image.
            covered = image.shape[0] * factor, image.shape[1] * factor
        if image.shape[:2] != (placement.height, placement.width):
            image = cv2.resize(image, (placement.width, placement.height), interpolation=cv2.INTER_LINEAR)
        return ScaledImage(image, (placement.width / covered[1], placement.height / covered[0]))

    def skipped_paths(self) -> list[str]:
        """Return the paths of the images skipped so far."""
        return [str(self.annotations.image_path(index)) for index in self.skipped.indices()]

    def _read_or_skip(self, index: int, factor: int) -> np.ndarray | None:
        path, size = self.annotations.image_path(index), self.annotations.size(index)
        try:
            return read_image(path, size, self.annotations.upright, factor, self.annotations.sixteen_bit_range)
        except BadImageError as error:
            self.skipped.add(index, error)
            return None
