"""Reads the labeled images of a split. Bad images raise an error, or are skipped."""

import math

import numpy as np

from data.classification.index import ImageIndex
from data.reader import BadImages, SkippedImages
from detector.batch import Size
from detector.imaging.jpeg import jpeg_size
from detector.imaging.read import JPEG_START, BadImageError, UnreadKindError, decode_image, exif_orientation, read_file, turn
from detector.imaging.sixteen_bits import SampleRange


class LabeledImageReader:
    """Reads the images of a split upright, as viewers show them. ``on_bad_image`` is "raise" or "skip"."""

    def __init__(self, index: ImageIndex, on_bad_image: BadImages, sixteen_bit_range: SampleRange) -> None:
        self.index, self.sixteen_bit_range = index, sixteen_bit_range
        self.skipped = SkippedImages(len(index), on_bad_image)

    def read(self, index: int, smallest_side: float = math.inf) -> np.ndarray | None:
        """Return image ``index``, (H, W, 3) uint8 RGB, or None if it is bad and bad images are skipped.

        A large JPEG is decoded at a half, a quarter or an eighth of its size, with no side below ``smallest_side`` pixels.
        """
        path = self.index.path(index)
        try:
            content = read_file(path)
            image = decode_image(content, _reduction(content, smallest_side), self.sixteen_bit_range)
            return turn(image, exif_orientation(content))
        except BadImageError as error:
            self.skipped.add(index, _with_path(error, str(path)))
            return None

    def skipped_paths(self) -> list[str]:
        """Return the paths of the images skipped so far."""
        return [str(self.index.path(index)) for index in self.skipped.indices()]


def crop_source_side(size: Size, smallest_share: float) -> float:
    """Return a side in pixels: an image with no shorter side loses nothing that a crop for training would show.

    ``smallest_share`` is the smallest area of a crop, 0..1 of the image; ``size`` is that of the input.
    """
    return max(size) / math.sqrt(max(smallest_share, 1e-4))


def _reduction(content: bytes, smallest_side: float) -> int:
    if smallest_side == math.inf or not content.startswith(JPEG_START):
        return 1
    shorter = min(jpeg_size(content))
    return next((factor for factor in (8, 4, 2) if shorter >= factor * smallest_side), 1)


def _with_path(error: BadImageError, path: str) -> BadImageError:
    if str(error).startswith(path):
        return error
    remedy = "" if isinstance(error, UnreadKindError) else "; restore or remove it, or set data.on_bad_image to skip"
    return type(error)(f"{path}: {error}{remedy}")
