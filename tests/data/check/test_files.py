"""Findings that need the image files."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data.check.files import image_kind, suggested_range


def test_files_are_decoded(check: Callable, tiny_coco: Path) -> None:
    """Unreadable, of another size, of every kind, and the same in train and val, or twice in train."""
    train, val = tiny_coco / "images/train", tiny_coco / "images/val"
    (train / "image_0.png").write_bytes(b"spoilt")
    cv2.imwrite(str(train / "image_1.png"), np.zeros((48, 64, 3), np.uint8))  # 64 x 48 on file
    shutil.copy(train / "image_4.png", val / "image_0.png")
    cv2.imwrite(str(train / "image_2.png"), np.linspace(0, 4000, 4800).astype(np.uint16).reshape(80, 60))
    Image.new("RGBA", (47, 33)).save(train / "image_3.png")
    frame = Image.new("RGB", (90, 40))
    frame.save(train / "image_6.png", save_all=True, append_images=[Image.new("RGB", (90, 40), "red")])
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (50, 50)).save(train / "image_7.png", exif=exif)
    Image.new("CMYK", (50, 100)).save(train / "image_5.png", "JPEG")  # the name does not matter
    status, report = check()
    assert status == 1
    assert "train: 2 images cannot be used" in report
    assert "image_0.png: is not a whole image" in report
    assert "image_1.png: the image is 64 x 48" in report
    assert "val: 1 image is also in train (the same content)" in report
    assert "train: 1 image (16 bits a channel) read as the upper 8 bits" in report
    assert "1 image uses at most 6.1% of the values 0 to 65535 of 16-bit images" in report
    assert "values from 0 to 4000: data.sixteen_bit_range [0, 4095] would spread them" in report
    assert "train: 1 image (with transparency) read as the stored colors" in report
    assert "train: 1 image (CMYK) read as RGB (image_5.png)" in report
    assert "train: 1 file has several pages or frames, of which the first is used (image_6.png)" in report
    assert "train: 1 image has an EXIF rotation, which is not applied: the size on file is that of the stored" in report


@pytest.mark.skipif(os.name != "posix", reason="names are Unicode there")
def test_a_name_that_is_not_utf8(check: Callable, tiny_coco: Path, edit_json: Callable) -> None:
    name = os.fsdecode(b"\xff.png")
    (tiny_coco / "images/train/image_4.png").rename(tiny_coco / "images/train" / name)
    edit_json("train", lambda content: content["images"][4].update(file_name=name))
    shutil.copy(tiny_coco / "images/train" / name, tiny_coco / "images/val/image_0.png")
    _, report = check()
    assert r"\udcff.png = image_0.png" in report
    page = Path("runs/data/check.html").read_text(encoding="utf-8")
    assert r"\udcff.png" in page


def test_a_chosen_range_is_checked(check: Callable, tiny_coco: Path) -> None:
    values = np.linspace(0, 4000, 4800).astype(np.uint16).reshape(80, 60)
    cv2.imwrite(str(tiny_coco / "images/train/image_2.png"), values)
    _, report = check("--data.sixteen_bit_range", "[0, 4095]")
    assert "1 image (16 bits a channel): the values 0 to 4095 are read as 0 to 255" in report
    assert "would spread them" not in report
    _, report = check("--data.sixteen_bit_range", "[1000, 5000]")
    assert "1 image has values outside of data.sixteen_bit_range" in report


@pytest.mark.parametrize(
    ("darkest", "brightest", "expected"),
    [(0, 4080, (0, 4095)), (200, 4000, (0, 4095)), (7000, 9000, (7000, 9000)), (0, 200, (0, 255)), (0, 0, (0, 1))],
)
def test_the_suggested_range(darkest: int, brightest: int, expected: tuple[int, int]) -> None:
    assert suggested_range(darkest, brightest) == expected


@pytest.mark.parametrize(
    ("mode", "suffix", "kind"),
    [("L", "png", "grayscale"), ("CMYK", "jpeg", "CMYK"), ("RGBA", "png", "with transparency"), ("P", "png", "palette"),
     ("I;16", "png", "16 bits a channel"), ("RGB", "jpeg", "RGB"), ("LA", "png", "with transparency")],
)  # fmt: skip
def test_kinds_of_images(tmp_path: Path, mode: str, suffix: str, kind: str) -> None:
    Image.new(mode, (5, 4)).save(tmp_path / f"a.{suffix}")
    assert image_kind((tmp_path / f"a.{suffix}").read_bytes()) == kind
