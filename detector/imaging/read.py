"""Read image files of any kind as upright RGB arrays."""

import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

# Formats that OpenCV decodes to pixels, and Pillow opens for size and EXIF orientation. The one list for all readers.
IMAGE_SUFFIXES = (
    ".apng", ".avif", ".bmp", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pgm",
    ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
# Images that are not read, so that readers can name them: convert these to PNG or JPEG.
OTHER_IMAGE_SUFFIXES = (
    ".ai", ".arw", ".cr2", ".cr3", ".dcm", ".dib", ".dng", ".eps", ".exr", ".gif", ".hdr", ".heic", ".heif", ".hif", ".ico",
    ".jxl", ".nef", ".nii", ".npy", ".orf", ".pam", ".pcx", ".pdf", ".pfm", ".pic", ".psd", ".raf", ".ras", ".raw", ".rw2",
    ".sr", ".svg", ".tga", ".xcf",
)  # fmt: skip
JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", 0xDA, b"\xff\xd9"
JPEG_SIZES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}  # segments with the size
REDUCED = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
EXIF_ORIENTATION = 0x0112
UNREADABLE = (OSError, Image.DecompressionBombError)  # a format that Pillow does not know, or over 179 million pixels


class BadImageError(ValueError):
    """An image file that cannot be used; the message names it."""


def read_upright(path: Path) -> np.ndarray:
    """Return the image as viewers show it, (H, W, 3) uint8 RGB, see ``decode_image``. Raises BadImageError."""
    content = read_file(path)
    image = decode_image(content)
    if image is None:
        raise BadImageError(f"{path}: is not a whole image ({len(content)} bytes); give the path of an image, or restore it")
    return turn(image, exif_orientation(content))


def decode_image(content: bytes, factor: int = 1) -> np.ndarray | None:
    """Decode a file's ``content`` to the stored image, (H, W, 3) uint8 RGB; return None if it is not a whole image.

    Grayscale, palettes, CMYK and 16 bits per channel become 8-bit RGB; transparency is dropped. A JPEG is decoded at
    1/``factor`` of its height and width (rounded up); ``factor`` is 1, 2, 4 or 8. Other formats ignore it.
    """
    is_jpeg = content.startswith(JPEG_START)
    if not content or (is_jpeg and is_cut_jpeg(content)):
        return None
    flags = REDUCED[factor if is_jpeg else 1] | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # too many pixels for OpenCV
        return None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_file(path: Path) -> bytes:
    """Return the file's bytes. Raises BadImageError with the reason."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadImageError(f"{path}: cannot be read ({error.strerror}); restore the file") from None


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


def is_cut_jpeg(content: bytes) -> bool:
    """Return True for a JPEG file without its end, which OpenCV would fill up with gray without a warning."""
    if not content.startswith(JPEG_START):
        return False
    # Search behind the header: a thumbnail in one of its segments has its own end marker.
    header_end = max((end for _, _, end in _segments(content)), default=2)
    return content.find(JPEG_END, header_end) < 0


def jpeg_size(content: bytes) -> tuple[int, int]:
    """Return the stored height and width from a JPEG file's header; (0, 0) if it has none."""
    for kind, start, _ in _segments(content):
        if kind in JPEG_SIZES:  # length (2 bytes), bits (1), height (2), width (2)
            height, width = content[start + 3 : start + 5], content[start + 5 : start + 7]
            return int.from_bytes(height, "big"), int.from_bytes(width, "big")
    return 0, 0


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the segments of a JPEG header: kind, start (of the length field) and end.

    A segment is 0xFF, its kind (1 byte), its length (2 bytes, itself included) and its content.
    """
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF and content[position + 1] != JPEG_SCAN:
        kind = content[position + 1]
        if kind == 0xFF:  # filler
            position += 1
            continue
        end = position + 2 + int.from_bytes(content[position + 2 : position + 4], "big")
        yield kind, position + 2, end
        position = end
