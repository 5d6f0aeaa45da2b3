"""Decoding: raw outputs of the head -> detections."""

from collections.abc import Iterable
from typing import TypedDict

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from detector.arguments import as_number, as_whole_number, shown
from detector.network.boxes import distances_to_boxes
from detector.network.head import BRANCHES, BranchName, RawOutput

# At most this many (anchor, class) pairs of an image, the best ones, go into NMS. It bounds the time: with an untrained
# network nearly all pairs exceed the score threshold.
MAX_CANDIDATES = 30_000
DEFAULT_IOU_THRESHOLD = 0.7  # of NMS


class DetectionDict(TypedDict):
    """The detections of one image, best first, with the keys that torchvision uses."""

    boxes: Tensor  # (N, 4) x1 y1 x2 y2 in pixels of the network input
    scores: Tensor  # (N,) in 0..1
    labels: Tensor  # (N,) int64, 0..C-1


@torch.no_grad()
def decode(
    outputs: RawOutput,
    branch: BranchName = "one2one",
    score_threshold: float = 0.001,
    max_detections: int = 300,
    iou_threshold: float | None = None,
    classes: list[int] | None = None,
) -> list[DetectionDict]:
    """Turn the raw outputs of one branch into detections, in float32 whatever the precision of the network.

    Args:
        outputs: what ``Detector.forward`` returns for B images.
        branch: ``"one2one"`` takes the best (anchor, class) pairs as they are. ``"one2many"`` applies NMS to the best
            ``MAX_CANDIDATES`` pairs: of boxes of one class that overlap, it keeps the best.
        score_threshold: scores must be above it.
        max_detections: how many detections an image has at most.
        iou_threshold: boxes overlap, for NMS, if their IoU is above it (default 0.7). Only for ``"one2many"``.
        classes: labels to detect, all by default. Others are left out before anything is ranked.

    Returns a dict for each of the B images. Raises ValueError for a missing branch, unknown labels, and settings outside of
    their limits.
    """
    check_settings(score_threshold, max_detections, iou_threshold, branch)
    boxes, scores = boxes_and_scores(outputs, branch)
    if classes is not None:
        if isinstance(classes, str) or not isinstance(classes, Iterable):
            raise ValueError(f"classes is {shown(classes)}; expected a list of labels, e.g. [0]")
        classes = [as_whole_number(label, "a label of classes", 0) for label in classes]
        if unknown := [label for label in classes if not 0 <= label < scores.shape[2]]:
            raise ValueError(f"classes has the labels {unknown}; this detector's are 0 to {scores.shape[2] - 1}")
        excluded = torch.ones(scores.shape[2], dtype=torch.bool, device=scores.device)
        excluded[classes] = False
        scores = scores.masked_fill(excluded, -1.0)
    if branch == "one2one":
        return _without_nms(boxes, scores, score_threshold, max_detections)
    iou_threshold = DEFAULT_IOU_THRESHOLD if iou_threshold is None else iou_threshold
    return [_with_nms(b, s, score_threshold, max_detections, iou_threshold) for b, s in zip(boxes, scores)]


def check_settings(score_threshold: float, max_detections: int, iou_threshold: float | None, branch: BranchName) -> None:
    """Raise ValueError, with name and value, for a setting of ``decode`` that is no number or outside of its limits.

    An ``iou_threshold`` for the branch without NMS is refused, too: it would have no effect.
    """
    as_number(score_threshold, "score_threshold")
    as_whole_number(max_detections, "max_detections")
    if iou_threshold is None:
        return
    as_number(iou_threshold, "iou_threshold")
    if branch == "one2one":
        raise ValueError(
            f"iou_threshold is {iou_threshold}, but it is of NMS, which the branch one2one does not use; choose the branch "
            "one2many, or leave it out"
        )


def boxes_and_scores(outputs: RawOutput, branch: BranchName) -> tuple[Tensor, Tensor]:
    """Return boxes (B, A, 4) in pixels of the network input and scores (B, A, C) in 0..1 of one branch, for every anchor."""
    if branch not in outputs:
        present = ", ".join(name for name in BRANCHES if name in outputs)
        raise ValueError(f"branch {branch!r} is not in the outputs, which have: {present}")
    raw = outputs[branch]
    points, strides = outputs["points"].float(), outputs["strides"].float()
    boxes = distances_to_boxes(raw["boxes"].float().transpose(1, 2), points) * strides[:, None]  # (B, A, 4)
    scores = raw["scores"].float().sigmoid().transpose(1, 2)  # (B, A, C)
    return boxes, scores


def top_pairs(boxes: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes (B, k, 4), scores (B, k) and labels (B, k) of the ``k`` best (anchor, class) pairs, best first.

    ``boxes`` are (B, A, 4), ``scores`` (B, A, C), and ``k`` is at most A. Only pairs of the ``k`` anchors with the highest
    best-class scores are taken.
    """
    anchors = scores.amax(dim=2).topk(k, dim=1).indices  # (B, k)
    boxes = boxes.gather(1, anchors[..., None].expand(-1, -1, 4))
    scores = scores.gather(1, anchors[..., None].expand(-1, -1, scores.shape[2]))  # (B, k, C)
    best, pairs = scores.flatten(1).topk(k, dim=1)
    rows, labels = pairs // scores.shape[2], pairs % scores.shape[2]
    return boxes.gather(1, rows[..., None].expand(-1, -1, 4)), best, labels


def _without_nms(boxes: Tensor, scores: Tensor, score_threshold: float, max_detections: int) -> list[DetectionDict]:
    """Return the best (anchor, class) pairs of each image whose scores exceed ``score_threshold``."""
    boxes, best, labels = top_pairs(boxes, scores, min(max_detections, scores.shape[1]))
    counts = (best > score_threshold).sum(dim=1).tolist()  # of each image: the pairs are sorted, so these are the first
    per_image = zip(boxes, best, labels, counts, strict=True)
    return [{"boxes": b[:count], "scores": s[:count], "labels": c[:count]} for b, s, c, count in per_image]


def _with_nms(
    boxes: Tensor, scores: Tensor, score_threshold: float, max_detections: int, iou_threshold: float
) -> DetectionDict:
    """Apply NMS to one image, class by class: ``boxes`` (A, 4), ``scores`` (A, C). An anchor may have several classes."""
    anchors, labels = (scores > score_threshold).nonzero(as_tuple=True)
    scores = scores[anchors, labels]
    if len(scores) > MAX_CANDIDATES:
        scores, best = scores.topk(MAX_CANDIDATES)
        anchors, labels = anchors[best], labels[best]
    boxes = boxes[anchors]
    keep = batched_nms(boxes, scores, labels, iou_threshold)[:max_detections]
    return {"boxes": boxes[keep], "scores": scores[keep], "labels": labels[keep]}
