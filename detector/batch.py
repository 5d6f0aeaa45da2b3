"""The contract between data and detector: batches, sizes and boxes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor

Size = tuple[int, int]  # (height, width) in pixels
Boxes = TypeVar("Boxes", np.ndarray, Tensor)


class Letterbox(NamedTuple):
    """Placement of an image on the network input: resized to ``(height, width)``, then padded by ``top`` and ``left``.

    All values are whole pixels; ``original_height`` and ``original_width`` are the size of the image as stored.
    """

    original_height: int
    original_width: int
    height: int
    width: int
    top: int
    left: int


class Tile(NamedTuple):
    """A part of an image, in whole pixels."""

    x: int  # of the left edge in the image
    y: int  # of the upper edge
    width: int
    height: int
    image_height: int
    image_width: int
    longer_than: float = 0.0  # pixels: only longer objects are taken from it, as other tiles show the shorter ones better

    @property
    def is_whole(self) -> bool:
        """True for the whole image."""
        return (self.height, self.width) == (self.image_height, self.image_width)


class Target(TypedDict):
    """The objects of one image."""

    boxes: Tensor  # (N, 4) float32, x1 y1 x2 y2 in pixels of the network input; N may be 0
    labels: Tensor  # (N,) int64, 0..C-1
    image_id: NotRequired[int | str]  # the id in the annotation file, needed for evaluation
    letterbox: NotRequired[Letterbox]  # needed to map detections back to the image, for evaluation
    tile: NotRequired[Tile]  # if it is a part of an image: ``letterbox`` is that of the part


class Batch(TypedDict):
    """The images of one step, and their objects."""

    images: Tensor  # (B, 3, H, W) RGB: uint8 in 0..255, or floating point in 0..1; H, W multiples of the largest stride
    targets: list[Target]  # one for each image, in the same order


class ClassBatch(TypedDict):
    """The images of one step of pre-training, each with its class, or with two classes that were mixed."""

    images: Tensor  # (B, 3, H, W) RGB: uint8 in 0..255, or floating point in 0..1
    labels: Tensor  # (B,) int64, 0..C-1
    other_labels: Tensor  # (B,) int64: class of the image that was mixed in; equal to ``labels`` without mixing
    shares: Tensor  # (B,) float32 in 0..1: share of ``labels`` in the target; 1 without mixing
    indices: Tensor  # (B,) int64: number of the image in its split, for evaluation


def num_images(batch: Batch | ClassBatch) -> int:
    """Return the number of images of a batch: of its targets, or of its labels."""
    content: Mapping[str, Any] = batch
    return len(content["targets"] if "targets" in content else content["labels"])


def network_input(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Convert the images of a ``Batch`` for the network: to 0..1 and to ``dtype``, on the same device."""
    return images.to(dtype) / 255 if images.dtype == torch.uint8 else images.to(dtype)


def images_of(batch: Any) -> Tensor | list[Tensor]:
    """Return the images in a ``batch`` of any dataloader, as they are.

    A batch is a ``Batch`` or another dict with "images", a tuple or list that begins with the images, or the images
    themselves: a tensor (B, C, H, W), or, as torchvision's detectors take them, a list of tensors (C, H, W) within a tuple.

    Raises ValueError for anything else.
    """
    images = batch["images"] if isinstance(batch, Mapping) and "images" in batch else batch
    if isinstance(images, list | tuple) and images and images is batch:
        images = images[0]
    if isinstance(images, Tensor) and images.ndim == 4:
        return images
    if isinstance(images, list | tuple) and images and all(isinstance(image, Tensor) for image in images):
        return list(images)
    found = f"a dict with {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
    found += f" of shape {tuple(images.shape)}" if isinstance(images, Tensor) else ""
    raise ValueError(
        f"a batch of the dataloader is {found}; expected images (B, C, H, W), a tuple that begins with them, or a dict that "
        'has them as "images"'
    )


def any_network_input(batch: Any, device: torch.device, dtype: torch.dtype) -> Tensor | list[Tensor]:
    """Convert the ``images_of`` a batch as ``network_input`` does, and move them to ``device``."""
    images = images_of(batch)
    if isinstance(images, Tensor):
        return network_input(images.to(device), dtype)
    return [network_input(image.to(device), dtype) for image in images]


def as_size(value: int | Sequence[int], name: str = "image_size") -> Size:
    """Return (height, width) for ``value``, which is one side or (height, width), in pixels.

    Raises ValueError for anything else; ``name`` is the name of ``value`` in the message.
    """
    sides = value if isinstance(value, list | tuple) else (value, value)
    is_size = len(sides) == 2 and all(isinstance(side, int | np.integer) and not isinstance(side, bool) for side in sides)
    if is_size and min(sides) > 0:
        return int(sides[0]), int(sides[1])
    raise ValueError(f"{name} is {value!r}; expected one side, or height and width: whole numbers of pixels, above 0")


def xywh_to_xyxy(boxes: Boxes) -> Boxes:
    """Convert ``boxes`` (..., 4) from x y width height, with x y the top left corner, to x1 y1 x2 y2."""
    top_left, sides = boxes[..., :2], boxes[..., 2:]
    return _concatenate(top_left, top_left + sides)


def xyxy_to_xywh(boxes: Boxes) -> Boxes:
    """Convert ``boxes`` (..., 4) from x1 y1 x2 y2 to x y width height, with x y the top left corner."""
    top_left, bottom_right = boxes[..., :2], boxes[..., 2:]
    return _concatenate(top_left, bottom_right - top_left)


def _concatenate(first: Boxes, second: Boxes) -> Boxes:
    return torch.cat((first, second), -1) if isinstance(first, Tensor) else np.concatenate((first, second), -1)
