"""Read image files of any kind as upright RGB arrays."""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from detector.imaging.formats import (
    CONVERT,
    IMAGE_SUFFIXES,
    OTHER_IMAGE_SUFFIXES,
    OtherKind,
    image_format,
    other_kind,
    pnm_maximum,
)
from detector.imaging.jpeg import JPEG_END, JPEG_START, JpegError, decode_jpeg, jpeg_size, unread_jpeg
from detector.imaging.pillow import rgb_pixels
from detector.imaging.sixteen_bits import FULL_RANGE, SampleRange, to_eight_bits
from detector.imaging.tiff import DamagedError, check_compressed_parts, tiff_tags, unread_tiff

__all__ = [
    "IMAGE_SUFFIXES", "JPEG_START", "OTHER_IMAGE_SUFFIXES", "UNREADABLE", "BadImageError", "UnreadKindError", "decode_image",
    "exif_orientation", "jpeg_size", "kind_of_file", "num_frames_of", "orientation_of", "read_file", "read_upright",
    "sixteen_bit_limits", "turn",
]  # fmt: skip
EXIF_ORIENTATION = 0x0112
ZERO_TAIL = 4096  # so many zeros at the end of compressed data mean that the rest was not written
LARGE_IMAGE, ROWS_AT_ONCE = 2**28, 256  # bytes; rows
PILLOW_FORMATS = ("GIF", "AVIF")
SIXTEEN_BIT_FORMATS = ("PNG", "TIFF", "PNM")
UNREADABLE = (OSError, Image.DecompressionBombError)  # a format that Pillow does not know, or over 179 million pixels
DECODER_ERRORS = (JpegError, DamagedError, OSError, SyntaxError, ValueError, cv2.error, Image.DecompressionBombError)


class BadImageError(ValueError):
    """An image file that cannot be used; the message names it."""


class UnreadKindError(BadImageError):
    """A file of a kind that is not read; the message has the kind and how to convert it."""


def read_upright(path: Path, sixteen_bit_range: SampleRange = FULL_RANGE) -> np.ndarray:
    """Return the image as viewers show it, (H, W, 3) uint8 RGB, see ``decode_image``. Raises BadImageError."""
    content = read_file(path)
    try:
        image = decode_image(content, sixteen_bit_range=sixteen_bit_range)
    except UnreadKindError as error:
        raise UnreadKindError(f"{path}: {error}") from None
    except BadImageError as error:
        raise BadImageError(f"{path}: {error}; give the path of an image, or restore it") from None
    return turn(image, exif_orientation(content))


def decode_image(content: bytes, factor: int = 1, sixteen_bit_range: SampleRange = FULL_RANGE) -> np.ndarray:
    """Decode a file's ``content`` to the stored image, (H, W, 3) uint8 RGB.

    Grayscale, palettes and CMYK become RGB; transparency is dropped. 16 bits a channel become 8, see ``to_eight_bits``. Of
    several pages or frames the first is taken. A JPEG is decoded at 1/``factor`` of its height and width (rounded up);
    ``factor`` is 1, 2, 4 or 8. Other formats ignore it.

    Raises BadImageError, with the reason, for a file that is not a whole image: one of which the decoder says that pixels
    are missing or wrong. Raises UnreadKindError for a file of a kind that is not read. The messages do not name the file.
    """
    name = image_format(content)
    tags = tiff_tags(content) if name == "TIFF" else {}
    if (kind := unread_tiff(tags) if name else other_kind(content)) is not None:
        raise UnreadKindError(f"is {kind.name}, which is not read; {kind.remedy}")
    try:
        if name == "JPEG":
            return decode_jpeg(content, factor)
        if name == "TIFF":
            check_compressed_parts(content, tags)
        _check_tail(content, name)
        if name in PILLOW_FORMATS:
            return _decode_with_pillow(content, sixteen_bit_range)
        return _decode_with_opencv(content, name, sixteen_bit_range)
    except DECODER_ERRORS as error:
        raise _undecodable(content, error) from None


def _check_tail(content: bytes, name: str | None) -> None:
    """Raise DamagedError for a file whose last part was never written, in formats whose decoders would not notice."""
    if name == "JPEG 2000" and JPEG_END not in content:  # compressed data cannot hold these bytes
        raise DamagedError("its end is missing")
    if name in ("WebP", "AVIF") and content.endswith(bytes(ZERO_TAIL)):
        raise DamagedError("it ends with zeros")


