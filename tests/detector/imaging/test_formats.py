"""Files of other kinds are named by their content, with a remedy; damaged files of each format are bad images."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from detector.imaging.read import BadImageError, UnreadKindError, decode_image

SMOOTH = np.add.outer(np.arange(60), np.arange(80)).astype(np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def encode(name: str, image: Image.Image | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(NOISE) if image is None else image).save(file, name, **options)
    return file.getvalue()


def tiff(samples: np.ndarray, sample_format: int, extra: dict[int, int] | None = None) -> bytes:
    """Return an uncompressed TIFF file of ``samples`` (H, W, C), with all tags that it must have."""
    height, width, channels = samples.shape
    tags = {256: width, 257: height, 258: 8 * samples.itemsize, 259: 1, 262: 1, 277: channels, 278: height}
    tags |= {339: sample_format, 279: samples.nbytes, 273: 0, **(extra or {})}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + samples.tobytes()


def ramp(kind: str, channels: int = 1) -> np.ndarray:
    return np.arange(8 * 9 * channels).reshape(8, 9, channels).astype(kind)


OTHER_KINDS = {
    "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "run git lfs pull"),
    "web page": (b"\n<!DOCTYPE html><html><body>404</body></html>", "get the image itself"),
    "SVG": (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "convert it"),
    "JSON": (b'{"error": "not found"}', "get the image itself"),
    "PDF": (b"%PDF-1.7\n", "pdftoppm"),
    "HEIC": (b"\0\0\0\x24ftypheic\0\0\0\0mif1heic", "convert it"),
    "TGA": (encode("TGA"), "convert it"),
    "ICO": (encode("ICO", Image.new("RGB", (32, 32))), "convert it"),
    "camera raw": (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "export it from a raw converter"),
    "TIFF image with floating-point samples (32 bits a sample)": (tiff(ramp("f4"), 3), "8 or 16 bits"),
    "TIFF image with floating-point samples (64 bits a sample)": (tiff(ramp("f8"), 3), "8 or 16 bits"),
    "TIFF image with 32 bits": (tiff(ramp("u4"), 1), "8 or 16 bits"),
    "TIFF image with signed samples": (tiff(ramp("i2"), 2), "whole numbers from 0 on"),
    "TIFF image with 5 channels": (tiff(ramp("u1", 5), 1), "choose three"),
    "raw file": (tiff(ramp("u2"), 1, {50706: 1}), "raw converter"),  # DNG
    "camera raw file": (tiff(ramp("u1"), 1, {254: 1}), "raw converter"),  # the first image is a preview
    "PFM": (b"Pf\n9 8\n-1.0\n" + ramp("f4").tobytes(), "8 or 16 bits"),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_another_kind_is_named_with_a_remedy(kind: str) -> None:
    content, remedy = OTHER_KINDS[kind]
    with pytest.raises(UnreadKindError) as refusal:
        decode_image(content)
    assert kind in str(refusal.value)
    assert remedy in str(refusal.value)


FORMATS = {
    "PNG": {}, "WEBP": {"lossless": True}, "BMP": {}, "PPM": {}, "GIF": {}, "AVIF": {}, "JPEG2000": {}, "TIFF": {},
    "TIFF, LZW": {"compression": "tiff_lzw"}, "TIFF, deflate": {"compression": "tiff_adobe_deflate"},
    "TIFF, JPEG": {"compression": "jpeg"},
}  # fmt: skip


@pytest.mark.parametrize("case", FORMATS)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF|Truncated")
def test_a_cut_file_is_bad(case: str) -> None:
    whole = encode(case.partition(",")[0], **FORMATS[case])
    assert decode_image(whole).shape == (90, 120, 3)
    for end in (len(whole) // 2, len(whole) - 40):
        with pytest.raises(BadImageError, match="is not a whole image"):
            decode_image(whole[:end])


@pytest.mark.parametrize("case", ["PNG", "TIFF, LZW", "TIFF, deflate", "TIFF, JPEG", "GIF"])
def test_damage_in_compressed_data_is_found(case: str) -> None:
    content = bytearray(encode(case.partition(",")[0], **FORMATS[case]))
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(byte ^ 255 for byte in content[middle : middle + 8])
    with pytest.raises(BadImageError, match="is not a whole image"):
        decode_image(bytes(content))


@pytest.mark.parametrize("case", ["WEBP", "AVIF", "JPEG2000", "PNG", "GIF"])
def test_a_tail_of_zeros_is_found(case: str) -> None:
    """As after a machine that stopped while it wrote: the file has its size, but not its content."""
    content = encode(case, Image.fromarray(np.tile(NOISE, (2, 1, 1))), **FORMATS[case])
    with pytest.raises(BadImageError, match="is not a whole image"):
        decode_image(content[: len(content) // 3] + bytes(len(content) - len(content) // 3))


@pytest.mark.parametrize(("maximum", "kind"), [(100, "u1"), (255, "u1"), (1023, ">u2"), (4095, ">u2"), (65535, ">u2")])
def test_white_of_a_pgm_is_its_maximum(maximum: int, kind: str) -> None:
    values = np.linspace(0, maximum, 48).reshape(4, 12).astype(kind)
    pixels = decode_image(b"P5\n# a comment 7\n12 4\n%d\n" % maximum + values.tobytes())
    expected = values.astype(int) * 256 // (maximum + 1)
    np.testing.assert_array_equal(pixels, expected[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_several_frames_or_pages_the_first_is_taken(name: str) -> None:
    frames = [Image.new("RGB", (30, 20), (value,) * 3) for value in (40, 80, 120)]
    content = encode(name, frames[0], save_all=True, append_images=frames[1:])
    assert np.abs(decode_image(content).astype(int) - 40).max() <= 2
