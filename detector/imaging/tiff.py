"""Kinds of TIFF files that are not read, and damage that decoders only log."""

import io
import zlib
from typing import Any

import simplejpeg
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from detector.imaging.formats import RAW, RESCALE, OtherKind

UNCOMPRESSED, JPEG, DEFLATE = 1, 7, (8, 32946)  # values of the tag for compression
MAX_INFLATED = 1 << 20  # bytes at once: a small file may hold gigabytes


class DamagedError(ValueError):
    """A file with compressed data that are damaged; the message has the reason."""


def tiff_tags(content: bytes) -> dict[int, Any]:
    """Return the tags of the first image of a TIFF file by number; empty if they cannot be read."""
    is_big = content[2:4] in (b"+\0", b"\0+")
    try:
        tags = ImageFileDirectory_v2(content[: 16 if is_big else 8])
        file = io.BytesIO(content)
        file.seek(tags.next)
        tags.load(file)
        return dict(tags)
    except Exception:  # damaged tags can raise anything
        return {}


def unread_tiff(tags: dict[int, Any]) -> OtherKind | None:
    """Return the kind of a TIFF file with ``tags`` (see ``tiff_tags``) if TIFF files of its kind are not read."""
    bits, formats = tags.get(258, (1,)), tags.get(339, (1,))  # of each sample
    photometric, channels = tags.get(262), tags.get(277, 1)
    # 50706: the version of DNG. 32803, 34892: samples of the sensor. The first image of others is a preview (254).
    if 50706 in tags or photometric in (32803, 34892) or tags.get(254, 0) == 1:
        return RAW
    if channels > 4:
        return OtherKind(f"a TIFF image with {channels} channels", f"choose three of its channels; {RESCALE}")
    number = f"{max(bits)} bits a sample"
    if 3 in formats:
        return OtherKind(f"a TIFF image with floating-point samples ({number})", RESCALE)
    if 2 in formats:
        return OtherKind(f"a TIFF image with signed samples ({number})", RESCALE)
    if max(bits) not in (1, 2, 4, 8, 16):
        return OtherKind(f"a TIFF image with {number}", RESCALE)
    return None


def check_compressed_parts(content: bytes, tags: dict[int, Any]) -> None:
    """Raise DamagedError if a part of the compressed image is damaged. Decoders log it, and go on with wrong pixels."""
    compression = tags.get(259, UNCOMPRESSED)
    offsets, counts = tags.get(273) or tags.get(324) or (), tags.get(279) or tags.get(325) or ()
    parts = [content[offset : offset + count] for offset, count in zip(offsets, counts)]
    if compression in DEFLATE:
        for part in parts:
            _check_deflated_part(part)
    elif compression == JPEG:
        for part in parts:
            _check_jpeg_part(tags.get(347, b"")[:-2] + part[2:] if 347 in tags else part)
    elif compression != UNCOMPRESSED:
        _check_with_pillow(content)


def _check_deflated_part(part: bytes) -> None:
    inflater = zlib.decompressobj()
    try:
        while part and not inflater.eof:
            inflater.decompress(part, MAX_INFLATED)  # compares a checksum at the end
            part = inflater.unconsumed_tail
    except zlib.error as error:
        raise DamagedError(str(error)) from None
    if not inflater.eof:
        raise DamagedError("compressed data end too early")


def _check_jpeg_part(part: bytes) -> None:
    try:
        simplejpeg.decode_jpeg(part)
    except ValueError as error:
        try:
            simplejpeg.decode_jpeg(part, strict=False)
        except ValueError:  # not a warning: a kind of JPEG that simplejpeg does not know
            return
        raise DamagedError(str(error)) from None


def _check_with_pillow(content: bytes) -> None:
    try:
        image = Image.open(io.BytesIO(content))
    except Exception:  # a kind of TIFF that Pillow does not know
        return
    try:
        image.load()
    except OSError as error:
        raise DamagedError(str(error)) from None
