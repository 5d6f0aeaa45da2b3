"""Merge the detections of several views of one image: of the image and its mirror image, or of its tiles.

Within one view all detections stay: they are distinct objects, by the promise of the NMS-free branch, or by NMS. Only boxes
of two different views can be the same object twice. So this is NMS by class between the views, and each box can stand for
at most one box of every other view. NMS over all boxes would lose objects that overlap, which the NMS-free branch tells
apart.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou

from detector.batch import Tile
from detector.network.decode import DetectionDict

# Above this IoU, boxes of two views are the same object. It is below that of NMS (0.7): two views of an object of 10 pixels
# differ by a pixel or two, which is an IoU of 0.5 to 0.7.
SAME_OBJECT = 0.5
EDGE_SHARE = 0.01  # of a tile's side: a box that ends so near to an edge may be cut off by it


class View(NamedTuple):
    """The detections in a part of an image."""

    boxes: Tensor  # (N, 4) x1 y1 x2 y2 in pixels of the whole image
    scores: Tensor  # (N,)
    labels: Tensor  # (N,)
    region: tuple[float, float, float, float]  # x1 y1 x2 y2 of the part, in the same pixels
    cut: Tensor  # (N,) bool: the box ends at an inner edge of the region, so the object may go on beyond it


def merge_flipped(
    detections: DetectionDict, mirrored: DetectionDict, width: int, max_detections: int = 300
) -> DetectionDict:
    """Merge the detections in a network input of ``width`` pixels with those in its mirror image, for either branch.

    The boxes of the mirror image are mirrored back. Of two boxes of one object the one with the higher score stays.
    """
    x1, y1, x2, y2 = mirrored["boxes"].unbind(1)
    mirrored = mirrored | {"boxes": torch.stack((width - x2, y1, width - x1, y2), dim=1)}
    everywhere = (-float("inf"), -float("inf"), float("inf"), float("inf"))
    views = [
        View(part["boxes"], part["scores"], part["labels"], everywhere, torch.zeros_like(part["labels"], dtype=torch.bool))
        for part in (detections, mirrored)
    ]
    boxes, scores, labels = merge_views(views)
    return {"boxes": boxes[:max_detections], "scores": scores[:max_detections], "labels": labels[:max_detections]}


def tile_view(boxes: Tensor, scores: Tensor, labels: Tensor, tile: Tile) -> View:
    """Return the detections in a tile as a view of its image. ``boxes`` (N, 4) are in pixels of the tile.

    Boxes that are not longer than ``tile.longer_than`` are left out. That is the overlap of tiles for the whole image, which
    the network sees reduced: shorter objects are whole in a tile, where they are larger.
    """
    height, width = tile.image_height, tile.image_width
    sides = boxes[:, 2:] - boxes[:, :2]
    if tile.longer_than:
        is_long = sides.amax(dim=1) > tile.longer_than
        boxes, scores, labels = boxes[is_long], scores[is_long], labels[is_long]
    margin_x, margin_y = max(EDGE_SHARE * tile.width, 1.0), max(EDGE_SHARE * tile.height, 1.0)
    x1, y1, x2, y2 = boxes.unbind(1)
    cut = (x1 < margin_x) & (tile.x > 0) | (x2 > tile.width - margin_x) & (tile.x + tile.width < width)
    cut |= (y1 < margin_y) & (tile.y > 0) | (y2 > tile.height - margin_y) & (tile.y + tile.height < height)
    region = (tile.x, tile.y, tile.x + tile.width, tile.y + tile.height)
    return View(boxes + boxes.new_tensor([tile.x, tile.y] * 2), scores, labels, region, cut)


def merge_views(views: Sequence[View]) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes (N, 4), scores (N,) and labels (N,) of all ``views``, each object once, best first.

    Two boxes of one class and of different views are one object if they agree in what both views see: their IoU, both
    clipped to the region of both views, is above ``SAME_OBJECT``. So a box that the edge of a tile has cut off agrees with
    the whole one, however small the part is, and a small object inside of a large one stays. Of one object

    - a whole box is taken before a cut one, then the higher score decides;
    - the score is the highest one;
    - if all boxes are cut, the box around them is taken.
    """
    boxes, scores, labels, cut = (
        torch.cat([getattr(view, name) for view in views]) for name in ("boxes", "scores", "labels", "cut")
    )
    partners = _partners(views)
    # Whole boxes first, then by score; both sorts are stable, so the first view wins if scores are equal.
    by_score = scores.argsort(descending=True, stable=True)
    order: list[int] = by_score[cut[by_score].to(torch.uint8).argsort(stable=True)].tolist()
    view_of = [number for number, view in enumerate(views) for _ in range(len(view.scores))]
    kept: list[int] = []
    done: set[int] = set()
    for leader in order:
        if leader in done:
            continue
        kept.append(leader)
        same = _same_object(leader, partners, view_of, done, chain=bool(cut[leader]))
        done.update((leader, *same))
        if same:
            scores[leader] = scores[[leader, *same]].max()
            if cut[leader]:
                group = boxes[[leader, *same]]
                boxes[leader] = torch.cat((group[:, :2].amin(0), group[:, 2:].amax(0)))
    rows = torch.tensor(kept, dtype=torch.int64, device=boxes.device)
    rows = rows[scores[rows].argsort(descending=True, stable=True)]
    return boxes[rows], scores[rows], labels[rows]


