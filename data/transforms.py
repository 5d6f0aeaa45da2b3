"""The training pipeline: mosaic, affine map and flip, mixup, the user's own albumentations, colors."""

import random
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import albumentations as A
import cv2
import numpy as np

from data.mosaic import MosaicAffine, MosaicTile, map_objects, render
from data.user_transforms import build_transforms, check_output, compose, seeded_globals
from detector.arguments import AUTO, Auto
from detector.batch import Size
from detector.text import unknown_name

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")


@dataclass(frozen=True)
class Augmentation:
    """Strength of the augmentation of training images. Zero turns a part off."""

    mosaic: float | Auto = 1.0  # probability of joining four images; auto is chosen by train.py, as is close_mosaic
    mixup: float = 0.0  # probability of blending with another image or mosaic
    close_mosaic: int | Auto = 10  # the last epochs, without mosaic and mixup
    pool: int = 64  # images of an epoch that are mixed with each other (see EpochOrder); 0: all of them, four times slower
    scale: float = 0.5  # zoom is drawn from 1 - scale .. 1 + scale
    translate: float = 0.1  # share of the input size, either way
    degrees: float = 0.0  # rotation, either way
    shear: float = 0.0  # degrees, either way, per axis
    fliplr: float = 0.5  # probability of mirroring left and right
    hsv: tuple[float, float, float] = (0.015, 0.7, 0.4)  # gains of hue (share of the circle), saturation and value
    multi_scale: float = 0.0  # input sizes vary from batch to batch within 1 - multi_scale .. 1 + multi_scale

    def __post_init__(self) -> None:
        limits = {"mosaic": 1, "mixup": 1, "fliplr": 1, "scale": 0.99, "translate": 0.5, "degrees": 180, "shear": 80}
        limits["multi_scale"] = 0.9
        for name, limit in limits.items():
            if (name, getattr(self, name)) != ("mosaic", AUTO) and not 0 <= getattr(self, name) <= limit:
                raise ValueError(f"augment.{name} is {getattr(self, name)}; expected a number in 0..{limit}")
        if self.close_mosaic != AUTO and self.close_mosaic < 0:
            raise ValueError(f"augment.close_mosaic is {self.close_mosaic}; expected a number of epochs, 0 or more")
        if self.pool < 0 or 0 < self.pool < 4:
            raise ValueError(f"augment.pool is {self.pool}; expected at least the 4 images of a mosaic, or 0 for all")
        if len(self.hsv) != 3 or not all(0 <= gain <= 1 for gain in self.hsv):
            raise ValueError(f"augment.hsv is {self.hsv}; expected three gains (hue, saturation, value) in 0..1")


def as_augmentation(value: Any, kind: type[Settings]) -> Settings:
    """Return ``value``, which is a ``kind`` of settings or a mapping of its fields. Raises ValueError for anything else."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, dict):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise ValueError(f"data.augment is {value!r}; expected {article} {kind.__name__}, or a mapping of its fields")
    names = [field.name for field in fields(kind)]
    if unknown := [name for name in value if name not in names]:
        raise ValueError(unknown_name("field of data.augment:", unknown[0], names))
    return kind(**value)


class TrainPipeline:
    """Turns images that are scaled to fit an input of ``size`` into a training sample.

    Our own steps do not use ``A.Compose``: its handling of boxes takes longer than all of them. ``transforms`` are the
    user's own, and ``sizes`` the sizes that samples may have, ascending: the transforms are tried on the smallest and the
    largest.
    """

    def __init__(
        self, size: Size, augment: Augmentation, transforms: list[dict[str, Any]] | None, sizes: list[Size] | None = None
    ) -> None:
        self.size, self.hsv_gains = size, np.array(augment.hsv)
        self.mosaic_affine = MosaicAffine(
            size, augment.scale, augment.translate, augment.degrees, augment.shear, augment.fliplr
        )
        sizes = sizes or [size]
        built = build_transforms(transforms, {sizes[0], sizes[-1]})
        self.user_transforms = compose(built) if built else None

    def __call__(
        self, layers: list[list[MosaicTile]], rng: np.random.Generator, size: Size | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return an image (H, W, 3) uint8 of ``size`` and its objects (N, 5) float32: boxes and their numbers.

        A layer is one image, or four that make a mosaic; a second layer is blended with the first. All random numbers come
        from ``rng``.
        """
        size = self.size if size is None else size
        image, objects = self._render_layer(layers[0], rng, size)
        for layer in layers[1:]:
            other_image, other_objects = self._render_layer(layer, rng, size)
            weight = rng.beta(32, 32)
            image = cv2.addWeighted(image, weight, other_image, 1 - weight, 0)  # mixup (arXiv:1710.09412)
            objects = np.concatenate([objects, other_objects])
        if self.user_transforms is not None:
            image, objects = _apply_user_transforms(self.user_transforms, image, objects, rng)
        if self.hsv_gains.any():
            image = shift_hsv(image, rng.uniform(-1, 1, 3) * self.hsv_gains)
        return image, objects

    def _render_layer(self, tiles: list[MosaicTile], rng: np.random.Generator, size: Size) -> tuple[np.ndarray, np.ndarray]:
        layout = self.mosaic_affine.draw_layout([tile.image.shape[:2] for tile in tiles], rng, size)
        image = render([tile.image for tile in tiles], layout)
        return image, map_objects([tile.objects for tile in tiles], layout)


def _apply_user_transforms(
    composed: A.Compose, image: np.ndarray, objects: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    # One generator for all transforms: Compose.set_random_seed would give each the same draws as its neighbor.
    seed = int(rng.integers(2**63))
    composed.set_random_state(rng, random.Random(seed))
    with seeded_globals(seed):
        result = composed(image=image, bboxes=objects)
    check_output(result["image"], image.shape[:2])
    # Without boxes albumentations returns other shapes and types than with boxes.
    return result["image"], np.asarray(result["bboxes"], np.float32).reshape(-1, 5)


def shift_hsv(image: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Turn the hue of an RGB image, (H, W, 3) uint8, and scale its saturation and value.

    ``shifts`` (3,): the hue turns by ``shifts[0]`` of the circle; saturation and value are multiplied by 1 + shift.
    """
    levels = np.arange(256)
    hue = np.rint(levels + 180 * shifts[0]) % 180
    saturation, value = (np.rint(levels * (1 + shift)).clip(0, 255) for shift in shifts[1:])
    table = np.stack([hue, saturation, value], axis=-1).astype(np.uint8)[None]  # (1, 256, 3)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    cv2.LUT(hsv, table, dst=hsv)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=hsv)
