"""The training pipeline: all boxes are kept, colors, and the limits of the settings."""

import colorsys
from typing import Any

import numpy as np
import pytest

from data import transforms
from data.mosaic import MosaicTile
from data.transforms import Augmentation, TrainPipeline, shift_hsv
from tests.data.own_transforms import Draws

SIZE = (64, 64)
NO_AUGMENTATION = {"mosaic": 0, "scale": 0, "translate": 0, "fliplr": 0, "hsv": (0, 0, 0)}


def test_five_hundred_boxes_are_kept() -> None:
    corners = np.stack(np.meshgrid(np.arange(20) * 3, np.arange(25) * 2.5), -1).reshape(-1, 2)
    objects = np.column_stack([corners, corners + 2.4, np.arange(500)]).astype(np.float32)
    pipeline = TrainPipeline(SIZE, Augmentation(**NO_AUGMENTATION), None)
    tile = MosaicTile(np.full((*SIZE, 3), 114, np.uint8), objects)
    _, remaining = pipeline([[tile]], np.random.default_rng(0))
    assert sorted(remaining[:, 4].astype(int).tolist()) == list(range(500))


def test_hsv_equals_a_slow_loop() -> None:
    shifts = np.array([0.07, 0.3, -0.2])
    colors = np.random.default_rng(0).integers(40, 220, (5, 5, 3), dtype=np.uint8)
    shifted = shift_hsv(colors, shifts)
    for before, after in zip(colors.reshape(-1, 3) / 255, shifted.reshape(-1, 3)):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        hue, saturation, value = (hue + shifts[0]) % 1, min(saturation * 1.3, 1), value * 0.8
        np.testing.assert_allclose(after, np.array(colorsys.hsv_to_rgb(hue, saturation, value)) * 255, atol=6)


def test_hsv_saturates() -> None:
    white = np.full((2, 2, 3), 255, np.uint8)
    assert (shift_hsv(white, np.array([0, 0, 0.4])) == 255).all()


def test_hsv_shifts_fill_the_range_of_the_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []
    monkeypatch.setattr(transforms, "shift_hsv", lambda image, shifts: drawn.append(shifts) or image)
    pipeline = TrainPipeline(SIZE, Augmentation(**NO_AUGMENTATION | {"hsv": (0.015, 0.7, 0.4)}), None)
    tile, rng = MosaicTile(np.zeros((*SIZE, 3), np.uint8), np.zeros((0, 5), np.float32)), np.random.default_rng(0)
    for _ in range(1000):
        pipeline([[tile]], rng)
    np.testing.assert_allclose(np.max(drawn, axis=0), (0.015, 0.7, 0.4), rtol=0.01)
    np.testing.assert_allclose(np.min(drawn, axis=0), (-0.015, -0.7, -0.4), rtol=0.01)


def test_colors_change_last(monkeypatch: pytest.MonkeyPatch, own_transforms: list[dict[str, Any]]) -> None:
    """After mixup and the user's own transforms."""
    monkeypatch.setattr(transforms, "shift_hsv", lambda image, shifts: np.full_like(image, 9))
    pipeline = TrainPipeline(SIZE, Augmentation(**NO_AUGMENTATION | {"hsv": (0.1, 0.1, 0.1)}), own_transforms)
    tile = MosaicTile(np.zeros((*SIZE, 3), np.uint8), np.zeros((0, 5), np.float32))
    image, _ = pipeline([[tile], [tile]], np.random.default_rng(0))
    assert (image == 9).all()


def test_own_transforms_see_the_blended_image_once(
    own_transforms: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(Draws, "apply", lambda self, image, **_: seen.append(int(image[0, 0, 0])) or image)
    pipeline = TrainPipeline(SIZE, Augmentation(**NO_AUGMENTATION), own_transforms)
    seen.clear()  # of the trials
    layers = [[MosaicTile(np.full((*SIZE, 3), value, np.uint8), np.zeros((0, 5), np.float32))] for value in (100, 200)]
    image, _ = pipeline(layers, np.random.default_rng(0))
    assert seen == [image[0, 0, 0]]
    assert 110 < seen[0] < 190


def test_mixup_at_another_input_size() -> None:
    """Both images and their objects are scaled to it, as for multi-scale training."""
    pipeline = TrainPipeline(SIZE, Augmentation(**NO_AUGMENTATION), None)
    tiles = [MosaicTile(np.full((*SIZE, 3), 50 * n, np.uint8), np.array([[8, 8, 40, 24, n]], np.float32)) for n in (1, 2)]
    image, objects = pipeline([[tile] for tile in tiles], np.random.default_rng(0), (128, 96))
    assert image.shape == (128, 96, 3)
    assert objects.tolist() == [[12, 16, 60, 48, n] for n in (1, 2)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mosaic", 1.5),
        ("fliplr", -0.1),
        ("scale", 1.0),
        ("translate", -1),
        ("close_mosaic", -1),
        ("mixup", 2),
        ("pool", -1),
        ("pool", 3),
        ("multi_scale", 1),
        ("hsv", (0.1, 0.2)),
    ],
)
def test_augmentation_refuses_values_out_of_range(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"augment\.{field} is"):
        Augmentation(**{field: value})