def _decode_with_opencv(content: bytes, name: str | None, sixteen_bit_range: SampleRange) -> np.ndarray:
    depth = cv2.IMREAD_ANYDEPTH if name in SIXTEEN_BIT_FORMATS else 0
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION | depth
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    if image is None:
        raise ValueError("" if content else "the file is empty")
    maximum = pnm_maximum(content) if name == "PNM" else None
    if maximum and (image.dtype == np.uint8 or sixteen_bit_range == FULL_RANGE):
        image = to_eight_bits(image.astype(np.uint16), (0, maximum))
    elif image.dtype == np.uint16:
        image = to_eight_bits(image, sixteen_bit_range)
    return _bgr_to_rgb(image)


def _bgr_to_rgb(image: np.ndarray) -> np.ndarray:
    """Return ``image`` (H, W, 3) with its channels reversed. A large one is changed in place, to save memory."""
    if image.size < LARGE_IMAGE:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    for top in range(0, len(image), ROWS_AT_ONCE):
        strip = image[top : top + ROWS_AT_ONCE]
        strip[:] = cv2.cvtColor(strip, cv2.COLOR_BGR2RGB)
    return image


def _decode_with_pillow(content: bytes, sixteen_bit_range: SampleRange) -> np.ndarray:
    """Decode a format that not every version of OpenCV knows."""
    with Image.open(io.BytesIO(content)) as image:
        return rgb_pixels(image, sixteen_bit_range)


def _undecodable(content: bytes, error: Exception) -> BadImageError:
    if content.startswith(JPEG_START) and (kind := unread_jpeg(content)):
        return UnreadKindError(f"is {kind}, which is not read; {CONVERT}")
    reason = "" if isinstance(error, UnidentifiedImageError) else str(getattr(error, "err", None) or error).strip()
    if content and not any(content[:4096]) and not any(content):
        reason = "it holds only zeros"
    return BadImageError(f"is not a whole image ({reason + '; ' if reason else ''}{len(content)} bytes)")


def read_file(path: Path) -> bytes:
    """Return the file's bytes. Raises BadImageError with the reason."""
    try:
        return path.read_bytes()
    except OSError as error:
        if str(path).startswith(("http:", "https:")):
            raise BadImageError(f"{path}: is an address; download the image, and give its path") from None
        raise BadImageError(f"{path}: cannot be read ({error.strerror}); restore the file") from None
    except ValueError as error:  # a null character in the name
        raise BadImageError(f"{str(path)!r}: is no path of a file ({error})") from None


def sixteen_bit_limits(content: bytes) -> SampleRange | None:
    """Return the darkest and the brightest value of an image file with 16 bits a sample; None for other files."""
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        return None
    if image is None or image.dtype != np.uint16:
        return None
    return int(image.min()), int(image.max())


def kind_of_file(path: Path) -> OtherKind | None:
    """Return the kind of a file that is not read, or None if it is of a kind that is read, or unknown."""
    content = read_file(path)
    return unread_tiff(tiff_tags(content)) if image_format(content) else other_kind(content)


def num_frames_of(path: Path) -> int:
    """Return how many pages or frames an image file has, of which only the first is read. Only headers are read.

    A JPEG counts as one image: phones put depth maps and the like behind it.
    """
    try:
        with Image.open(path) as image:
            return 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
    except Exception:  # Pillow raises many kinds of errors for damaged files, which are named when they are decoded
        return 1


def exif_orientation(content: bytes) -> int:
    """Return the EXIF orientation, 1 to 8, of a file's ``content`` (see ``turn``); 1 if it has none."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return orientation_of(image)
    except UNREADABLE:
        return 1


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, of an image that Pillow has opened; 1 if it has none."""
    if "exif" not in image.info:  # without this, Pillow would search some files to their end
        return 1
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # Pillow raises many kinds of errors for damaged EXIF data; the pixels do not depend on them
        return 1
    return orientation if orientation in range(1, 9) else 1


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate and mirror ``image`` (H, W, 3) upright from the EXIF ``orientation``, 1 to 8. From 5 on, H and W swap."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
