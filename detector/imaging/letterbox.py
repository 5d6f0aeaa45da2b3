"""Resize and pad images to the network input, and map boxes there and back. The only implementation in the project."""

import cv2
import numpy as np
from torch import Tensor

from detector.batch import Letterbox, Size

GRAY = 114  # the padding value, on all three channels


def fit_letterbox(original: Size, size: Size, scale_up: bool = True) -> Letterbox:
    """Return the placement of an image of ``original`` (height, width) on a canvas of ``size`` (height, width).

    The aspect ratio is kept up to whole pixels and the image is centered; an odd pixel of padding goes to the bottom or
    right. With ``scale_up=False`` smaller images keep their size.
    """
    ratio = min(size[0] / original[0], size[1] / original[1])
    if not scale_up:
        ratio = min(ratio, 1.0)
    height, width = max(round(original[0] * ratio), 1), max(round(original[1] * ratio), 1)
    return Letterbox(*original, height, width, (size[0] - height) // 2, (size[1] - width) // 2)


def letterbox(image: np.ndarray, size: Size, scale_up: bool = True) -> tuple[np.ndarray, Letterbox]:
    """Resize ``image`` (H, W, 3) uint8 bilinearly and pad it with gray to ``size``; see ``fit_letterbox``.

    Returns the canvas (height, width, 3) uint8 and the placement of the image on it.
    """
    placement = fit_letterbox(image.shape[:2], size, scale_up)
    if (placement.height, placement.width) != image.shape[:2]:
        image = cv2.resize(image, (placement.width, placement.height), interpolation=cv2.INTER_LINEAR)
    canvas = np.full((*size, 3), GRAY, dtype=np.uint8)
    bottom, right = placement.top + placement.height, placement.left + placement.width
    canvas[placement.top : bottom, placement.left : right] = image
    return canvas, placement


def to_canvas(boxes: np.ndarray, placement: Letterbox) -> np.ndarray:
    """Map ``boxes`` (N, 4) x1 y1 x2 y2 from pixels of the image to pixels of the canvas, same dtype."""
    scale_x, scale_y = placement.width / placement.original_width, placement.height / placement.original_height
    scale = np.array([scale_x, scale_y, scale_x, scale_y], dtype=boxes.dtype)
    shift = np.array([placement.left, placement.top, placement.left, placement.top], dtype=boxes.dtype)
    return boxes * scale + shift


def to_original(boxes: Tensor, placement: Letterbox) -> Tensor:
    """Map ``boxes`` (N, 4) x1 y1 x2 y2 from pixels of the canvas back to pixels of the image, clipped to it."""
    scale_x, scale_y = placement.original_width / placement.width, placement.original_height / placement.height
    shift = boxes.new_tensor([placement.left, placement.top, placement.left, placement.top])
    boxes = (boxes - shift) * boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])
    limit = boxes.new_tensor([placement.original_width, placement.original_height] * 2)
    return boxes.clamp(min=0).minimum(limit)
