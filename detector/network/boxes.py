"""Geometry of boxes as pure functions: anchor points, distances, complete IoU.

Boxes are x1 y1 x2 y2, in pixels of the network input unless the name says otherwise.
"""

import math

import torch
from torch import Tensor

EPS = 1e-7


def anchor_points(shapes: list[tuple[int, int]], strides: list[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cell centers (A, 2) x y in cells of their own level, and the stride of each (A,) in pixels.

    ``shapes`` are (height, width) of the feature maps, finest level first. ``like`` gives the device and the precision, but
    at least float32: bfloat16 rounds the centers of neighboring cells to one value from the 128th cell on.
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
    """Return the boxes (..., 4) whose sides are at ``distances`` (..., 4) left, top, right, bottom from ``points`` (..., 2).

    All values are in one unit.
    """
    left_top, right_bottom = distances.chunk(2, dim=-1)
    return torch.cat((points - left_top, points + right_bottom), dim=-1)


def boxes_to_distances(boxes: Tensor, points: Tensor) -> Tensor:
    """Return the distances (..., 4) left, top, right, bottom from ``points`` (..., 2) to the sides of ``boxes`` (..., 4)."""
    return torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), dim=-1)


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return CIoU (...) of ``a`` (..., 4) with ``b`` (..., 4), pair by pair (arXiv:1911.08287, equations 8-11).

    This is the IoU less a penalty for distant centers and one for different aspect ratios: at most 1, and may be negative.
    No gradient flows through the weight of the aspect penalty.
    """
    (a_width, a_height), (b_width, b_height) = ((x[..., 2:] - x[..., :2]).unbind(dim=-1) for x in (a, b))
    a_height, b_height = a_height + EPS, b_height + EPS  # they are divided by
    common = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    intersection = common.clamp(min=0).prod(dim=-1)
    iou = intersection / (a_width * a_height + b_width * b_height - intersection + EPS)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    diagonal = hull.square().sum(dim=-1) + EPS
    distance = (b[..., :2] + b[..., 2:] - a[..., :2] - a[..., 2:]).square().sum(dim=-1) / 4
    aspect = (4 / math.pi**2) * (torch.atan(b_width / b_height) - torch.atan(a_width / a_height)).square()
    with torch.no_grad():
        weight = aspect / (aspect - iou + (1 + EPS))
    return iou - (distance / diagonal + aspect * weight)
