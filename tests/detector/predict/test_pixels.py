"""Images of every mode and type give the pixels of their file, or are refused with what is accepted."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from detector.imaging.read import read_upright
from detector.predict.pixels import ACCEPTED, as_array, each_image

RGB = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)
DEEP = np.random.default_rng(0).integers(0, 65536, (12, 17), np.uint16)
COLOR = PIL.Image.fromarray(RGB)


def palette(transparency: int | bytes | None) -> PIL.Image.Image:
    image = COLOR.quantize(16)
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


MODES = {
    "1": COLOR.convert("1"),
    "L": COLOR.convert("L"),
    "LA": PIL.Image.fromarray(RGB[..., :2].copy(), "LA"),
    "P": palette(None),
    "P with a transparent color": palette(3),
    "P with transparency of each color": palette(bytes(range(16))),
    "RGB": COLOR,
    "RGBA": PIL.Image.fromarray(np.dstack([RGB, RGB[..., :1]])),
    "I;16": PIL.Image.fromarray(DEEP),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.filterwarnings("ignore:.*'mode' parameter")
def test_a_pil_image_has_the_pixels_of_its_file(tmp_path: Path, mode: str, orientation: int) -> None:
    image, path = MODES[mode], tmp_path / "a.png"
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    expected = read_upright(path)
    assert expected.shape == ((12, 17, 3) if orientation == 1 else (17, 12, 3))
    np.testing.assert_array_equal(as_array(PIL.Image.open(path)), expected)
    if orientation == 1:
        np.testing.assert_array_equal(as_array(image), expected)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("CMYK", "jpg"), ("YCbCr", "jpg"), ("I;16", "tif"), ("L", "tif"), ("RGB", "tif"), ("L", "pgm")]
)
def test_other_formats(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image = MODES[mode] if mode in MODES else COLOR.convert(mode)
    image.save(path, **({} if suffix == "pgm" else {"exif": exif}))
    opened = PIL.Image.open(io.BytesIO(path.read_bytes()))  # Pillow 13 garbles turned TIFF files that it maps into memory
    np.testing.assert_array_equal(as_array(opened), read_upright(path))


def test_premultiplied_and_unusual_modes() -> None:
    opaque = COLOR.convert("RGBA")  # of opaque images, nothing is lost by multiplication
    for mode in ("RGBa", "RGBX"):
        np.testing.assert_array_equal(as_array(opaque.convert(mode)), RGB)
    gray = np.asarray(COLOR.convert("L"))[..., None].repeat(3, axis=2)
    np.testing.assert_array_equal(as_array(COLOR.convert("L").convert("LA").convert("La")), gray)
    np.testing.assert_array_equal(as_array(palette(None).convert("PA")), np.asarray(palette(None).convert("RGB")))
    assert np.abs(as_array(COLOR.convert("HSV")).astype(int) - RGB).max() <= 6  # HSV is rounded
    for order in ("I;16L", "I;16B"):
        image = PIL.Image.frombytes(order, (17, 12), DEEP.astype(">u2" if order == "I;16B" else "<u2").tobytes())
        np.testing.assert_array_equal(as_array(image), (DEEP >> 8).astype(np.uint8)[..., None].repeat(3, axis=2))


def test_a_pgm_with_16_bits(tmp_path: Path) -> None:
    """Pillow opens it in mode I."""
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 17 12 65535\n" + DEEP.astype(">u2").tobytes())
    np.testing.assert_array_equal(as_array(PIL.Image.open(path)), read_upright(path))


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_modes_without_pixels_in_0_to_255_are_refused(mode: str) -> None:
    image = PIL.Image.new("LAB", (4, 4)) if mode == "LAB" else COLOR.convert("L").convert(mode)
    with pytest.raises(ValueError, match=f"the PIL image has the mode {mode}, .*convert it to RGB"):
        as_array(image)


def test_sixteen_bits_by_the_range() -> None:
    expected = (DEEP.clip(0, 4095) >> 4).astype(np.uint8)[..., None].repeat(3, axis=2)
    for form in (DEEP, DEEP.astype(">u2"), PIL.Image.fromarray(DEEP), torch.from_numpy(DEEP)[None]):
        np.testing.assert_array_equal(as_array(form, (0, 4095)), expected)


REFUSED = {
    "bool": np.zeros((4, 4), bool),
    "int32": np.zeros((4, 4, 3), np.int32),
    "float64": np.zeros((4, 4, 3)),
    "array.transpose": np.zeros((3, 40, 50), np.uint8),
    "tensor.permute": torch.zeros(40, 50, 3),
    "bool of shape": torch.zeros(3, 4, 4, dtype=torch.bool),
    "complex64": torch.zeros(3, 4, 4, dtype=torch.complex64),
    "meta": torch.zeros(3, 4, 4, device="meta"),
    "values from -1 to 1;": torch.linspace(-1, 1, 48).view(3, 4, 4),
    "values from -0.01 to": torch.linspace(-0.01, 1, 48).view(3, 4, 4),
    "values from nan": torch.full((3, 4, 4), torch.nan),
    "to inf;": torch.full((3, 4, 4), torch.inf),
    "None": None,
    "a bytes": b"a.jpg",
    "a list": [[0, 0], [0, 0]],
    "a int": 3,
}


@pytest.mark.parametrize("part", REFUSED)
def test_anything_else_is_refused_with_what_is_accepted(part: str) -> None:
    with pytest.raises(ValueError, match=r"floating-point images are in 0\.\.1|an image is a path, a PIL image") as refusal:
        as_array(REFUSED[part])
    assert part in str(refusal.value) or part == "meta"


def test_an_address_is_named_without_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("C:").mkdir()
    PIL.Image.new("RGB", (3, 2)).save("C:/a.png")
    assert as_array("C://a.png").shape == (2, 3, 3)  # as paths of Windows may be written
    for address, shown in (("http://a/b.jpg", "http://a/b.jpg"), ("rtsp://me:pw@a/b", r"rtsp://\*\*\*@a/b")):
        with pytest.raises(ValueError, match=f"^{shown}: is an address; download the image, and give its path"):
            as_array(address)


@pytest.mark.parametrize(
    "images", [["a", "b"], ("a", "b"), np.array(["a", "b"]), np.array(["a", "b"], object), (name for name in "ab")]
)
def test_several_images_come_in_anything_with_an_order(images: Any) -> None:
    assert list(each_image(images)) == ["a", "b"]


@pytest.mark.parametrize("image", ["a", Path("a"), RGB, COLOR, torch.zeros(3, 4, 4)])
def test_one_image_is_one(image: Any) -> None:
    (only,) = each_image(image)
    assert only is image


@pytest.mark.parametrize("images", [None, 3, b"a.jpg", {"image": RGB}, {"a"}, object()])
def test_no_images_are_refused_with_what_is_accepted(images: Any) -> None:
    with pytest.raises(ValueError, match=r"^images is (a \w+|None); an image is") as refusal:
        each_image(images)
    assert ACCEPTED in str(refusal.value)
