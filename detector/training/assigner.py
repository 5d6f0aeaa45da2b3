"""Which anchor answers for which object: task-aligned assignment with room for tiny objects.

TAL (TOOD, arXiv:2108.07755) as used by YOLO26 (arXiv:2606.03748): an object takes the anchors whose predictions already
suit it best. No gradient flows through any of this, and all of it is float32.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from detector.network.boxes import complete_iou


class FlatTargets(NamedTuple):
    """The objects of a whole batch in one list, ordered by image; N may be 0."""

    boxes: Tensor  # (N, 4) float32, x1 y1 x2 y2 in pixels of the network input
    labels: Tensor  # (N,) int64
    image: Tensor  # (N,) int64, index in the batch, ascending


class Matches(NamedTuple):
    """P positive anchors, ordered by image and anchor."""

    image: Tensor  # (P,) int64
    anchor: Tensor  # (P,) int64
    object: Tensor  # (P,) int64, index into FlatTargets
    weight: Tensor  # (P,) float32, the target score at the object's class, in 0..1


@torch.no_grad()
def assign(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    objects: FlatTargets,
    top_k: int,
    min_side: float | Tensor,
    one_per_object: bool,
) -> Matches:
    """Match the predictions of one branch to ``objects``.

    ``scores`` (B, C, A) logits and ``boxes`` (B, A, 4) are the predictions, ``points`` (A, 2) the anchor points, both in
    pixels. Each object takes its ``top_k`` anchors by ``score**0.5 * CIoU**6`` among those whose point lies strictly inside
    its box; sides shorter than ``min_side`` pixels are lengthened to it for this test. ``one_per_object`` then keeps only
    the best anchor of each object.
    """
    scores, boxes = scores.float(), boxes.float()
    obj, anchor = _points_inside(points.float(), objects.boxes, min_side).nonzero(as_tuple=True)  # candidate pairs
    image = objects.image[obj]
    overlap = complete_iou(boxes[image, anchor], objects.boxes[obj]).clamp(min=0)
    metric = scores[image, objects.labels[obj], anchor].sigmoid().sqrt() * overlap.pow(6)

    num_images, num_objects, num_anchors = len(boxes), len(objects.boxes), len(points)
    overlaps = overlap.new_zeros(num_objects, num_anchors).index_put((obj, anchor), overlap)
    metrics = metric.new_zeros(num_objects, num_anchors).index_put((obj, anchor), metric)
    best, taken = metrics.topk(min(top_k, num_anchors), dim=1)
    rank = (best > 0).nonzero(as_tuple=True)
    taker, cell = rank[0], objects.image[rank[0]] * num_anchors + taken[rank]  # a cell is an anchor of one image

    # The owner of a cell is its only taker; if there are several, whichever object it overlaps most.
    num_cells = num_images * num_anchors
    num_takers = torch.zeros(num_cells, dtype=torch.int64, device=cell.device).index_add(0, cell, torch.ones_like(cell))
    owner = torch.zeros_like(num_takers).index_put((cell,), taker)
    closest = _closest_object(image * num_anchors + anchor, obj, overlap, num_cells, num_objects)
    owner = torch.where(num_takers > 1, closest, owner)

    cell = num_takers.nonzero(as_tuple=True)[0]
    owner, anchor = owner[cell], cell % num_anchors
    metric, overlap = metrics[owner, anchor], overlaps[owner, anchor]
    best_metric = _max_by(owner, metric, num_objects)
    if one_per_object:
        first = _first_by(owner, metric == best_metric[owner], num_objects)
        cell, owner, anchor, metric, overlap = (x[first] for x in (cell, owner, anchor, metric, overlap))
    best_overlap = _max_by(owner, overlap, num_objects)
    weight = metric * best_overlap[owner] / (best_metric[owner] + 1e-9)
    return Matches(cell // num_anchors, anchor, owner, weight)


def _points_inside(points: Tensor, boxes: Tensor, min_side: float | Tensor) -> Tensor:
    """Return (N, A), whether each point lies strictly inside each box after short sides are lengthened."""
    centers, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    short = sides < min_side
    low = torch.where(short, centers - min_side / 2, boxes[:, :2])[:, None]
    high = torch.where(short, centers + min_side / 2, boxes[:, 2:])[:, None]
    return ((points > low) & (points < high)).all(dim=2)


def _closest_object(cell: Tensor, obj: Tensor, overlap: Tensor, num_cells: int, num_objects: int) -> Tensor:
    """Return (num_cells,), the object of highest overlap among the candidates of each cell, the first on ties."""
    highest = _max_by(cell, overlap, num_cells)
    ties = overlap == highest[cell]
    first = torch.full((num_cells,), num_objects, dtype=torch.int64, device=cell.device)
    return first.scatter_reduce(0, cell[ties], obj[ties], "amin")


def _max_by(group: Tensor, values: Tensor, num_groups: int) -> Tensor:
    """Return (num_groups,), the largest of the non-negative ``values`` of each group, 0 for an empty one."""
    return values.new_zeros(num_groups).scatter_reduce(0, group, values, "amax")


def _first_by(group: Tensor, wanted: Tensor, num_groups: int) -> Tensor:
    """Return the indices of the first wanted entry of each group, in ascending order."""
    index = wanted.nonzero(as_tuple=True)[0]
    first = torch.full((num_groups,), len(group), dtype=torch.int64, device=group.device)
    first = first.scatter_reduce(0, group[index], index, "amin")
    return first[first < len(group)].sort().values
