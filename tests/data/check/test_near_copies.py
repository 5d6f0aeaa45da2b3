"""Copies of another size, encoding or brightness are found; photographs of one scene and flat images are not."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.check.near_copies import near_copies, thumbnail


def scene(seed: int) -> np.ndarray:
    """An image (240, 320, 3) with smooth structure, as photographs have it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)


def moved(image: np.ndarray) -> np.ndarray:
    return np.roll(image, 6, axis=1)


COPIES = {
    "the same": lambda image: image,
    "JPEG": lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR),
    "stretched": lambda image: cv2.resize(image, (640, 640)),
    "smaller": lambda image: cv2.resize(image, (107, 80), interpolation=cv2.INTER_AREA),
    "brighter": lambda image: cv2.add(image // 2, 60),
    "gray": lambda image: cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_and_similar_images_are_not(kind: str) -> None:
    train = [thumbnail(scene(seed) // (2 if kind == "brighter" else 1)) for seed in range(6)]
    others = [thumbnail(COPIES[kind](scene(4))), thumbnail(moved(scene(2))), thumbnail(scene(9)), b""]
    assert near_copies(others, [b"", *train]) == [(0, 5)]
    assert near_copies(others, []) == near_copies([], train) == []


def test_flat_images_are_not_compared() -> None:
    flat = [thumbnail(np.full((40, 60, 3), shade, np.uint8)) for shade in (0, 255, 128)]
    assert near_copies(flat, flat) == []


def test_the_check_warns_of_them(check: Callable, tiny_coco: Path) -> None:
    """Images with the content of a training image are named once, for their content."""
    image = cv2.imread(str(tiny_coco / "images/train/image_4.png"))
    image[:] = scene(1)[: image.shape[0], : image.shape[1]]
    cv2.imwrite(str(tiny_coco / "images/train/image_4.png"), image)
    (tiny_coco / "images/val/image_0.png").write_bytes((tiny_coco / "images/train/image_4.png").read_bytes())
    other = cv2.imread(str(tiny_coco / "images/val/image_1.png"))
    copy = cv2.resize(image, other.shape[1::-1], interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(tiny_coco / "images/val/image_1.png"), copy)
    _, report = check()
    assert "val: 1 image is also in train (the same content)" in report
    assert "val: 1 image looks the same as one of train" in report
    assert "(image_4.png ~ image_1.png)" in report
