"""Mix two labeled images: mixup (arXiv:1710.09412) and cutmix (arXiv:1905.04899), with timm's formulas."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.classification.augmentation import ClassAugmentation


class Mix(NamedTuple):
    """How an image is mixed with another one."""

    partner: int  # index of the other image
    share: float  # of the first image, 0..1
    is_cutmix: bool


def draw_mix(augment: ClassAugmentation, num_images: int, rng: np.random.Generator) -> Mix | None:
    """Return how to mix a sample, or None for not at all. The partner is any image, also the same one."""
    if not (augment.mixup or augment.cutmix) or rng.random() >= augment.mix_prob:
        return None
    is_cutmix = augment.cutmix > 0 and (not augment.mixup or rng.random() < augment.switch_prob)
    alpha = augment.cutmix if is_cutmix else augment.mixup
    return Mix(int(rng.integers(num_images)), float(rng.beta(alpha, alpha)), is_cutmix)


def mix_images(image: Tensor, other_image: Tensor, mix: Mix) -> tuple[Tensor, float]:
    """Return the mixed image (3, H, W) uint8, and the share of ``image`` in it.

    The place of cutmix's rectangle is drawn from NumPy's global generator, as in timm. Its share is that of the pixels:
    the rectangle may stick out of the image.
    """
    if not mix.is_cutmix:
        mixed = image * mix.share + other_image * (1 - mix.share)
        return mixed.round_().to(torch.uint8), mix.share
    from timm.data.mixup import cutmix_bbox_and_lam

    (top, bottom, left, right), share = cutmix_bbox_and_lam(image.shape, mix.share)
    image = image.clone()
    image[:, top:bottom, left:right] = other_image[:, top:bottom, left:right]
    return image, float(share)
