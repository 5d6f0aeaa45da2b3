"""The image formats that are read, and names for files of other kinds, by their first bytes."""

import io
import re
from typing import NamedTuple

from PIL import Image

from detector.files import LFS_POINTER

# Formats that are decoded to pixels, and that Pillow opens for size and EXIF orientation. The one list for all readers.
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
CONVERT = "convert it, for instance with ImageMagick: magick FILE FILE.png"
EXPORTRAW = "export it from a raw converter as JPEG, PNG or 16-bit TIFF"
GET_AGAIN = "get the image itself"
RESCALE = "save it with 8 or 16 bits a sample, whole numbers from 0 on, in 1, 3 or 4 channels"


class OtherKind(NamedTuple):
    """A kind of file that is not read."""

    name: str  # with its article
    remedy: str


_SIGNATURES = (  # offset, bytes there, and the format
    (0, b"\xff\xd8", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WebP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),  # BigTIFF
    (0, b"MM\0+", "TIFF"),
    (0, b"BM", "BMP"),
    (0, b"GIF8", "GIF"),  # without a suffix in the list: as an input of predict it is a video
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"jP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),  # without a container
    *((0, b"P%d" % number, "PNM") for number in range(1, 7)),
)
RAW = OtherKind("a camera raw file", EXPORTRAW)
_HEIC = OtherKind("a HEIC photo", f"{CONVERT}; phones can be set to save JPEG")
_OTHERS = (
    (0, LFS_POINTER, OtherKind("a Git LFS pointer instead of the image", "run git lfs pull")),
    (0, b"%PDF", OtherKind("a PDF document", "turn its pages into images, for instance: pdftoppm -png FILE page")),
    *((4, b"ftyp" + brand, _HEIC) for brand in (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")),
    (4, b"ftypcrx", RAW),
    (0, b"FUJIFILMCCD-RAW", RAW),
    (0, b"IIRO", RAW),
    (0, b"IIRS", RAW),
    (0, b"IIU\0", RAW),
    (4, b"ftyp", OtherKind("a video", "give single images; python -m detector predict reads videos")),
    (0, b"\x1aE\xdf\xa3", OtherKind("a video", "give single images; python -m detector predict reads videos")),
    (0, b"\xff\x0a", OtherKind("a JPEG XL image", CONVERT)),
    (4, b"JXL \r\n\x87\n", OtherKind("a JPEG XL image", CONVERT)),
    (0, b"8BPS", OtherKind("a Photoshop document", CONVERT)),
    (0, b"v/1\x01", OtherKind("an OpenEXR image with floating-point samples", RESCALE)),
    (0, b"#?RADIANCE", OtherKind("a Radiance HDR image with floating-point samples", RESCALE)),
    (0, b"PF\n", OtherKind("a PFM image with floating-point samples", RESCALE)),
    (0, b"Pf\n", OtherKind("a PFM image with floating-point samples", RESCALE)),
    (0, b"\x93NUMPY", OtherKind("a NumPy array", "save it as PNG, or give the array to a Predictor")),
    (128, b"DICM", OtherKind("a DICOM file", "export it as 16-bit PNG, see data.sixteen_bit_range")),
    (0, b"SIMPLE  =", OtherKind("a FITS file", "export it as 16-bit PNG, see data.sixteen_bit_range")),
    (0, b"PK\x03\x04", OtherKind("a zip archive", "unpack it")),
    (0, b"\x1f\x8b", OtherKind("a gzip archive", "unpack it")),
)


def image_format(content: bytes) -> str | None:
    """Return the format of a file's ``content``, or None if it is not one that is read."""
    for offset, signature, name in _SIGNATURES:
        if content.startswith(signature, offset):
            return name
    return None


def other_kind(content: bytes) -> OtherKind | None:
    """Return the kind of a file whose ``content`` is in no format that is read, or None if it is unknown."""
    for offset, signature, kind in _OTHERS:
        if content.startswith(signature, offset):
            return kind
    start = content[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in start:
        return OtherKind("an SVG drawing", CONVERT)
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return OtherKind("a web page, perhaps an error message", GET_AGAIN)
    if start.startswith((b"<?xml", b"{", b"[")):
        return OtherKind("a text file (XML or JSON)", GET_AGAIN)
    return _known_to_pillow(content)


def _known_to_pillow(content: bytes) -> OtherKind | None:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return OtherKind(f"a {image.format} image", CONVERT)
    except Exception:  # Pillow raises many kinds of errors for files that are no images
        return None


def pnm_maximum(content: bytes) -> int | None:
    """Return the value of white of a PNM file, or None if its samples use their whole 8 or 16 bits."""
    numbers = [match for match in re.findall(rb"#[^\n]*|(\d+)", content[2:512]) if match]  # width, height, maximum
    maximum = int(numbers[2]) if content[1:2] in b"2356" and len(numbers) > 2 else 255
    return None if maximum in (255, 65535) or not 0 < maximum < 65535 else maximum
