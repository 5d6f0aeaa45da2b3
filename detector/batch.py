"""What every dataloader yields: the one contract between data and detector."""

from typing import NamedTuple, NotRequired, TypedDict

import torch
from torch import Tensor


class Letterbox(NamedTuple):
    """How an image was placed on the network input: resized to ``(height, width)``, then padded by ``top`` and ``left``.

    All values are whole pixels; ``original_height`` and ``original_width`` are the size of the image as stored.
    """

    original_height: int
    original_width: int
    height: int
    width: int
    top: int
    left: int


class Target(TypedDict):
    """The objects of one image."""

    boxes: Tensor  # (N, 4) float32, x1 y1 x2 y2 in pixels of the network input; N may be 0
    labels: Tensor  # (N,) int64, 0..C-1
    image_id: NotRequired[int]  # the id in the annotation file, needed for evaluation
    letterbox: NotRequired[Letterbox]  # needed to map detections back to the image, for evaluation


class Batch(TypedDict):
    """One step's worth of images and their objects."""

    images: Tensor  # (B, 3, H, W) RGB: uint8 in 0..255, or floating point in 0..1; H, W multiples of the largest stride
    targets: list[Target]  # B of them, in the order of the images


def network_input(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return ``Batch`` images as the network takes them, in 0..1 and of ``dtype``; on whatever device they are."""
    return images.to(dtype) / 255 if images.dtype == torch.uint8 else images.to(dtype)
