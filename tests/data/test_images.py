"""Image files: all kinds become RGB; bad ones are named, or skipped and counted."""

import shutil
import struct
import zlib
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from data import Augmentation, CocoDataModule
from data.check.files import image_kind
from data.images import read_image, stored_size
from detector.imaging.read import BadImageError, exif_orientation

EXIF_TURNED = bytes.fromhex("ffe100224578696600004d4d002a00000008000101120003000000010006000000000000")


@pytest.fixture
def jpeg(tmp_path: Path) -> Path:
    path = tmp_path / "image.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8)
    cv2.imwrite(str(path), noise)
    return path


def test_colors_are_rgb(tiny_coco: Path) -> None:
    assert read_image(tiny_coco / "images/train/image_0.png", (48, 64))[10, 12].tolist() == [220, 40, 40]


def test_gray_images_get_three_channels(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "gray.png"), np.full((20, 30), 7, np.uint8))
    assert read_image(tmp_path / "gray.png", (20, 30)).shape == (20, 30, 3)


def test_a_cut_jpeg_is_bad(jpeg: Path) -> None:
    whole = jpeg.read_bytes()
    assert read_image(jpeg, (30, 50)).shape == (30, 50, 3)
    jpeg.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadImageError, match=str(jpeg)):
        read_image(jpeg, (30, 50))


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"some text", bytes(5000)])
def test_other_files_are_bad(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(BadImageError, match=r"bad\.jpg: is not a whole image"):
        read_image(tmp_path / "bad.jpg", (5, 5))


@pytest.mark.parametrize("side", [15_000, 40_000])
def test_images_too_large_for_a_library_are_bad(tmp_path: Path, side: int) -> None:
    """Pillow refuses the first size, and OpenCV the second, each with an error of its own."""
    Image.new("1", (8, 8)).save(tmp_path / "huge.png")
    content = bytearray((tmp_path / "huge.png").read_bytes())
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "huge.png").write_bytes(content)
    for read in (lambda path: read_image(path, (side, side)), stored_size):
        with pytest.raises(BadImageError, match=r"huge\.png"):
            read(tmp_path / "huge.png")
    assert (exif_orientation(content), image_kind(content)) == (1, "RGB")  # the defaults


def test_a_size_that_differs_from_the_file_is_bad(jpeg: Path) -> None:
    with pytest.raises(BadImageError, match=r"image\.jpg: the image is 50 x 30 .* says 60 x 30"):
        read_image(jpeg, (30, 60))


def test_exif_rotation_is_applied_where_the_annotations_need_it(jpeg: Path) -> None:
    plain = read_image(jpeg, (30, 50))
    with pytest.raises(BadImageError, match="it has no EXIF rotation"):
        read_image(jpeg, (50, 30))
    content = jpeg.read_bytes()
    jpeg.write_bytes(content[:2] + EXIF_TURNED + content[2:])
    turned = cv2.cvtColor(cv2.imread(str(jpeg)), cv2.COLOR_BGR2RGB)  # OpenCV's default applies it
    assert turned.shape == (50, 30, 3)
    np.testing.assert_array_equal(read_image(jpeg, (30, 50)), plain)  # annotated as stored
    np.testing.assert_array_equal(read_image(jpeg, (50, 30)), turned)  # annotated as shown
    np.testing.assert_array_equal(read_image(jpeg, (50, 30), upright=True), turned)
    with pytest.raises(BadImageError, match="the image is 30 x 50"):
        read_image(jpeg, (30, 50), upright=True)
    assert stored_size(jpeg) == (50, 30)
    assert read_image(jpeg, (50, 30), factor=2).shape == (25, 15, 3)


def smooth(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)


MODES = {
    "CMYK": ("jpg", lambda rgb: Image.fromarray(rgb).convert("CMYK"), 8),
    "grayscale JPEG": ("jpg", lambda rgb: Image.fromarray(rgb[..., 0]), 8),
    "grayscale": ("png", lambda rgb: Image.fromarray(rgb[..., 0]), 0),
    "16-bit grayscale": ("png", lambda rgb: Image.fromarray(rgb[..., 0].astype(np.uint16) * 257), 0),
    "16-bit TIFF": ("tiff", lambda rgb: Image.fromarray(rgb[..., 0].astype(np.uint16) * 257), 0),
    "RGBA": ("png", lambda rgb: Image.fromarray(np.dstack([rgb, rgb[..., 0]])), 0),
    "gray with alpha": ("png", lambda rgb: Image.fromarray(rgb[..., :2], "LA"), 0),
    "WebP": ("webp", lambda rgb: Image.fromarray(rgb), 8),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, mode: str) -> None:
    rgb = smooth(40, 60)
    suffix, convert, tolerance = MODES[mode]
    options = {"quality": 98, "lossless": True} if suffix in ("jpg", "webp") else {}
    path = tmp_path / f"image.{suffix}"
    convert(rgb).save(path, **options)
    image = read_image(path, (40, 60))
    expected = rgb[..., :1].repeat(3, axis=2) if "gray" in mode or "16" in mode else rgb
    assert image.shape == (40, 60, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - expected).max() <= tolerance


