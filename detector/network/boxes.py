"""Boxes as tensors: formats, overlaps, anchor points. Pure functions.

Boxes are x1 y1 x2 y2, in pixels of the network input unless the name says otherwise.
"""

import math

import torch
from torch import Tensor

EPS = 1e-7


def anchor_points(shapes: list[tuple[int, int]], strides: list[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cell centers (A, 2) x y in cells of their own level, and the stride of each (A,) in pixels.

    ``shapes`` are (height, width) of the levels' maps, finest first; ``like`` gives the device, and the precision unless
    that is below float32: bfloat16 cannot tell the centers of neighboring cells apart from the 128th on.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    points, pixels = [], []
    for (height, width), stride in zip(shapes, strides):
        x = torch.arange(width, device=like.device, dtype=dtype) + 0.5
        y = torch.arange(height, device=like.device, dtype=dtype) + 0.5
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        points.append(torch.stack((grid_x, grid_y), dim=-1).view(-1, 2))
        pixels.append(torch.full((height * width,), stride, device=like.device, dtype=dtype))
    return torch.cat(points), torch.cat(pixels)


def distances_to_boxes(distances: Tensor, points: Tensor) -> Tensor:
    """Return boxes (..., 4) from ``distances`` (..., 4) left top right bottom of ``points`` (..., 2), all in one unit."""
    left_top, right_bottom = distances.chunk(2, dim=-1)
    return torch.cat((points - left_top, points + right_bottom), dim=-1)


def boxes_to_distances(boxes: Tensor, points: Tensor) -> Tensor:
    """Return left, top, right, bottom distances (..., 4) of ``points`` (..., 2) to the sides of ``boxes`` (..., 4)."""
    return torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), dim=-1)


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the overlap (...) of ``a`` (..., 4) with ``b`` (..., 4), pair by pair, in 0..1."""
    return _overlap(a, b)[0]


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return CIoU (...) of ``a`` (..., 4) with ``b`` (..., 4), pair by pair (arXiv:1911.08287, equations 8-11).

    IoU less a penalty for distant centers and one for different aspect ratios: at most 1, and may be negative. The weight
    of the aspect penalty is a constant to the gradient.
    """
    iou, (a_w, a_h), (b_w, b_h) = _overlap(a, b)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    diagonal = hull.square().sum(dim=-1) + EPS
    distance = (b[..., :2] + b[..., 2:] - a[..., :2] - a[..., 2:]).square().sum(dim=-1) / 4
    aspect = (4 / math.pi**2) * (torch.atan(b_w / b_h) - torch.atan(a_w / a_h)).square()
    with torch.no_grad():
        weight = aspect / (aspect - iou + (1 + EPS))
    return iou - (distance / diagonal + aspect * weight)


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return IoU (...) and the width and height of ``a`` and of ``b``; heights are kept off zero."""
    a_w, a_h = (a[..., 2:] - a[..., :2]).unbind(dim=-1)
    b_w, b_h = (b[..., 2:] - b[..., :2]).unbind(dim=-1)
    a_h, b_h = a_h + EPS, b_h + EPS
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    intersection = sides.clamp(min=0).prod(dim=-1)
    union = a_w * a_h + b_w * b_h - intersection + EPS
    return intersection / union, (a_w, a_h), (b_w, b_h)
