"""Augmentation of labeled images: the settings, and the transforms of timm that they stand for."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from data.user_transforms import seeded_globals
from detector.arguments import as_number, shown
from detector.batch import Size

if TYPE_CHECKING:
    from PIL import Image

POLICIES = re.compile(  # of a name with other parts, timm would ignore some
    r"rand(-(m|n|mmax|inc)\d+|-(p|mstd)\d+(\.\d+)?|-t(weights|3aw|3a))*"
    r"|augmix(-(m|w|d|b)\d+|-(a|mstd)\d+(\.\d+)?)*"
    r"|(original|originalr|v0|v0r|3a)(-mstd\d+(\.\d+)?)?"
)
INTERPOLATIONS = ("random", "bilinear", "bicubic", "lanczos", "nearest", "box", "hamming")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet; erased areas get noise with these


@dataclass(frozen=True)
class ClassAugmentation:
    """Strength of the augmentation of training images, as in timm. Zero or None turns a part off."""

    scale: tuple[float, float] = (0.08, 1.0)  # area of the crop, as a share of the image
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width : height of the crop, before it is resized to the input
    flip: float = 0.5  # probability of mirroring left and right
    vertical_flip: float = 0.0  # probability of mirroring top and bottom
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"  # a policy of timm: rand-..., augmix-..., original, v0, 3a; or none
    color_jitter: float = 0.4  # brightness, contrast, saturation; as in timm, only without auto_augment or with 3a
    interpolation: str = "random"  # bilinear or bicubic by chance, or one of timm's names
    erasing: float = 0.25  # probability of a rectangle of noise
    mixup: float = 0.0  # alpha: images are blended, with a share from Beta(alpha, alpha)
    cutmix: float = 0.0  # alpha: a rectangle comes from another image, with an area from Beta(alpha, alpha)
    mix_prob: float = 1.0  # probability of mixing an image, if mixup or cutmix is on
    switch_prob: float = 0.5  # probability of cutmix, if both are on

    def __post_init__(self) -> None:
        for name in ("flip", "vertical_flip", "erasing", "mix_prob", "switch_prob"):
            as_number(getattr(self, name), f"augment.{name}")
        for name in ("color_jitter", "mixup", "cutmix"):
            as_number(getattr(self, name), f"augment.{name}", 0, 100)
        for name, most in (("scale", 1.0), ("ratio", 100.0)):
            _check_range(name, getattr(self, name), most)
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"augment.interpolation is {self.interpolation!r}; expected one of {', '.join(INTERPOLATIONS)}")
        policy = self.auto_augment
        if policy not in (None, "none") and not (isinstance(policy, str) and POLICIES.fullmatch(policy)):
            raise ValueError(
                f"augment.auto_augment is {shown(policy)}; expected timm's name of a policy, e.g. rand-m9-mstd0.5-inc1, or "
                "null for none"
            )


class TrainTransform:
    """Turns an image into a training image of ``size``: random crop, flips, automatic augmentation, erasing."""

    def __init__(self, size: Size, augment: ClassAugmentation) -> None:
        from timm.data import create_transform  # imported late: it takes a second, which detectors need not wait for
        from timm.data.random_erasing import RandomErasing

        self.size = size
        settings: dict[str, Any] = {
            "scale": tuple(augment.scale),
            "ratio": tuple(augment.ratio),
            "hflip": augment.flip,
            "vflip": augment.vertical_flip,
            "color_jitter": augment.color_jitter or None,
            "auto_augment": None if augment.auto_augment == "none" else augment.auto_augment,
            "interpolation": augment.interpolation,
        }
        try:
            self.transform = create_transform((3, *size), is_training=True, normalize=False, **settings)
            _keep_a_bit(self.transform.transforms)
            with seeded_globals(0):
                self.transform(_as_pillow(np.zeros((64, 64, 3), np.uint8)))
        except Exception as error:  # of many kinds, AssertionError and KeyError among them
            raise ValueError(f"timm refuses data.augment: {error!r}; the settings are {settings}") from error
        # A crop of less than a pixel would be an error in timm.
        self.smallest_area = 1 / (augment.scale[0] * min(augment.ratio[0], 1 / augment.ratio[1]))
        self.erasing = RandomErasing(augment.erasing, mode="pixel", device="cpu") if augment.erasing else None

    def __call__(self, image: np.ndarray) -> Tensor:
        """Return (3, *size) uint8 for an ``image`` (H, W, 3) uint8. Draws from the global generators, as timm does."""
        while image.shape[0] * image.shape[1] < self.smallest_area:
            image = image.repeat(2, axis=0).repeat(2, axis=1)
        pixels = self.transform(_as_pillow(image))
        return pixels if self.erasing is None else _erase(pixels, self.erasing)


class EvalTransform:
    """Turns an image into an evaluation image of ``size``: the center of the image, which has been resized to fit."""

    def __init__(self, size: Size, crop_pct: float) -> None:
        from timm.data import create_transform

        self.size = size
        self.transform = create_transform((3, *size), interpolation="bicubic", crop_pct=crop_pct, normalize=False)

    def __call__(self, image: np.ndarray) -> Tensor:
        """Return (3, *size) uint8 for an ``image`` (H, W, 3) uint8."""
        return self.transform(_as_pillow(image))


def _erase(pixels: Tensor, erasing: Callable[[Tensor], Tensor]) -> Tensor:
    """Erase as timm does: after normalization, where noise of mean 0 and deviation 1 is like an image."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    erased = erasing((pixels / 255 - mean) / std)
    return ((erased * std + mean) * 255).round_().clamp_(0, 255).to(torch.uint8)


def _keep_a_bit(transforms: list[Any]) -> None:
    """Let posterizing keep at least one bit: for none, which timm draws now and then, Pillow raises an error."""
    for transform in transforms:
        for op in chain(getattr(transform, "ops", ()), *getattr(transform, "policy", ())):
            if op.name.startswith("Posterize"):
                op.aug_fn = _posterize


def _posterize(image: "Image.Image", bits: int, **settings: Any) -> "Image.Image":
    from timm.data.auto_augment import posterize

    return posterize(image, max(bits, 1), **settings)


def _as_pillow(image: np.ndarray) -> "Image.Image":
    from PIL import Image

    return Image.fromarray(image)


def _check_range(name: str, value: Any, most: float) -> None:
    numbers = value if isinstance(value, list | tuple) else ()
    valid = len(numbers) == 2 and all(isinstance(limit, int | float) and not isinstance(limit, bool) for limit in numbers)
    if not valid or not 0 < numbers[0] <= numbers[1] <= most:
        raise ValueError(
            f"augment.{name} is {shown(value)}; expected the smallest and the largest value, above 0 to {most:g}"
        )
