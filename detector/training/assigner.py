"""Task-aligned assignment: match anchors to objects (TAL of TOOD, arXiv:2108.07755, as used by YOLO26, arXiv:2606.03748).

An object takes the anchors whose predictions already fit it best. No gradient flows through the assignment, and all of it
is float32.

Six kinds of indices meet here: pair, object, anchor, cell, taker, owner. In this example (run by the test of this file),
image 0 is empty and image 1 has two objects beside each other. There are 4 anchors per image; an object takes the best 2.

    anchor             0      1      2      3          the points are at x = 4, 12, 20, 28
    object 0      |-----------------|                  x = 0..18, class 0
    object 1            |-------------------------|    x = 6..32, class 1
    predictions   x = 0..18, 3..23, 8..32, 22..36      scores of class 0: 0.64, of class 1: 0.25

    pair               0      1      2      3      4   an object and an anchor whose point lies inside its box
    object             0      0      1      1      1
    anchor             0      1      1      2      3
    overlap         1.00   0.63   0.55   0.92   0.23   CIoU of prediction and object
    metric          0.80   0.05   0.01   0.31   0.00   score**0.5 * overlap**6
    taken            yes    yes    yes    yes     no   the two best metrics of each object

    cell               0      1      2      3      4      5      6      7     image * 4 + anchor
    takers             -      -      -      -      0   0, 1      1      -     the objects that take the cell
    owner              -      -      -      -      0      0      1      -     object 0 overlaps cell 5 more

    matches         image 1, 1, 1   anchor 0, 1, 2   object 0, 0, 1   weight 1.00, 0.06, 0.92
    one per object  image 1, 1      anchor 0, 2      object 0, 1      weight 1.00, 0.92
"""

from typing import NamedTuple

import torch
from torch import Tensor

from detector.network.boxes import complete_iou


class FlatTargets(NamedTuple):
    """The objects of a batch in one list, ordered by image; N may be 0."""

    boxes: Tensor  # (N, 4) float32, x1 y1 x2 y2 in pixels of the network input
    labels: Tensor  # (N,) int64
    image_per_object: Tensor  # (N,) int64, index in the batch, ascending


class Matches(NamedTuple):
    """The P positive anchors of a batch, ordered by image and anchor. Each anchor of an image has at most one object."""

    image: Tensor  # (P,) int64, index in the batch
    anchor: Tensor  # (P,) int64
    object: Tensor  # (P,) int64, index into FlatTargets
    weight: Tensor  # (P,) float32 in 0..1, the target score for the class of the object


