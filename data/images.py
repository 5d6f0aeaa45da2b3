"""Image files of a data set, checked against the sizes in the annotation file."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data.faults import Faults
from detector.batch import Size
from detector.imaging.read import (
    JPEG_START,
    UNREADABLE,
    BadImageError,
    UnreadKindError,
    decode_image,
    exif_orientation,
    jpeg_size,
    kind_of_file,
    orientation_of,
    read_file,
    turn,
)
from detector.imaging.sixteen_bits import FULL_RANGE, SampleRange


def read_image(
    path: Path, size: Size, upright: bool = False, factor: int = 1, sixteen_bit_range: SampleRange = FULL_RANGE
) -> np.ndarray:
    """Return the image, (H, W, 3) uint8 RGB, after a check that it has the ``size`` (height, width) on file.

    Grayscale, palettes, CMYK and 16 bits a channel become RGB, see ``decode_image``. Annotation files describe stored
    pixels, as pycocotools users expect, or with ``upright`` the image as viewers show it, with its EXIF rotation applied.
    If the size on file is that of the turned image, the annotations are for the turned image, and it is always turned.

    A JPEG is decoded to 1/``factor`` of its height and width, rounded up; ``factor`` is 1, 2, 4 or 8. The decoder then does
    less work, and averages pixels where resizing would skip some. Other formats are not reduced.
    """
    content = read_file(path)
    try:
        image = decode_image(content, factor, sixteen_bit_range)
    except UnreadKindError as error:
        raise UnreadKindError(f"{path}: {error}") from None
    except BadImageError as error:
        remedy = "restore it, remove it from the annotation file, or set data.on_bad_image to skip"
        raise BadImageError(f"{path}: {error}; {remedy}") from None
    stored = jpeg_size(content) if content.startswith(JPEG_START) else image.shape[:2]
    if upright or stored == tuple(size)[::-1] != tuple(size):
        orientation = exif_orientation(content)
        image = turn(image, orientation)
        stored = stored[::-1] if orientation >= 5 else stored
    if stored != tuple(size):
        raise BadImageError(_size_message(path, stored, size))
    return image


@dataclass(frozen=True)
class Header:
    """Height and width of an image file: of the stored pixels, and as viewers show it, with its EXIF rotation applied."""

    stored: Size
    upright: Size


def read_header(path: Path) -> Header:
    """Return the sizes of an image file. Only the header is read. Raises BadImageError if it cannot be read."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            return Header((height, width), (width, height) if orientation_of(image) >= 5 else (height, width))
    except (*UNREADABLE, SyntaxError, ValueError, TypeError) as error:  # Pillow lets some faults of headers through
        if not getattr(error, "strerror", None) and (kind := kind_of_file(path)) is not None:
            raise UnreadKindError(f"{path}: is {kind.name}, which is not read; {kind.remedy}") from None
        raise BadImageError(f"{path}: its size cannot be read ({error}); restore or remove the file") from None


def stored_size(path: Path) -> Size:
    """Return height and width of an image file as viewers show it, EXIF rotation applied. Only the header is read."""
    return read_header(path).upright


def read_headers(paths: Sequence[Path], faults: Faults) -> list[Header]:
    """Return the header of each file; add a fault for those that cannot be read, whose sizes are 1 x 1."""

    def read(path: Path) -> Header | BadImageError:
        try:
            return read_header(path)
        except BadImageError as error:
            return error

    with ThreadPoolExecutor(16) as pool:  # mostly waiting for the disk
        results = list(pool.map(read, paths, chunksize=64))
    if errors := [result for result in results if isinstance(result, BadImageError)]:
        faults.add(str(errors[0]), len(errors))
    return [Header((1, 1), (1, 1)) if isinstance(result, BadImageError) else result for result in results]


def _size_message(path: Path, actual: Size, expected: Size) -> str:
    remedy = "correct width and height in the annotation file, or restore the image"
    if actual == tuple(expected)[::-1]:
        remedy = "it has no EXIF rotation: if it was annotated upright, save it upright"
    return (
        f"{path}: the image is {actual[1]} x {actual[0]} (width x height), but the annotation file says "
        f"{expected[1]} x {expected[0]}, so boxes would be misplaced; {remedy}"
    )
