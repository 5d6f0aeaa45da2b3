"""Precision, recall and F1 by score threshold, and the threshold of the best F1."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO

from detector.evaluation.coco_files import score_step
from detector.evaluation.pairs import Pairs
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


def best_operating_point(coco: COCO, pairs: Pairs, scores: np.ndarray, image_ids: Iterable[int]) -> OperatingPoint | None:
    """Return the point of the highest F1 of all classes together; None if no detection is right.

    ``pairs`` are those of detections with ``scores`` (N,) and objects of the images ``image_ids``, see ``read_pairs``. Every
    object counts alike; crowds do not count.
    """
    (counted, matches), evaluated = pairs, set(image_ids)
    num_objects = sum(a["image_id"] in evaluated and not a["iscrowd"] for a in coco.dataset["annotations"])
    return threshold_curve(scores[counted], matches[counted] >= 0, num_objects).best()
