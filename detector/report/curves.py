"""Precision and recall: pycocotools' curves, and at every score threshold."""

from dataclasses import dataclass

import numpy as np
from pycocotools.cocoeval import COCOeval

from detector.evaluation.coco_eval import MAX_DETECTIONS, mean_ap
from detector.report.matching import Matching


@dataclass(frozen=True)
class ThresholdCurve:
    """Precision and recall of the detections from a score on, for each of T scores, descending. T may be 0."""

    thresholds: np.ndarray  # (T,)
    true: np.ndarray  # (T,) shown detections that are paired with an object
    shown: np.ndarray  # (T,) shown detections
    num_objects: int

    @property
    def precision(self) -> np.ndarray:
        return self.true / np.maximum(self.shown, 1)

    @property
    def recall(self) -> np.ndarray:
        return self.true / max(self.num_objects, 1)

    @property
    def f1(self) -> np.ndarray:
        return 2 * self.true / np.maximum(self.shown + self.num_objects, 1)

    def at(self, threshold: float) -> "Point":
        """Return the point of detections with scores of at least ``threshold``."""
        n = int((self.thresholds >= threshold).sum()) - 1
        if n < 0:
            return Point(threshold, 0.0, 0.0, 0.0)
        return Point(threshold, float(self.precision[n]), float(self.recall[n]), float(self.f1[n]))

    def best(self) -> "Point | None":
        """Return the point of the highest F1, its threshold rounded down to 0.001; None if no detection is right."""
        if not len(self.true) or not self.true[-1]:
            return None
        return self.at(np.floor(self.thresholds[self.f1.argmax()] * 1000 + 1e-9) / 1000)


@dataclass(frozen=True)
class Point:
    """A score threshold and its precision, recall and F1."""

    threshold: float
    precision: float
    recall: float
    f1: float


def threshold_curve(scores: np.ndarray, right: np.ndarray, num_objects: int) -> ThresholdCurve:
    """Return the curve of detections with ``scores`` (N,); those in ``right`` (N,) bool are paired with an object."""
    order = np.argsort(-scores, kind="stable")
    scores, true = scores[order], np.cumsum(right[order])
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.empty(0, int)
    return ThresholdCurve(scores[last], true[last], last + 1, num_objects)


def class_curve(matching: Matching, label: int | None = None) -> ThresholdCurve:
    """Return the curve of one class, or with None of all classes together: every object counts alike."""
    chosen = matching.counted if label is None else matching.counted & (matching.det_classes == label)
    objects = ~matching.crowds if label is None else ~matching.crowds & (matching.obj_classes == label)
    return threshold_curve(matching.scores[chosen], matching.matches[chosen] >= 0, int(objects.sum()))


def precision_recall(coco_eval: COCOeval, iou: float | None) -> np.ndarray:
    """Return pycocotools' precision (101, C) at recall 0, 0.01 ... 1, for the IoU threshold ``iou`` or the mean of all.

    The mean of a column is the AP of its class. Classes without objects are NaN.
    """
    precision = coco_eval.eval["precision"][:, :, :, 0, MAX_DETECTIONS.index(100)]
    chosen = precision.mean(axis=0) if iou is None else precision[np.abs(coco_eval.params.iouThrs - iou).argmin()]
    return np.where(chosen < 0, np.nan, chosen)


def ap_by_limit(coco_eval: COCOeval) -> dict[int, tuple[float, float]]:
    """Return AP and AR for every limit of 100 and more detections per image and class in ``coco_eval``."""
    precision, recall = coco_eval.eval["precision"], coco_eval.eval["recall"]
    numbers = {limit: n for n, limit in enumerate(coco_eval.params.maxDets) if limit >= 100}
    return {limit: (mean_ap(precision[:, :, :, 0, n]), mean_ap(recall[:, :, 0, n])) for limit, n in numbers.items()}