class Pairs(NamedTuple):
    """The K candidate pairs of an object and an anchor, ordered by object and anchor."""

    object: Tensor  # (K,) int64
    anchor: Tensor  # (K,) int64
    cell: Tensor  # (K,) int64, image * A + anchor
    overlap: Tensor  # (K,) float32, CIoU of the anchor's predicted box with the object, at least 0
    metric: Tensor  # (K,) float32, score**0.5 * overlap**6


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
    """Match the predictions of one branch to objects.

    Args:
        scores: (B, C, A) predicted logits.
        boxes: (B, A, 4) predicted x1 y1 x2 y2 in pixels.
        points: (A, 2) x y of the anchors in pixels.
        objects: the N objects of the batch.
        top_k: each object takes at most as many anchors, those of the highest metric above 0.
        min_side: shorter sides of an object count as this many pixels when points inside it are searched.
        one_per_object: keep only the anchor with the highest metric of each object.

    Returns:
        Matches. Every (image, anchor) appears at most once, and with ``one_per_object`` every object, too. An anchor that
        several objects take goes to the object that it overlaps most. The weights of an object's anchors are
        proportional to their metrics; the largest is the object's highest overlap.
    """
    pairs = _candidate_pairs(scores.float(), boxes.float(), points.float(), objects, min_side)
    num_images, num_objects, num_anchors = len(boxes), len(objects.boxes), len(points)
    overlaps = pairs.overlap.new_zeros(num_objects, num_anchors).index_put((pairs.object, pairs.anchor), pairs.overlap)
    metrics = pairs.metric.new_zeros(num_objects, num_anchors).index_put((pairs.object, pairs.anchor), pairs.metric)

    owner_per_cell = _owner_per_cell(pairs, metrics, objects.image_per_object, top_k, num_images * num_anchors)
    cell = (owner_per_cell >= 0).nonzero(as_tuple=True)[0]
    owner, anchor = owner_per_cell[cell], cell % num_anchors
    metric, overlap = metrics[owner, anchor], overlaps[owner, anchor]
    best_metric_per_object = _max_per_group(owner, metric, num_objects)
    if one_per_object:
        best = _first_per_group(owner, metric == best_metric_per_object[owner], num_objects)
        cell, owner, anchor, metric, overlap = (x[best] for x in (cell, owner, anchor, metric, overlap))
    best_overlap_per_object = _max_per_group(owner, overlap, num_objects)
    weight = metric * best_overlap_per_object[owner] / (best_metric_per_object[owner] + 1e-9)
    return Matches(cell // num_anchors, anchor, owner, weight)


def _candidate_pairs(scores: Tensor, boxes: Tensor, points: Tensor, objects: FlatTargets, min_side: float | Tensor) -> Pairs:
    """Return every pair of an object and an anchor whose point lies inside the object, enlarged to ``min_side``."""
    obj, anchor = _points_inside(points, objects.boxes, min_side).nonzero(as_tuple=True)
    image = objects.image_per_object[obj]
    overlap = complete_iou(boxes[image, anchor], objects.boxes[obj]).clamp(min=0)
    metric = scores[image, objects.labels[obj], anchor].sigmoid().sqrt() * overlap.pow(6)
    return Pairs(obj, anchor, image * len(points) + anchor, overlap, metric)


def _points_inside(points: Tensor, boxes: Tensor, min_side: float | Tensor) -> Tensor:
    """Return (N, A), True if the point lies strictly inside the box, whose short sides are lengthened to ``min_side``."""
    centers, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    short = sides < min_side
    low = torch.where(short, centers - min_side / 2, boxes[:, :2])[:, None]
    high = torch.where(short, centers + min_side / 2, boxes[:, 2:])[:, None]
    return ((points > low) & (points < high)).all(dim=2)


def _owner_per_cell(pairs: Pairs, metrics: Tensor, image_per_object: Tensor, top_k: int, num_cells: int) -> Tensor:
    """Return (num_cells,), the object that owns each cell, or -1. ``metrics`` is (N, A), 0 where there is no pair.

    The owner is the only taker of a cell. A cell with several takers goes to the object that it overlaps most.
    """
    num_objects, num_anchors = metrics.shape
    metrics_per_object, anchors_per_object = metrics.topk(min(top_k, num_anchors), dim=1)  # (N, top_k)
    taker, rank = (metrics_per_object > 0).nonzero(as_tuple=True)
    cell = image_per_object[taker] * num_anchors + anchors_per_object[taker, rank]

    num_takers_per_cell = cell.new_zeros(num_cells).index_add(0, cell, torch.ones_like(cell))
    taker_per_cell = torch.full_like(num_takers_per_cell, -1).index_put((cell,), taker)
    # For each cell, the object of highest overlap among all its pairs: the first on ties, N without a pair
    is_highest = pairs.overlap == _max_per_group(pairs.cell, pairs.overlap, num_cells)[pairs.cell]
    closest_per_cell = _min_per_group(pairs.cell[is_highest], pairs.object[is_highest], num_cells, empty=num_objects)
    return torch.where(num_takers_per_cell > 1, closest_per_cell, taker_per_cell)


def _max_per_group(group: Tensor, values: Tensor, num_groups: int) -> Tensor:
    """Return (num_groups,), the largest of the non-negative ``values`` of each group, 0 for an empty one."""
    return values.new_zeros(num_groups).scatter_reduce(0, group, values, "amax")


def _min_per_group(group: Tensor, values: Tensor, num_groups: int, empty: int) -> Tensor:
    """Return (num_groups,), the smallest of the ``values`` of each group; ``empty``, above all values, for an empty one."""
    return values.new_full((num_groups,), empty).scatter_reduce(0, group, values, "amin")


def _first_per_group(group: Tensor, mask: Tensor, num_groups: int) -> Tensor:
    """Return the indices, ascending, of the first entry of each group at which ``mask`` is True."""
    index = mask.nonzero(as_tuple=True)[0]
    first = _min_per_group(group[index], index, num_groups, empty=len(group))
    return first[first < len(group)].sort().values
