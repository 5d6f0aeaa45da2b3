"""Precision and recall: pycocotools' curves, and at every score threshold."""

import numpy as np
from pycocotools.cocoeval import COCOeval

from detector.evaluation.coco_eval import MAX_DETECTIONS, mean_ap
from detector.evaluation.thresholds import ThresholdCurve, threshold_curve
from detector.report.matching import Matching


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
