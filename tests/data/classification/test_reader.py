"""Labeled images of all kinds: what the network sees."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data.classification import reader as reader_module
from data.classification.index import IndexBuilder
from data.classification.reader import LabeledImageReader, crop_source_side
from detector.imaging.read import BadImageError
from detector.imaging.sixteen_bits import FULL_RANGE, SampleRange


def reader_of(folder: Path, sixteen_bit_range: SampleRange = FULL_RANGE) -> LabeledImageReader:
    builder = IndexBuilder(folder.parent)
    builder.add(folder.name.encode(), 0, sorted(path.name.encode() for path in folder.iterdir()))
    return LabeledImageReader(builder.build(), "raise", sixteen_bit_range)


def test_images_of_all_kinds_become_upright_rgb(tmp_path: Path) -> None:
    gradient = np.tile(np.arange(40, dtype=np.uint8)[:, None] * 6, (1, 60))  # dark at the top
    Image.fromarray(gradient).save(tmp_path / "1_gray.png")
    cv2.imwrite(str(tmp_path / "2_sixteen.png"), gradient.astype(np.uint16) * 16)  # 12 bits
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(np.rot90(gradient)).convert("RGB").save(tmp_path / "3_turned.jpg", exif=exif, quality=100)
    Image.fromarray(gradient).convert("CMYK").save(tmp_path / "4_cmyk.jpg", quality=100)
    palette = Image.fromarray(gradient).convert("P")
    palette.save(tmp_path / "5_palette.png", transparency=0)
    Image.fromarray(gradient).convert("1", dither=Image.Dither.NONE).save(tmp_path / "6_bits.png")
    reader = reader_of(tmp_path, (0, 4095))
    for index in range(6):
        image = reader.read(index)
        assert (image.shape, image.dtype) == ((40, 60, 3), np.uint8), reader.index.name(index)
        expected = np.where(gradient > 127, 255, 0) if index == 5 else gradient
        assert np.abs(image.astype(int) - expected[..., None]).max() <= 4, reader.index.name(index)
    assert reader_of(tmp_path).read(1).max() == 39 * 6 * 16 >> 8


@pytest.mark.parametrize(("side", "factor"), [(63, 1), (64, 1), (127, 1), (128, 2), (200, 2), (256, 4), (512, 8), (2048, 8)])
def test_a_large_jpeg_is_decoded_smaller_but_not_below_the_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, factor: int
) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((side, side + 100, 3), np.uint8))
    factors, decode = [], reader_module.decode_image
    monkeypatch.setattr(reader_module, "decode_image", lambda *args: factors.append(args[1]) or decode(*args))
    reader = reader_of(tmp_path)
    assert min(reader.read(0, 64).shape[:2]) >= min(side, 64)
    assert reader.read(0).shape[0] == side
    assert factors == [factor, 1]


def test_the_smallest_crop_has_no_fewer_pixels_than_the_input() -> None:
    assert crop_source_side((224, 224), 0.25) == 448
    assert crop_source_side((32, 64), 0.01) == 640


def test_a_bad_image_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"hello")
    with pytest.raises(BadImageError, match=r"a\.jpg: is not a whole image .*; restore or remove it, or set data.on_bad_"):
        reader_of(tmp_path).read(0)