def _same_object(
    leader: int, partners: dict[int, list[tuple[float, int]]], view_of: list[int], done: set[int], chain: bool
) -> list[int]:
    """Return the boxes that are the same object as ``leader``: of each other view, the one that agrees best.

    ``chain`` adds the partners of these, and so on: the first and the last part of a long object are in tiles that do not
    overlap, and only the parts between connect them.
    """
    same: list[int] = []
    seen_in = {view_of[leader]}
    for box in (found := [leader]):  # grows with ``chain``
        for _, partner in sorted(partners.get(box, ()), reverse=True):
            if partner not in done and view_of[partner] not in seen_in:
                same.append(partner)
                seen_in.add(view_of[partner])
        found += [one for one in same if chain and one not in found]
    return same


def _partners(views: Sequence[View]) -> dict[int, list[tuple[float, int]]]:
    """Return, for each box that may be an object of another view, the IoU and the number of those boxes."""
    partners: dict[int, list[tuple[float, int]]] = {}
    starts = [0]
    for view in views:
        starts.append(starts[-1] + len(view.scores))
    for one, other, region in _common_regions(views):
        a, b = views[one], views[other]
        iou = box_iou(_clip(a.boxes, region), _clip(b.boxes, region))
        same = (iou > SAME_OBJECT) & (a.labels[:, None] == b.labels[None])  # nan, of two boxes outside, is not above
        for i, j in same.nonzero().tolist():
            first, second, overlap = starts[one] + i, starts[other] + j, iou[i, j].item()
            partners.setdefault(first, []).append((overlap, second))
            partners.setdefault(second, []).append((overlap, first))
    return partners


def _common_regions(views: Sequence[View]) -> Iterator[tuple[int, int, Tensor]]:
    """Yield the numbers of each two views that overlap and have boxes, and the region (4,) of both."""
    regions = torch.tensor([view.region for view in views], dtype=torch.float32).reshape(-1, 4)
    filled = torch.tensor([len(view.scores) > 0 for view in views], dtype=torch.bool)
    for one in filled.nonzero().flatten().tolist():
        low = torch.maximum(regions[one, :2], regions[:, :2])
        high = torch.minimum(regions[one, 2:], regions[:, 2:])
        overlapping = ((high > low).all(dim=1) & filled).nonzero().flatten().tolist()
        yield from ((one, other, torch.cat((low[other], high[other]))) for other in overlapping if other > one)


def _clip(boxes: Tensor, region: Tensor) -> Tensor:
    """Return the parts of ``boxes`` (N, 4) that lie in ``region``; boxes outside of it have no area."""
    region = region.to(boxes)
    low, high = torch.maximum(boxes[:, :2], region[:2]), torch.minimum(boxes[:, 2:], region[2:])
    return torch.cat((low, torch.maximum(low, high)), dim=1)
