"""Images with 16 bits a sample become 8 bits, by a range of values."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.imaging.read import read_upright
from detector.imaging.sixteen_bits import FULL_RANGE, as_sample_range, to_eight_bits

VALUES = np.array([[0, 255, 256, 4095, 4096, 65535]], np.uint16)


def test_values_by_hand() -> None:
    assert to_eight_bits(VALUES).tolist() == [[0, 0, 1, 15, 16, 255]]  # the upper 8 bits
    assert to_eight_bits(VALUES, (0, 4095)).tolist() == [[0, 15, 16, 255, 255, 255]]  # of 12
    assert to_eight_bits(VALUES, (256, 4351)).tolist() == [[0, 0, 0, 239, 240, 255]]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
@pytest.mark.parametrize("sample_range", [FULL_RANGE, (0, 4095), (1000, 3000)])
def test_files_are_read_by_the_range(tmp_path: Path, suffix: str, sample_range: tuple[int, int]) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (5, 7), np.uint16)
    cv2.imwrite(str(tmp_path / f"a{suffix}"), values)
    expected = to_eight_bits(values, sample_range)[..., None].repeat(3, axis=2)
    np.testing.assert_array_equal(read_upright(tmp_path / f"a{suffix}", sample_range), expected)


def test_eight_bits_stay(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), values[..., ::-1])
    np.testing.assert_array_equal(read_upright(tmp_path / "a.png", (0, 4095)), values)


@pytest.mark.parametrize("value", [4095, (0,), (5, 5), (-1, 4095), (0, 65536), (0, 4095.0), "0 4095", (False, 4095)])
def test_other_ranges_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^sixteen_bit_range is .*; expected the darkest and the brightest value"):
        as_sample_range(value)
    assert as_sample_range([0, 4095]) == (0, 4095)
