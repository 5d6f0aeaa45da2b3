"""Compute the twelve COCO numbers with pycocotools; works without a trainer."""

import contextlib
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, get_args

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.coco_files import load_ground_truth
from detector.text import plural

# pycocotools' order, with its default limits of 1, 10 and 100 detections an image: the numbers everybody reports.
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
LIMITS = (1, 10, 100)  # detections for each image and class

Backend = Literal["pycocotools", "faster-coco-eval"]


@dataclass(frozen=True)
class CocoResult:
    """What an evaluation found. A number is in 0..1, or -1 where the ground truth has no object of the kind."""

    metrics: dict[str, float]  # the twelve numbers by the names in METRICS
    per_class: dict[str, float]  # AP (IoU 0.50:0.95) by class name, in the order of the category ids
    num_images: int
    num_detections: int
    seconds: float


def evaluate(
    ground_truth: COCO | Mapping[str, Any],
    detections: np.ndarray,
    image_ids: Sequence[int] | None = None,
    backend: Backend = "pycocotools",
) -> CocoResult:
    """Return pycocotools' verdict on ``detections`` (N, 7), see :func:`detection_rows`; N may be 0.

    Only ``image_ids`` count (default: every image of the ground truth), whether or not anything was found in them.
    ``backend="faster-coco-eval"``, an extra, computes them in less time. They can differ in the 16th digit: a precision of 1
    that rests on a single detection is 1 there, and 1 / (1 + 2.2e-16) in pycocotools.
    """
    started = time.perf_counter()
    coco = ground_truth if isinstance(ground_truth, COCO) else load_ground_truth(ground_truth)
    image_ids = sorted(set(coco.imgs if image_ids is None else image_ids))
    _check_image_ids(coco, {*image_ids, *(int(i) for i in np.unique(detections[:, 0]))})
    found = run_coco_eval(coco, detections, image_ids, backend=backend)
    return summary(coco, found, len(detections), time.perf_counter() - started)


def run_coco_eval(
    coco: COCO,
    detections: np.ndarray,
    image_ids: Sequence[int],
    limits: Sequence[int] = LIMITS,
    backend: Backend = "pycocotools",
) -> COCOeval:
    """Return pycocotools' evaluation of ``detections`` (N, 7), its arrays filled.

    The annotation ids of its detections are their rows, counted from 1. ``limits`` are the numbers of detections for each
    image and class that are evaluated; the first three must be those of the twelve numbers.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints at every step
        found = _reference(coco, detections) if backend == "pycocotools" else _faster(coco, detections)
        found.params.imgIds = list(image_ids)
        found.params.maxDets = list(limits)
        found.evaluate()
        found.accumulate()
        found.summarize()
    return found


def summary(coco: COCO, found: COCOeval, num_detections: int, seconds: float) -> CocoResult:
    """Return the numbers of an evaluation."""
    metrics = {name: float(value) for name, value in zip(METRICS, found.stats[: len(METRICS)], strict=True)}
    return CocoResult(metrics, class_ap(coco, found), len(found.params.imgIds), num_detections, seconds)


def _check_image_ids(coco: COCO, image_ids: set[int]) -> None:
    if unknown := sorted(image_ids - coco.imgs.keys()):
        raise ValueError(
            f"{len(unknown)} of {len(image_ids)} evaluated images {'is' if len(unknown) == 1 else 'are'} not in the ground "
            f"truth, e.g. ids {unknown[:3]}; give the annotation file these images were read from"
        )


def check_backend(backend: str) -> None:
    """Raise ValueError for a backend that is unknown or not installed."""
    if backend not in get_args(Backend):
        raise ValueError(f"backend is {backend!r}; choose one of {', '.join(get_args(Backend))}")
    if backend == "faster-coco-eval" and find_spec("faster_coco_eval") is None:
        raise ValueError("backend is 'faster-coco-eval', which is not installed: pip install faster-coco-eval")


def _reference(coco: COCO, detections: np.ndarray) -> COCOeval:
    """Return pycocotools' judge.

    ``COCO.loadRes`` would make the same of the detections, but it fails on an empty list and gives every box a polygon,
    twice the memory.
    """
    results = COCO()
    results.dataset = {**coco.dataset, "annotations": _entries(detections)}
    results.createIndex()
    return COCOeval(coco, results, "bbox")


def _faster(coco: COCO, detections: np.ndarray) -> Any:
    """Return the judge of faster-coco-eval."""
    from faster_coco_eval import COCO as FasterCOCO  # an extra
    from faster_coco_eval import COCOeval_faster

    truth, results = FasterCOCO(), FasterCOCO()
    truth.dataset, results.dataset = coco.dataset, {**coco.dataset, "annotations": _entries(detections)}
    truth.createIndex()
    results.createIndex()
    return COCOeval_faster(truth, results, "bbox", print_function=_say_nothing)


def _say_nothing(*words: Any) -> None: ...


def _entries(detections: np.ndarray) -> list[dict[str, Any]]:
    entries = []
    for number, row in enumerate(detections, start=1):
        image_id, *bbox, score, category_id = row.tolist()
        ids = {"id": number, "image_id": int(image_id), "category_id": int(category_id)}
        entries.append(ids | {"bbox": bbox, "score": score, "area": bbox[2] * bbox[3], "iscrowd": 0})
    return entries


def class_ap(coco: COCO, found: COCOeval) -> dict[str, float]:
    """Return AP by class name. A name that is used twice gets its category id beside it."""
    precision = found.eval["precision"][:, :, :, 0, LIMITS.index(100)]  # (IoU, recall, class), all areas
    names = unique_names(coco, found.params.catIds)
    return {name: mean_ap(precision[:, :, k]) for k, name in enumerate(names)}


def unique_names(coco: COCO, category_ids: Sequence[int]) -> list[str]:
    """Return the names of categories; a repeated name gets its id beside it."""
    names: list[str] = []
    for category_id in category_ids:
        name = coco.cats[category_id]["name"]
        names.append(f"{name} ({category_id})" if name in names else name)
    return names


def mean_ap(precision: np.ndarray) -> float:
    """Return the mean of a part of pycocotools' precision array, or -1 where it has no object: AP of that part."""
    values = precision[precision > -1]
    return float(values.mean()) if values.size else -1.0


def coco_table(results: Mapping[str, CocoResult]) -> str:
    """Return the twelve numbers and the AP of every class as text, one column for each entry, e.g. each branch."""
    columns = list(results)
    any_result = results[columns[0]]
    width = max([9, *(len(name) for name in any_result.per_class)])
    lines = [plural(any_result.num_images, "image").ljust(width) + "".join(f"{name:>10}" for name in columns)]
    for name, meaning in METRICS.items():
        numbers = "".join(_number(results[column].metrics[name]) for column in columns)
        lines.append(f"{name:<{width}}{numbers}   {meaning}")
    lines.append("AP of each class")
    for name in any_result.per_class:
        lines.append(f"{name:<{width}}" + "".join(_number(results[column].per_class[name]) for column in columns))
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{'none':>10}" if value < 0 else f"{value:>10.4f}"  # pycocotools' -1: no such object in the ground truth
