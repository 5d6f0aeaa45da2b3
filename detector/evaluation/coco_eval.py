"""COCO metrics of detections, computed by pycocotools.

AP (average precision) is the area under the precision-recall curve, AR (average recall) the recall at a limit of detections
for each image and class. Both are means over the classes and, unless the name has an IoU threshold, over the ten thresholds
0.50, 0.55 ... 0.95.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.backends import Backend, find_pairs, new_eval
from detector.evaluation.coco_files import GroundTruth, load_ground_truth
from detector.evaluation.ids import Id
from detector.evaluation.silence import silent
from detector.evaluation.thresholds import BEST_F1_IOU, OperatingPoint, best_operating_point
from detector.text import plural

# The order of pycocotools, with its usual limits of 1, 10 and 100 detections for each image and class.
METRICS = {
    "AP": "IoU 0.50:0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "AP_small": "area up to 32 x 32 px",
    "AP_medium": "area up to 96 x 96 px",
    "AP_large": "larger",
    "AR1": "1 detection an image",
    "AR10": "10 detections an image",
    "AR100": "100 detections an image",
    "AR_small": "area up to 32 x 32 px",
    "AR_medium": "area up to 96 x 96 px",
    "AR_large": "larger",
}
MAX_DETECTIONS = (1, 10, 100)  # for each image and class


@dataclass(frozen=True)
class CocoResult:
    """The COCO metrics of one evaluation. Each is in 0..1, or -1 if the ground truth has no object for it."""

    metrics: dict[str, float]  # twelve, with the keys of METRICS
    per_class: dict[str, float]  # AP (IoU 0.50:0.95) by class name, in the order of the category ids
    num_images: int
    num_detections: int
    seconds: float  # the time it took
    best_f1: OperatingPoint | None = None  # of all classes together, at IoU 0.5; None if no detection is right


def evaluate(
    ground_truth: COCO | Mapping[str, Any],
    detections: np.ndarray,
    image_ids: Sequence[Id] | None = None,
    backend: Backend = "pycocotools",
) -> CocoResult:
    """Compute the COCO metrics of ``detections``.

    Args:
        ground_truth: the content of a COCO annotation file, or the object that ``load_ground_truth`` returns.
        detections: (N, 7) rows as ``detection_rows`` returns them; N may be 0.
        image_ids: the images to evaluate, by the ids of the annotation file; default: all of the ground truth. The objects
            of an image without detections count as missed.
        backend: ``"ultrafast-pycocotools"``, an optional package, is many times faster; all it gives is the same to the bit.
            ``"faster-coco-eval"`` is several times faster. Its metrics are the same to 1e-12: pycocotools adds 2.2e-16 to
            some denominators.

    Raises ValueError if the ground truth lacks one of the images, and for a backend that is unknown or not installed.
    """
    started = time.perf_counter()
    coco = _as_ground_truth(ground_truth)
    images = sorted(set(coco.imgs if image_ids is None else map(coco.image_ids.number, image_ids)))
    evaluated = {*images, *(int(i) for i in np.unique(detections[:, 0]))}
    if unknown := sorted(evaluated - coco.imgs.keys()):
        raise ValueError(
            f"{len(unknown)} of {len(evaluated)} evaluated images {'is' if len(unknown) == 1 else 'are'} not in the ground "
            f"truth, e.g. ids {[coco.image_ids.id(n) for n in unknown[:3]]}; give the annotation file these images were "
            "read from"
        )
    coco_eval = run_coco_eval(coco, detections, images, backend=backend)
    pairs = find_pairs(backend, coco, coco_eval, detections, BEST_F1_IOU)
    best_f1 = best_operating_point(coco, pairs, detections[:, 5], images)
    return coco_result(coco, coco_eval, len(detections), best_f1, time.perf_counter() - started)


def _as_ground_truth(source: COCO | Mapping[str, Any]) -> GroundTruth:
    if isinstance(source, GroundTruth):
        return source
    return load_ground_truth(source.dataset if isinstance(source, COCO) else source)


def run_coco_eval(
    coco: COCO,
    detections: np.ndarray,
    image_ids: Sequence[int],
    max_detections: Sequence[int] = MAX_DETECTIONS,
    backend: Backend = "pycocotools",
) -> COCOeval:
    """Run COCOeval on ``detections`` (N, 7) and return it, with its matches and its precision and recall arrays.

    It knows each detection by its row, counted from 1. ``max_detections`` are the limits of detections for each image and
    class that recall and precision are computed for; the first three must be those of ``MAX_DETECTIONS``.
    """
    with silent():  # pycocotools prints at every step
        coco_eval = new_eval(backend, coco, detections)
        coco_eval.params.imgIds = list(image_ids)
        coco_eval.params.maxDets = list(max_detections)
        coco_eval.evaluate()
        coco_eval.accumulate()
        COCOeval.summarize(coco_eval)  # of pycocotools for every backend: faster-coco-eval's needs exactly three limits
    return coco_eval


def coco_result(
    coco: GroundTruth, coco_eval: COCOeval, num_detections: int, best_f1: OperatingPoint | None, seconds: float
) -> CocoResult:
    """Read the metrics off a COCOeval that has run."""
    metrics = {name: float(value) for name, value in zip(METRICS, coco_eval.stats[: len(METRICS)], strict=True)}
    return CocoResult(metrics, class_ap(coco, coco_eval), len(coco_eval.params.imgIds), num_detections, seconds, best_f1)


def class_ap(coco: GroundTruth, coco_eval: COCOeval) -> dict[str, float]:
    """Return the AP (IoU 0.50:0.95) of every class, by the names of ``category_names``."""
    precision = coco_eval.eval["precision"][:, :, :, 0, MAX_DETECTIONS.index(100)]  # (IoU, recall, class), all areas
    names = category_names(coco, coco_eval.params.catIds)
    return {name: mean_ap(precision[:, :, k]) for k, name in enumerate(names)}


def category_names(coco: GroundTruth, numbers: Sequence[int]) -> list[str]:
    """Return the names of the categories with these numbers; a repeated name has its id added: ``"cell (7)"``."""
    names: list[str] = []
    for number in numbers:
        name = coco.cats[number]["name"]
        names.append(f"{name} ({coco.category_ids.id(number)})" if name in names else name)
    return names


def mean_ap(precision: np.ndarray) -> float:
    """Return the mean of a part of pycocotools' precision array, which is the AP of that part; -1 if it has no object."""
    values = precision[precision > -1]
    return float(values.mean()) if values.size else -1.0


def coco_table(results: Mapping[Any, CocoResult]) -> str:
    """Return the twelve metrics and the AP of every class as text, with one column for each result, e.g. for each branch."""
    first = next(iter(results.values()))
    width = max([9, *(len(name) for name in first.per_class)])
    lines = [plural(first.num_images, "image").ljust(width) + "".join(f"{title:>10}" for title in results)]
    for name, meaning in METRICS.items():
        numbers = "".join(_cell(result.metrics[name]) for result in results.values())
        lines.append(f"{name:<{width}}{numbers}   {meaning}")
    lines.append("AP of each class")
    for name in first.per_class:
        lines.append(f"{name:<{width}}" + "".join(_cell(result.per_class[name]) for result in results.values()))
    return "\n".join(lines)


def _cell(value: float) -> str:
    return f"{'none':>10}" if value < 0 else f"{value:>10.4f}"  # -1 is pycocotools' "no such object"
