"""Findings that need the image files."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data.check.files import image_kind


def test_files_are_decoded(check: Callable, tiny_coco: Path) -> None:
    """Unreadable, of another size, of every kind, and the same in train and val, or twice in train."""
    train, val = tiny_coco / "images/train", tiny_coco / "images/val"
    (train / "image_0.png").write_bytes(b"spoilt")
    cv2.imwrite(str(train / "image_1.png"), np.zeros((48, 64, 3), np.uint8))  # 64 x 48 on file
    shutil.copy(train / "image_4.png", val / "image_0.png")
    cv2.imwrite(str(train / "image_2.png"), np.zeros((80, 60), np.uint16))
    Image.new("RGBA", (47, 33)).save(train / "image_3.png")
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
    assert "train: 1 image (with transparency) read as the stored colors" in report
    assert "train: 1 image (CMYK) read as RGB (image_5.png)" in report
    assert "train: 1 image has an EXIF rotation" in report


@pytest.mark.parametrize(
    ("mode", "suffix", "kind"),
    [("L", "png", "grayscale"), ("CMYK", "jpeg", "CMYK"), ("RGBA", "png", "with transparency"), ("P", "png", "palette"),
     ("I;16", "png", "16 bits a channel"), ("RGB", "jpeg", "RGB"), ("LA", "png", "with transparency")],
)  # fmt: skip
def test_kinds_of_images(tmp_path: Path, mode: str, suffix: str, kind: str) -> None:
    Image.new(mode, (5, 4)).save(tmp_path / f"a.{suffix}")
    assert image_kind((tmp_path / f"a.{suffix}").read_bytes()) == kind
