"""What the predictions of a run are worth: everything the page shows, computed once."""

import time
from dataclasses import dataclass
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.coco_eval import MAX_DETECTIONS, CocoResult, category_names, coco_result, run_coco_eval
from detector.evaluation.coco_files import load_ground_truth, read_predictions
from detector.report.curves import Point, ThresholdCurve, class_curve
from detector.report.matching import Matching, Mistakes, matching, mistakes

MORE_LIMITS = (300, 1000)  # detections for each image and class, for dense images
FALLBACK_THRESHOLD = 0.25  # where no detection is right, so that none is best


@dataclass(frozen=True)
class Findings:
    """Of one branch, C classes in the order of their category ids."""

    branch: str
    coco: COCO
    names: list[str]  # C
    judged: COCOeval
    result: CocoResult
    matching: Matching
    curve: ThresholdCurve  # all classes together
    best: Point | None  # its highest F1
    class_best: list[Point | None]  # C
    mistakes: Mistakes  # at the threshold of ``best``, or at the one that was asked for

    @property
    def threshold(self) -> float:
        """The score from which detections are shown."""
        return self.mistakes.threshold


def find(branch: str, predictions: Path, ground_truth: Path, threshold: float | None = None) -> Findings:
    """Judge a predictions file by a COCO annotation file; ``threshold`` of the mistakes is by default that of the best F1.

    Images of ``ground_truth`` without predictions count as seen with nothing found. Raises ValueError for predictions of
    other images or classes.
    """
    coco = load_ground_truth(ground_truth)
    detections = read_predictions(predictions)
    if unknown := sorted({int(i) for i in detections[:, 0]} - coco.imgs.keys()):
        raise ValueError(
            f"{predictions}: {len(unknown)} of its images, e.g. ids {unknown[:3]}, {'is' if len(unknown) == 1 else 'are'} "
            f"not in {ground_truth}; give the annotation file that the run was evaluated with as --ground_truth"
        )
    if len(detections) and not {int(i) for i in detections[:, 6]} & coco.cats.keys():
        raise ValueError(
            f"{predictions} and {ground_truth} have no category id in common; give the annotation file that the run was "
            f"evaluated with as --ground_truth"
        )
    started = time.perf_counter()
    judged = run_coco_eval(coco, detections, sorted(coco.imgs), (*MAX_DETECTIONS, *MORE_LIMITS))
    result = coco_result(coco, judged, len(detections), time.perf_counter() - started)
    what = matching(coco, judged, detections)
    curve = class_curve(what)
    best = curve.best()
    if threshold is None:
        threshold = FALLBACK_THRESHOLD if best is None else best.threshold
    return Findings(
        branch=branch,
        coco=coco,
        names=category_names(coco, judged.params.catIds),
        judged=judged,
        result=result,
        matching=what,
        curve=curve,
        best=best,
        class_best=[class_curve(what, k).best() for k in range(what.num_classes)],
        mistakes=mistakes(what, threshold),
    )
