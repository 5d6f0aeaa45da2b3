"""JPEG files of which pixels are missing or wrong are bad images; harmless oddities are not."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from detector.imaging.read import BadImageError, UnreadKindError, decode_image

END = b"\xff\xd9"
NOISE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


def jpeg(mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


WHOLE, PROGRESSIVE = jpeg(), jpeg(progressive=True)
RESTARTS = jpeg(restart_marker_blocks=2)


def scans(content: bytes) -> list[int]:
    """Return the positions of the scans. The noise of these files has no such bytes by chance: 0xFF is escaped there."""
    return [n for n in range(len(content) - 1) if content[n : n + 2] == b"\xff\xda"]


def header_end(content: bytes) -> int:
    start = scans(content)[0] + 2
    return start + int.from_bytes(content[start : start + 2], "big")


def damaged(content: bytes, at: int) -> bytes:
    return content[:at] + bytes(8) + content[at + 8 :]


DAMAGED = {
    "half, then the end marker": WHOLE[: len(WHOLE) // 2] + END,
    "half": WHOLE[: len(WHOLE) // 2],
    "zeros for the second half": WHOLE[: len(WHOLE) // 2] + bytes(len(WHOLE) // 2),
    "zeros, then the end marker": WHOLE[: len(WHOLE) // 2] + bytes(len(WHOLE) // 2) + END,
    "all but the end marker": WHOLE[:-2],
    "bytes overwritten": damaged(WHOLE, len(WHOLE) // 2),
    "a lost restart interval": RESTARTS[: RESTARTS.index(b"\xff\xd1")] + RESTARTS[RESTARTS.index(b"\xff\xd2") :],
    "data that the image does not need": WHOLE[:-2] + b"garbage" * 4 + END,
    "progressive, half, then the end marker": PROGRESSIVE[: len(PROGRESSIVE) // 2] + END,
    "progressive, the last scan is missing": PROGRESSIVE[: scans(PROGRESSIVE)[-1]] + END,
    "progressive, only the first scan": PROGRESSIVE[: scans(PROGRESSIVE)[1]] + END,
    "CMYK, half, then the end marker": jpeg("CMYK")[:5000] + END,
    "no scan at all": WHOLE[: scans(WHOLE)[0]] + END,
    "an unknown revision before half of the data": (WHOLE[: len(WHOLE) // 2] + END).replace(b"JFIF\0\1", b"JFIF\0\x09"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_missing_or_wrong_pixels_make_a_bad_image(case: str) -> None:
    for factor in (1, 2):
        with pytest.raises(BadImageError, match=r"is not a whole image \(.+; \d+ bytes\)"):
            decode_image(DAMAGED[case], factor)


HARMLESS = {
    "a trailer": WHOLE + b"phones append their own data \xff\xd9",
    "an unknown revision": WHOLE.replace(b"JFIF\0\1", b"JFIF\0\x09"),
    "wrong parameters of the scan": WHOLE[: header_end(WHOLE) - 3] + bytes(3) + WHOLE[header_end(WHOLE) :],
    "a thumbnail": WHOLE[:2] + b"\xff\xe1\x00\x10" + b"\xff\xd8\xff\xda thumb" + END + bytes(2) + WHOLE[2:],
}


@pytest.mark.parametrize("case", HARMLESS)
def test_harmless_oddities_are_accepted(case: str) -> None:
    np.testing.assert_array_equal(decode_image(HARMLESS[case]), decode_image(WHOLE))


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}])
def test_the_pixels_are_those_of_opencv(options: dict, factor: int) -> None:
    content = jpeg(**options)
    flags = {
        1: cv2.IMREAD_COLOR,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), flags[factor])[..., ::-1]
    np.testing.assert_array_equal(decode_image(content, factor), expected)


def test_a_kind_of_jpeg_that_no_decoder_knows_is_named() -> None:
    frame = WHOLE.index(b"\xff\xc0")
    lossless = WHOLE[:frame] + b"\xff\xc3" + WHOLE[frame + 2 :]
    for content, kind in ((WHOLE[: frame + 4] + b"\x0e" + WHOLE[frame + 5 :], "14 bits a sample"), (lossless, "lossless")):
        with pytest.raises(UnreadKindError, match=rf"is a .*{kind}.*, which is not read; convert it"):
            decode_image(content)
