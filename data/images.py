"""Picture files in, RGB arrays out."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", 0xDA, b"\xff\xd9"
JPEG_SIZES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}  # segments with the size
REDUCED = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
EXIF_ORIENTATION = 0x0112
UNREADABLE = (OSError, Image.DecompressionBombError)  # what Pillow does not recognise, and more than 179 million pixels


class BadImageError(ValueError):
    """A picture file that cannot be used; the message names it."""


def read_image(path: Path, size: tuple[int, int], upright: bool = False) -> np.ndarray:
    """Return the picture, (H, W, 3) uint8 RGB, after checking that it has the ``size`` (height, width) on file.

    Greyscale, palettes, CMYK and 16 bits a channel become RGB; transparency is left out. Annotation files describe stored
    pixels, as pycocotools users expect, or with ``upright`` what viewers show, a rotation noted in the EXIF data applied.
    If the size on file is that of the turned picture, then it was annotated upright, and is turned in any case.
    """
    return read_reduced(path, size, 1, upright)


def read_reduced(path: Path, size: tuple[int, int], factor: int, upright: bool = False) -> np.ndarray:
    """Like read_image, but a JPEG may be decoded to 1/``factor`` of its height and width (rounded up): 1, 2, 4 or 8.

    The decoder then does less work, and averages pixels where resizing would skip some. Other formats come whole.
    """
    content = read_file(path)
    is_jpeg = content.startswith(JPEG_START)
    factor = factor if is_jpeg else 1
    flags = REDUCED[factor] | cv2.IMREAD_IGNORE_ORIENTATION
    image = None
    if content and not (is_jpeg and is_cut_jpeg(content)):
        with contextlib.suppress(cv2.error):  # of more than 2^30 pixels, above all
            image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if image is None:
        raise BadImageError(
            f"{path}: is not a whole picture ({len(content)} bytes); restore it, remove it from the annotation file, or "
            "set data.on_bad_image to skip"
        )
    stored = jpeg_size(content) if is_jpeg else image.shape[:2]
    if upright or stored == tuple(size)[::-1] != tuple(size):
        orientation = exif_orientation(content)
        image = turn(image, orientation)
        stored = stored[::-1] if orientation >= 5 else stored
    if stored != tuple(size):
        raise BadImageError(_size_message(path, stored, size))
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_file(path: Path) -> bytes:
    """Return the file's bytes; a BadImageError says why not."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadImageError(f"{path}: cannot be read ({error.strerror}); restore the file") from None


def stored_size(path: Path) -> tuple[int, int]:
    """Return height and width from the header of a picture file, as viewers show it: an EXIF rotation is applied."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            return (width, height) if _orientation(image) >= 5 else (height, width)
    except UNREADABLE as error:
        raise BadImageError(f"{path}: its size cannot be read ({error}); restore or remove the file") from None


def exif_orientation(content: bytes) -> int:
    """Return 1 to 8, how the stored picture is to be turned for viewing (see ``turn``); 1 if the file does not say."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return _orientation(image)
    except UNREADABLE:
        return 1


def _orientation(image: Image.Image) -> int:
    if "exif" not in image.info:  # for other files Pillow would look for it in the whole picture
        return 1
    try:
        found = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # Pillow raises all sorts of errors for damaged EXIF data, which the pixels do not depend on
        return 1
    return found if found in range(1, 9) else 1


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror ``image`` (H, W, 3) as EXIF's orientation 1 to 8 says; from 5 on height and width change places."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def is_cut_jpeg(content: bytes) -> bool:
    """Whether this is a JPEG file without its end, which OpenCV would quietly fill up with grey."""
    if not content.startswith(JPEG_START):
        return False
    # Behind the header: a thumbnail in one of its segments has an end marker of its own.
    header_end = max((end for _, _, end in _segments(content)), default=2)
    return content.find(JPEG_END, header_end) < 0


def jpeg_size(content: bytes) -> tuple[int, int]:
    """Return the stored height and width that a JPEG file's header gives; (0, 0) if there is none."""
    for kind, start, _ in _segments(content):
        if kind in JPEG_SIZES:  # length (2 bytes), bits (1), height (2), width (2)
            return int.from_bytes(content[start + 3 : start + 5], "big"), int.from_bytes(
                content[start + 5 : start + 7], "big"
            )
    return 0, 0


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield kind, start (of the length) and end of a JPEG header's segments, each 0xFF, kind, length, content."""
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF and content[position + 1] != JPEG_SCAN:
        kind = content[position + 1]
        if kind == 0xFF:  # filler
            position += 1
            continue
        end = position + 2 + int.from_bytes(content[position + 2 : position + 4], "big")
        yield kind, position + 2, end
        position = end


def _size_message(path: Path, found: tuple[int, int], expected: tuple[int, int]) -> str:
    remedy = "correct width and height in the annotation file, or restore the picture"
    if found == tuple(expected)[::-1]:
        remedy = "if it was annotated upright, save it again upright: it carries no EXIF rotation that says so"
    return (
        f"{path}: the picture is {found[1]} x {found[0]} (width x height), but the annotation file says "
        f"{expected[1]} x {expected[0]}, so boxes would be misplaced; {remedy}"
    )
