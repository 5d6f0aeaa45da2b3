"""Image files of every kind come upright and in RGB; broken ones are named."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from detector.imaging.read import IMAGE_SUFFIXES, BadImageError, decode_image, read_upright, turn


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_pillow_does(orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 5, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(turn(pixels, orientation), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_opencv_and_pillow_read_every_suffix(tmp_path: Path, suffix: str) -> None:
    """Prediction decodes with OpenCV; the YOLO reader takes sizes from Pillow."""
    path = tmp_path / f"a{suffix}"
    mode, color = {".pgm": ("L", 200), ".pbm": ("1", 255)}.get(suffix, ("RGB", (200, 100, 50)))
    Image.new(mode, (30, 20), color).save(path)
    assert Image.open(path).size == (30, 20)
    image = read_upright(path)
    assert image.shape == (20, 30, 3)
    expected = (color,) * 3 if isinstance(color, int) else color
    assert np.abs(image.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_files_are_turned_upright(tmp_path: Path, suffix: str) -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:10, :, 0] = 255  # red above
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, exif=exif, quality=98)
    image = read_upright(path)
    assert image.shape == (30, 20, 3)
    assert image[15, 15, 0] > 240 > 20 > image[15, 5, 0]  # red on the right


def test_a_jpeg_without_its_end_is_bad(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8))
    whole = path.read_bytes()
    decode_image(whole + b"a trailer, as some phones write")
    thumbnail = b"\xff\xe1" + (2 + len(whole)).to_bytes(2, "big") + whole
    decode_image(whole[:2] + thumbnail + whole[2:])
    with pytest.raises(BadImageError, match="Premature end of JPEG file"):
        decode_image(whole[:2] + thumbnail + whole[2:-50])
    path.write_bytes(whole[:-50])
    with pytest.raises(BadImageError, match=r"image\.jpg: is not a whole image"):
        read_upright(path)
    with pytest.raises(BadImageError, match=r"lost\.jpg: cannot be read"):
        read_upright(tmp_path / "lost.jpg")
    with pytest.raises(BadImageError, match=r"is an address; download the image, and give its path"):
        read_upright(Path("https://example.com/a.jpg"))


def test_a_large_image_has_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its channels are turned in strips, in place."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1])
    monkeypatch.setattr("detector.imaging.read.LARGE_IMAGE", 1000)
    monkeypatch.setattr("detector.imaging.read.ROWS_AT_ONCE", 7)
    np.testing.assert_array_equal(read_upright(tmp_path / "a.png"), pixels)