def test_sixteen_bits_in_three_channels(tmp_path: Path) -> None:
    rgb = smooth(40, 60)
    cv2.imwrite(str(tmp_path / "deep.png"), rgb[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png", (40, 60)), rgb)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_jpegs_are_decoded_smaller_and_others_whole(tmp_path: Path, factor: int) -> None:
    rgb = smooth(201, 333)
    Image.fromarray(rgb).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    reduced = read_image(tmp_path / "a.jpg", (201, 333), factor=factor)
    assert reduced.shape == (-(-201 // factor), -(-333 // factor), 3)
    whole = [slice(0, side // factor * factor) for side in (201, 333)]
    blocks = rgb[tuple(whole)].reshape(201 // factor, factor, 333 // factor, factor, 3).mean(axis=(1, 3))
    assert np.abs(reduced[: blocks.shape[0], : blocks.shape[1]] - blocks).mean() < 2
    assert read_image(tmp_path / "a.png", (201, 333), factor=factor).shape == (201, 333, 3)
    with pytest.raises(BadImageError, match="the image is 333 x 201"):
        read_image(tmp_path / "a.jpg", (202, 333), factor=factor)  # the size on file counts, not the rounded one


def spoil(root: Path, split: str, number: int) -> Path:
    path = root / f"images/{split}/image_{number}.png"
    path.write_bytes(b"spoilt")
    return path


def test_a_bad_image_stops_training_with_its_name(tiny_arguments: dict[str, Any], tiny_coco: Path) -> None:
    path = spoil(tiny_coco, "train", 5)
    with pytest.raises(BadImageError, match=str(path)):
        list(CocoDataModule(**tiny_arguments).train_dataloader())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:skipped")
def test_skipped_images_are_replaced_and_counted(tiny_arguments: dict[str, Any], tiny_coco: Path, workers: int) -> None:
    paths = [str(spoil(tiny_coco, "train", number)) for number in (5, 6)]
    arguments = tiny_arguments | {"on_bad_image": "skip", "num_workers": workers, "augment": Augmentation(mosaic=0)}
    data = CocoDataModule(**arguments)
    ids = [target["image_id"] for batch in data.train_dataloader() for target in batch["targets"]]
    assert sorted(ids) == [101, 102, 103, 104, 105, 108, 108, 108]  # 106 and 107 by the next good one
    assert data.skipped == {"train": paths, "val": []}
    with pytest.warns(UserWarning, match="train: 2 images could not be decoded"):
        data.teardown("fit")


def test_each_bad_image_is_named_once(tiny_arguments: dict[str, Any], tiny_coco: Path) -> None:
    path = spoil(tiny_coco, "train", 2)
    loader = CocoDataModule(**tiny_arguments, on_bad_image="skip").train_dataloader()
    with pytest.warns(UserWarning, match="skipped") as caught:
        list(chain(loader, loader, loader))
    assert [str(path) in str(warning.message) for warning in caught] == [True]


def test_a_skipped_validation_image_keeps_its_id_and_objects(tiny_arguments: dict[str, Any], tiny_coco: Path) -> None:
    """Another image in its place would be evaluated twice. The boxes stay where they are in the whole, wide image."""
    (whole,) = CocoDataModule(**tiny_arguments, val_batch_size=5).val_dataloader()
    spoil(tiny_coco, "val", 1)
    loader = CocoDataModule(**tiny_arguments, on_bad_image="skip", val_batch_size=5).val_dataloader()
    with pytest.warns(UserWarning, match="skipped"):
        (batch,) = list(loader)
    assert [target["image_id"] for target in batch["targets"]] == [201, 202, 203, 204, 205]
    assert (batch["images"][1] == 114).all()
    assert len(batch["targets"][1]["boxes"]) == 2
    for target, expected in zip(batch["targets"], whole["targets"], strict=True):
        assert target["boxes"].tolist() == expected["boxes"].tolist()
        assert target["letterbox"] == expected["letterbox"]


@pytest.mark.filterwarnings("ignore:skipped")
def test_only_bad_images_is_an_error(tiny_arguments: dict[str, Any], tiny_coco: Path) -> None:
    for number in range(8):
        spoil(tiny_coco, "train", number)
    with pytest.raises(ValueError, match="none of its images can be decoded, 8 in all"):
        list(CocoDataModule(**tiny_arguments, on_bad_image="skip").train_dataloader())


def test_an_image_that_vanishes_after_the_start_is_named(
    tiny_arguments: dict[str, Any], tiny_coco: Path, edit_json: Callable
) -> None:
    data = CocoDataModule(**tiny_arguments)
    shutil.rmtree(tiny_coco / "images/val")
    with pytest.raises(BadImageError, match=r"image_0\.png: cannot be read"):
        list(data.val_dataloader())


@pytest.mark.parametrize("sample_range", [None, (0, 4095)])
def test_training_and_evaluation_scale_16_bits_alike(
    tiny_arguments: dict[str, Any], tiny_coco: Path, sample_range: tuple[int, int] | None
) -> None:
    """A 64 x 64 image with 12 of 16 bits, as it is in memory for training, and in a batch of an evaluation."""
    values = np.random.default_rng(0).integers(0, 4096, (64, 64, 3), np.uint16)
    for split, number in (("train", 4), ("val", 0)):
        cv2.imwrite(str(tiny_coco / f"images/{split}/image_{number}.png"), values[..., ::-1])
    data = CocoDataModule(**tiny_arguments, sixteen_bit_range=sample_range)
    expected = (values >> (8 if sample_range is None else 4)).astype(np.uint8)
    np.testing.assert_array_equal(data.train_dataloader().dataset.dataset.reader.read(4), expected)
    batch = next(iter(data.val_dataloader()))
    np.testing.assert_array_equal(batch["images"][0].permute(1, 2, 0), expected)
    assert data.ground_truth("val")["info"].get("sixteen_bit_range") == (sample_range and list(sample_range))


def test_a_wrong_range_is_refused_at_the_start(tiny_arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^data\.sixteen_bit_range is \(4095, 0\); expected the darkest"):
        CocoDataModule(**tiny_arguments, sixteen_bit_range=(4095, 0))
