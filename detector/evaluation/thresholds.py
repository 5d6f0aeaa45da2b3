"""Precision, recall and F1 by score threshold, from pycocotools' pairs of detections and objects."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from detector.evaluation.coco_files import score_step
from detector.text import round_down

BEST_F1_IOU = 0.5  # of the pairs by which a detection is right


@dataclass(frozen=True)
class OperatingPoint:
    """A score threshold, and precision, recall and F1 of the detections with higher scores."""

    threshold: float
    precision: float
    recall: float
    f1: float


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

    def at(self, threshold: float) -> OperatingPoint:
        """Return the point of detections with scores of at least ``threshold``."""
        n = int((self.thresholds >= threshold).sum()) - 1
        if n < 0:
            return OperatingPoint(threshold, 0.0, 0.0, 0.0)
        return OperatingPoint(threshold, float(self.precision[n]), float(self.recall[n]), float(self.f1[n]))

    def best(self) -> OperatingPoint | None:
        """Return the point of the highest F1; None if no detection is right.

        Its threshold lies between two scores and has as many digits as that needs: the detections with scores above it, and
        from it on, are the same.
        """
        if not len(self.true) or not self.true[-1]:
            return None
        n = int(self.f1.argmax())
        lower = self.thresholds[n + 1] if n + 1 < len(self.thresholds) else 0.0
        return self.at(separating_threshold(float(lower), float(self.thresholds[n])))


def threshold_curve(scores: np.ndarray, right: np.ndarray, num_objects: int) -> ThresholdCurve:
    """Return the curve of detections with ``scores`` (N,); those in ``right`` (N,) bool are paired with an object."""
    order = np.argsort(-scores, kind="stable")
    scores, true = scores[order], np.cumsum(right[order])
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.empty(0, int)
    return ThresholdCurve(scores[last], true[last], last + 1, num_objects)


def separating_threshold(lower: float, upper: float) -> float:
    """Return a number between two scores: ``upper`` rounded down to three significant digits, or more if ``lower`` is close.

    It also separates the scores before they were rounded to be written, see ``score_step``.
    """
    middle = (lower + upper) / 2
    low, high = min(middle, lower + score_step(lower) / 2), max(middle, upper - score_step(upper) / 2)
    for digits in range(3, 18):
        threshold = round_down(high, digits)
        if threshold >= low and lower < threshold < upper:
            return threshold
    return upper  # no number lies between them


def read_pairs(coco_eval: COCOeval, num_detections: int, iou: float) -> tuple[np.ndarray, np.ndarray]:
    """Return pycocotools' pairs at the threshold ``iou``: ``counted`` (N,) bool and ``matches`` (N,), see ``Matching``.

    N detections are rows, as in ``run_coco_eval``; a match is the row of an object in the ground truth, -1 for none.
    """
    level = int(np.argmin(np.abs(np.asarray(coco_eval.params.iouThrs) - iou)))
    assert abs(coco_eval.params.iouThrs[level] - iou) < 1e-6, iou
    limit = coco_eval.params.maxDets[2]
    counted, matches = np.zeros(num_detections, bool), np.full(num_detections, -1)
    for result in _results_of_all_sizes(coco_eval):
        if result["dtIds"]:
            rows = np.array(result["dtIds"][:limit]) - 1  # ids are rows plus 1
            ignored = result["dtIgnore"][level, :limit].astype(bool)
            counted[rows] = ~ignored
            matches[rows] = np.where(ignored, -1, result["dtMatches"][level, :limit].astype(int) - 1)
    return counted, matches


def best_operating_point(coco_eval: COCOeval, scores: np.ndarray) -> OperatingPoint | None:
    """Return the point of the highest F1 of all classes together, at IoU 0.5; None if no detection is right.

    ``scores`` (N,) are those of the detections that ``coco_eval`` has evaluated. Every object counts alike; crowds, and
    detections in them or beyond the 100 best of an image and class, do not count.
    """
    counted, matches = read_pairs(coco_eval, len(scores), BEST_F1_IOU)
    num_objects = sum(int((np.asarray(result["gtIgnore"]) == 0).sum()) for result in _results_of_all_sizes(coco_eval))
    return threshold_curve(scores[counted], matches[counted] >= 0, num_objects).best()


def _results_of_all_sizes(coco_eval: COCOeval) -> list[dict[str, Any]]:
    """Return the entries of ``evalImgs`` for objects of all sizes: one for each image and class that has anything."""
    all_sizes = coco_eval.params.areaRng[0]
    return [result for result in coco_eval.evalImgs if result is not None and result["aRng"] == all_sizes]
