"""Picture files in, RGB arrays out."""

from pathlib import Path

import cv2
import numpy as np

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", 0xDA, b"\xff\xd9"


class BadImageError(ValueError):
    """A picture file that cannot be used; the message names it."""


def read_image(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Return the picture as stored, (H, W, 3) uint8 RGB, after checking that it has the ``size`` (height, width) on file.

    A rotation noted in the EXIF data is not applied: annotation files describe stored pixels, as pycocotools users
    expect. If a tool annotated the turned picture, then the sizes differ, and the message says so.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadImageError(f"{path}: cannot be read ({error.strerror}); restore the file") from None
    image = None
    if content and not is_cut_jpeg(content):
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise BadImageError(
            f"{path}: is not a whole picture ({len(content)} bytes); restore it, remove it from the annotation file, or "
            "set data.on_bad_image to skip"
        )
    if image.shape[:2] != tuple(size):
        raise BadImageError(_size_message(path, image.shape[:2], size))
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def is_cut_jpeg(content: bytes) -> bool:
    """Whether this is a JPEG file without its end, which OpenCV would quietly fill up with grey."""
    if not content.startswith(JPEG_START):
        return False
    position = 2
    # Walk over the header's segments, each 0xFF, kind, length; a thumbnail in one of them has an end marker of its own.
    while position + 4 <= len(content) and content[position] == 0xFF and content[position + 1] != JPEG_SCAN:
        filler = content[position + 1] == 0xFF
        position += 1 if filler else 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return content.find(JPEG_END, position) < 0


def _size_message(path: Path, found: tuple[int, int], expected: tuple[int, int]) -> str:
    remedy = "correct width and height in the annotation file, or restore the picture"
    if found == tuple(expected)[::-1]:
        remedy = "if it carries an EXIF rotation and was annotated upright, save it again upright"
    return (
        f"{path}: the picture is {found[1]} x {found[0]} (width x height), but the annotation file says "
        f"{expected[1]} x {expected[0]}, so boxes would be misplaced; {remedy}"
    )
