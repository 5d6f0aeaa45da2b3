"""From raw head outputs to detections."""

from typing import TypedDict

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from detector.network.boxes import distances_to_boxes
from detector.network.head import BRANCHES, BranchName, RawOutput

MAX_CANDIDATES = (
    30_000  # (anchor, class) pairs of an image that NMS looks at, best first: it bounds time, untrained models too
)


class DetectionDict(TypedDict):
    """The objects found in one image, best first (torchvision's convention)."""

    boxes: Tensor  # (N, 4) x1 y1 x2 y2 in pixels of the network input
    scores: Tensor  # (N,) in 0..1
    labels: Tensor  # (N,) int64, 0..C-1


@torch.no_grad()
def decode(
    outputs: RawOutput,
    branch: BranchName = "one2one",
    score_threshold: float = 0.001,
    max_detections: int = 300,
    iou_threshold: float = 0.7,
    classes: list[int] | None = None,
) -> list[DetectionDict]:
    """Turn the raw outputs of one branch into detections, in float32 whatever the precision of the network.

    ``"one2one"`` takes the best (anchor, class) pairs as they are; ``"one2many"`` removes, class by class, boxes that
    overlap a better one by more than ``iou_threshold``, among the best ``MAX_CANDIDATES`` of an image. Scores must exceed
    ``score_threshold``. ``classes`` keeps only these labels, and is applied before anything is ranked.
    """
    boxes, scores = boxes_and_scores(outputs, branch)
    if classes is not None:
        if unknown := [label for label in classes if not 0 <= label < scores.shape[2]]:
            raise ValueError(f"classes has the labels {unknown}; this detector's are 0 to {scores.shape[2] - 1}")
        hidden = torch.ones(scores.shape[2], dtype=torch.bool, device=scores.device)
        hidden[classes] = False
        scores = scores.masked_fill(hidden, -1.0)
    if branch == "one2one":
        return _top_k(boxes, scores, score_threshold, max_detections)
    return [_suppress(b, s, score_threshold, max_detections, iou_threshold) for b, s in zip(boxes, scores)]


def boxes_and_scores(outputs: RawOutput, branch: BranchName) -> tuple[Tensor, Tensor]:
    """Return what one branch says of every anchor: boxes (B, A, 4) in pixels of the network input, scores (B, A, C)."""
    if branch not in outputs:
        present = ", ".join(name for name in BRANCHES if name in outputs)
        raise ValueError(f"branch {branch!r} is not in the outputs, which have: {present}")
    raw = outputs[branch]
    points, strides = outputs["points"].float(), outputs["strides"].float()
    boxes = distances_to_boxes(raw["boxes"].float().transpose(1, 2), points) * strides[:, None]  # (B, A, 4)
    scores = raw["scores"].float().sigmoid().transpose(1, 2)  # (B, A, C)
    return boxes, scores


def top_pairs(boxes: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes (B, k, 4), scores (B, k) and labels (B, k) of the best (anchor, class) pairs, best first.

    They are pairs of the ``k`` anchors with the highest best-class scores; ``k`` is at most A.
    """
    anchors = scores.amax(dim=2).topk(k, dim=1).indices  # (B, k)
    boxes = boxes.gather(1, anchors[..., None].expand(-1, -1, 4))
    scores = scores.gather(1, anchors[..., None].expand(-1, -1, scores.shape[2]))  # (B, k, C)
    best, pairs = scores.flatten(1).topk(k, dim=1)
    rows, labels = pairs // scores.shape[2], pairs % scores.shape[2]
    return boxes.gather(1, rows[..., None].expand(-1, -1, 4)), best, labels


def _top_k(boxes: Tensor, scores: Tensor, score_threshold: float, max_detections: int) -> list[DetectionDict]:
    """Return the best (anchor, class) pairs of each image whose scores exceed ``score_threshold``."""
    boxes, best, labels = top_pairs(boxes, scores, min(max_detections, scores.shape[1]))
    counts = (best > score_threshold).sum(dim=1).tolist()  # best first, so they are the first ones
    return [
        {"boxes": b[:n], "scores": s[:n], "labels": c[:n]} for b, s, c, n in zip(boxes, best, labels, counts, strict=True)
    ]


def _suppress(
    boxes: Tensor, scores: Tensor, score_threshold: float, max_detections: int, iou_threshold: float
) -> DetectionDict:
    """Class-aware NMS over one image: ``boxes`` (A, 4), ``scores`` (A, C); every class of an anchor counts."""
    anchors, labels = (scores > score_threshold).nonzero(as_tuple=True)
    scores = scores[anchors, labels]
    if len(scores) > MAX_CANDIDATES:
        scores, best = scores.topk(MAX_CANDIDATES)
        anchors, labels = anchors[best], labels[best]
    boxes = boxes[anchors]
    keep = batched_nms(boxes, scores, labels, iou_threshold)[:max_detections]
    return {"boxes": boxes[keep], "scores": scores[keep], "labels": labels[keep]}
