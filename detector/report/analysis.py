"""All numbers of the page about the predictions of one branch, computed once."""

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from pycocotools.cocoeval import COCOeval

from detector.evaluation import Backend, CocoResult, load_ground_truth, read_predictions, run_coco_eval
from detector.evaluation.coco_eval import MAX_DETECTIONS, category_names, coco_result
from detector.evaluation.coco_files import GroundTruth
from detector.evaluation.constant_box import evaluate_constant_box, mean_boxes_of
from detector.evaluation.thresholds import OperatingPoint, ThresholdCurve, best_operating_point
from detector.report.curves import class_curve
from detector.report.errors import Errors, find_errors
from detector.report.matching import Matching, read_matching
from detector.text import plural

MORE_DETECTIONS = (300, 1000)  # for each image and class, for dense images
FALLBACK_THRESHOLD = 0.25  # where no detection is right, so that no threshold is best
GIVE_ANNOTATIONS = "give the annotation file that the run was evaluated with as --ground_truth"


@dataclass(frozen=True)
class Analysis:
    """Results of one branch; C classes in the order of their category ids."""

    branch: str
    coco: GroundTruth
    class_names: list[str]  # C
    coco_eval: COCOeval
    result: CocoResult
    matching: Matching
    curve: ThresholdCurve  # all classes together
    best: OperatingPoint | None  # its highest F1
    errors: Errors  # at the threshold of ``best``, or at the one that was asked for

    @cached_property
    def floor(self) -> CocoResult | None:
        """The result of a constant box, the mean box of the ground truth; None without objects or sizes of the images."""
        return evaluate_constant_box(self.coco, mean_boxes_of(self.coco))


def analyze(
    branch: str,
    predictions: Path,
    ground_truth: Path,
    threshold: float | None = None,
    backend: Backend = "pycocotools",
) -> Analysis:
    """Evaluate a predictions file; errors are taken at ``threshold``, by default that of the best F1.

    Images of the annotation file ``ground_truth`` without predictions count as images without detections. Raises
    ValueError for predictions of other images or classes.
    """
    coco, detections = _read(predictions, ground_truth)
    started = time.perf_counter()
    coco_eval = run_coco_eval(coco, detections, sorted(coco.imgs), (*MAX_DETECTIONS, *MORE_DETECTIONS), backend)
    matching = read_matching(coco, coco_eval, detections, backend=backend)
    best = best_operating_point(coco, (matching.counted, matching.matches), matching.scores, coco.imgs)
    result = coco_result(coco, coco_eval, len(detections), best, time.perf_counter() - started)
    curve = class_curve(matching)
    if threshold is None:
        threshold = FALLBACK_THRESHOLD if best is None else best.threshold
    names, errors = category_names(coco, coco_eval.params.catIds), find_errors(matching, threshold)
    return Analysis(branch, coco, names, coco_eval, result, matching, curve, best, errors)


def _read(predictions: Path, ground_truth: Path) -> tuple[GroundTruth, np.ndarray]:
    """Return ground truth and detections (N, 7), which belong together."""
    coco = load_ground_truth(ground_truth)
    detections = read_predictions(predictions, coco)
    if unknown := sorted({int(i) for i in detections[:, 0]} - coco.imgs.keys()):
        images = plural(len(unknown), "image is", "images are")
        examples = [coco.image_ids.id(number) for number in unknown[:3]]
        raise ValueError(f"{predictions}: {images} not in {ground_truth}, e.g. ids {examples}; {GIVE_ANNOTATIONS}")
    if len(detections) and not {int(i) for i in detections[:, 6]} & coco.cats.keys():
        raise ValueError(f"{predictions} and {ground_truth} have no category id in common; {GIVE_ANNOTATIONS}")
    return coco, detections
