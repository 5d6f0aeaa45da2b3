"""The one resize-and-pad and its inverse, shared by training data, evaluation, prediction and export."""

import cv2
import numpy as np
from torch import Tensor

from detector.batch import Letterbox

GRAY = 114  # the padding value, on all three channels


def fit_letterbox(original: tuple[int, int], size: tuple[int, int], scale_up: bool = True) -> Letterbox:
    """Return where an image of ``original`` (height, width) lies on a canvas of ``size`` (height, width).

    The aspect ratio is kept up to whole pixels and the image is centered; an odd pixel of padding goes to the bottom or
    right. ``scale_up=False`` leaves smaller images at their size.
    """
    ratio = min(size[0] / original[0], size[1] / original[1])
    if not scale_up:
        ratio = min(ratio, 1.0)
    height, width = max(round(original[0] * ratio), 1), max(round(original[1] * ratio), 1)
    return Letterbox(*original, height, width, (size[0] - height) // 2, (size[1] - width) // 2)


def letterbox(image: np.ndarray, size: tuple[int, int], scale_up: bool = True) -> tuple[np.ndarray, Letterbox]:
    """Resize ``image`` (H, W, 3) uint8 bilinearly and pad it with gray to ``size`` (height, width)."""
    place = fit_letterbox(image.shape[:2], size, scale_up)
    if (place.height, place.width) != image.shape[:2]:
        image = cv2.resize(image, (place.width, place.height), interpolation=cv2.INTER_LINEAR)
    canvas = np.full((*size, 3), GRAY, dtype=np.uint8)
    canvas[place.top : place.top + place.height, place.left : place.left + place.width] = image
    return canvas, place


def to_canvas(boxes: np.ndarray, place: Letterbox) -> np.ndarray:
    """Map ``boxes`` (N, 4) x1 y1 x2 y2 from pixels of the image to pixels of the canvas, same dtype."""
    scale_x, scale_y = place.width / place.original_width, place.height / place.original_height
    scale = np.array([scale_x, scale_y, scale_x, scale_y], dtype=boxes.dtype)
    shift = np.array([place.left, place.top, place.left, place.top], dtype=boxes.dtype)
    return boxes * scale + shift


def to_original(boxes: Tensor, place: Letterbox) -> Tensor:
    """Map ``boxes`` (N, 4) x1 y1 x2 y2 from pixels of the canvas back to pixels of the image, clipped to it."""
    scale_x, scale_y = place.original_width / place.width, place.original_height / place.height
    shift = boxes.new_tensor([place.left, place.top, place.left, place.top])
    boxes = (boxes - shift) * boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])
    limit = boxes.new_tensor([place.original_width, place.original_height] * 2)
    return boxes.clamp(min=0).minimum(limit)
