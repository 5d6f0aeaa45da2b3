"""Read JPEG files, and refuse those of which the decoder says that pixels are missing or wrong."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", 0xDA, b"\xff\xd9"
JPEG_SIZES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}  # segments with the size
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
REDUCED = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
MAX_PIXELS = 2**30  # OpenCV's limit
NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # 0xFF 0x00 is data, and D0 to D7 are restarts within the data


class JpegError(ValueError):
    """A JPEG file that is not whole; the message has the reason in words."""


class Frame(NamedTuple):
    """The facts in a JPEG file's frame header."""

    kind: int  # of the segment
    bits: int  # of a sample
    height: int
    width: int
    components: bytes  # their ids


def decode_jpeg(content: bytes, factor: int = 1) -> np.ndarray:
    """Decode a JPEG file to (H, W, 3) uint8 RGB, at 1/``factor`` (1, 2, 4, 8) of its height and width, rounded up.

    The pixels are those of OpenCV: both use libjpeg-turbo. But OpenCV fills missing pixels with gray and prints a warning to
    stderr, from C. simplejpeg makes it an error. Raises JpegError.
    """
    frame = frame_header(content)
    if frame is None or not frame.height or not frame.width:
        raise JpegError("it has no size")
    if frame.height * frame.width > MAX_PIXELS:
        raise JpegError(f"its size is {frame.width} x {frame.height}")
    if missing := missing_scans(content, frame):
        raise JpegError(missing)
    try:
        return _decode_strictly(content, frame, factor)
    except ValueError:
        return _decode_in_doubt(content, frame, factor)


def _decode_strictly(content: bytes, frame: Frame, factor: int) -> np.ndarray:
    """Decode; any warning is a ValueError."""
    if len(frame.components) == 4:
        simplejpeg.decode_jpeg(content, "CMYK")  # OpenCV has the better conversion to RGB
        return _decode_with_opencv(content, factor)
    height, width = -(-frame.height // factor), -(-frame.width // factor)
    sizes = {} if factor == 1 else {"min_height": height, "min_width": width, "min_factor": factor}
    return simplejpeg.decode_jpeg(content, "RGB", **sizes)


def _decode_in_doubt(content: bytes, frame: Frame, factor: int) -> np.ndarray:
    """Decode a file that simplejpeg has refused. Raises JpegError if pixels are missing or wrong."""
    plain = _without_odd_headers(content, frame)
    try:  # libjpeg reports only its first warning; another one may be behind a harmless one
        return _decode_strictly(plain, frame, factor)
    except ValueError as error:
        reason = str(error)
    try:
        simplejpeg.decode_jpeg(plain, "CMYK" if len(frame.components) == 4 else "RGB", strict=False)
    except ValueError:  # not a warning: a kind of JPEG that simplejpeg does not know
        return _decode_with_opencv(content, factor)
    raise JpegError(reason)


def _decode_with_opencv(content: bytes, factor: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), REDUCED[factor] | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise JpegError(str(error.err)) from None
    if image is None:
        raise JpegError("it cannot be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def jpeg_size(content: bytes) -> tuple[int, int]:
    """Return the stored height and width from a JPEG file's header; (0, 0) if it has none."""
    frame = frame_header(content)
    return (0, 0) if frame is None else (frame.height, frame.width)


def frame_header(content: bytes) -> Frame | None:
    """Return the frame header of a JPEG file, or None if it has none."""
    for kind, start, end in segments(content):
        if kind in JPEG_SIZES:  # length (2 bytes), bits (1), height (2), width (2), components (1), 3 bytes for each
            height, width = content[start + 3 : start + 5], content[start + 5 : start + 7]
            size = int.from_bytes(height, "big"), int.from_bytes(width, "big")
            return Frame(kind, content[start + 2] if start + 2 < len(content) else 8, *size, content[start + 8 : end : 3])
    return None


def unread_jpeg(content: bytes) -> str | None:
    """Return the kind of a JPEG file if JPEG files of its kind are not read."""
    frame = frame_header(content)
    if frame is None:
        return None
    if frame.kind in LOSSLESS:
        return "a lossless JPEG image"
    return f"a JPEG image with {frame.bits} bits a sample" if frame.bits not in (0, 8) else None


def missing_scans(content: bytes, frame: Frame) -> str | None:
    """Return what a JPEG file lacks whose image is spread over several scans, in words; None if it has all of them.

    A progressive file that ends behind one of its first scans is valid: it shows a blurred image, without a warning.
    """
    scans = _scans(content)
    first = next(scans, None)
    if first is None:
        return "it has no image data"
    if frame.kind not in PROGRESSIVE and len(first[0]) >= len(frame.components):
        return None
    bits_left: dict[tuple[int, int], int] = {}  # bits still to come of each component and coefficient
    for components, begin, end, low in (first, *scans):
        coefficients = range(begin, end + 1) if frame.kind in PROGRESSIVE else range(64)
        bits = low if frame.kind in PROGRESSIVE else 0
        bits_left |= {(component, k): bits for component in components for k in coefficients if k < 64}
    unfinished = [component for component in frame.components if any(bits_left.get((component, k), 1) for k in range(64))]
    return "the last scans of its image data are missing" if unfinished else None


def _scans(content: bytes) -> Iterator[tuple[bytes, int, int, int]]:
    """Yield component ids, first and last coefficient, and bits left out, of each scan of a JPEG file."""
    position = next((start - 2 for kind, start, _ in segments(content, to_scan=True) if kind == JPEG_SCAN), None)
    while position is not None:
        kind, length = content[position + 1], int.from_bytes(content[position + 2 : position + 4], "big")
        body = content[position + 4 : position + 2 + length]
        if kind == JPEG_SCAN and body and len(body) >= 4 + 2 * body[0]:
            begin, end, approximation = body[1 + 2 * body[0] : 4 + 2 * body[0]]
            yield body[1 : 1 + 2 * body[0] : 2], begin, end, approximation & 15
        match = NEXT_MARKER.search(content, position + 2 + length)
        position = None if match is None or match[0] == JPEG_END else match.start()


def _without_odd_headers(content: bytes, frame: Frame) -> bytes:
    """Return the file without oddities in its headers that do not matter for the pixels, but give warnings.

    They are an unknown JFIF revision, a damaged color profile, and wrong parameters of a baseline scan, as some cameras
    write them.
    """
    parts = [JPEG_START]
    position = 2
    for kind, start, end in segments(content, to_scan=True):
        segment = bytearray(content[start - 2 : end])
        position = end
        if kind == 0xE0 and segment[4:9] == b"JFIF\0":
            segment[9:11] = b"\x01\x02"
        if kind == JPEG_SCAN and frame.kind in (0xC0, 0xC1):
            segment[-3:] = b"\x00\x3f\x00"
        if kind != 0xE2:
            parts.append(bytes(segment))
    return b"".join([*parts, content[position:]])


def segments(content: bytes, to_scan: bool = False) -> Iterator[tuple[int, int, int]]:
    """Yield the segments of a JPEG header: kind, start (of the length field) and end.

    A segment is 0xFF, its kind (1 byte), its length (2 bytes, itself included) and its content. With ``to_scan`` the header
    of the first scan comes last.
    """
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        kind = content[position + 1]
        if kind == 0xFF:  # filler
            position += 1
            continue
        if kind == JPEG_SCAN and not to_scan:
            return
        end = position + 2 + int.from_bytes(content[position + 2 : position + 4], "big")
        yield kind, position + 2, end
        if kind == JPEG_SCAN:
            return
        position = end
