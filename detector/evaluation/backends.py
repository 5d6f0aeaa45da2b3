"""The backends that evaluate: pycocotools, and optional packages that give its numbers in less time."""

import os
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.pairs import Pairs, make_pairs, read_pairs, read_ultrafast_pairs
from detector.extras import check_installed
from detector.text import unknown_name

Backend = Literal["pycocotools", "faster-coco-eval", "ultrafast-pycocotools"]
PACKAGES = {"faster-coco-eval": "faster_coco_eval", "ultrafast-pycocotools": "ultrafast_pycocotools"}  # to import


def check_backend(backend: str) -> None:
    """Raise ValueError for a backend that is unknown or not installed."""
    if backend not in get_args(Backend):
        raise ValueError(unknown_name("backend", backend, get_args(Backend)))
    if backend in PACKAGES:
        check_installed(f"backend {backend!r}", PACKAGES[backend])


def new_eval(backend: Backend, coco: COCO, detections: np.ndarray) -> Any:
    """Return the COCOeval of a backend for ``detections`` (N, 7), not run yet. It knows each by its row, counted from 1.

    Raises ValueError for a backend that is unknown or not installed.
    """
    check_backend(backend)
    makers = {"faster-coco-eval": faster_eval, "ultrafast-pycocotools": ultrafast_eval}
    return makers.get(backend, pycocotools_eval)(coco, detections)


def pycocotools_eval(coco: COCO, detections: np.ndarray) -> COCOeval:
    """Return pycocotools' COCOeval, not run yet.

    ``COCO.loadRes`` is not used: it fails on an empty list and makes a polygon of every box, which doubles the memory.
    """
    results = COCO()
    results.dataset = {**coco.dataset, "annotations": _as_annotations(detections)}
    results.createIndex()
    return COCOeval(coco, results, "bbox")


def faster_eval(coco: COCO, detections: np.ndarray) -> Any:
    """Return the COCOeval of faster-coco-eval, not run yet."""
    import faster_coco_eval  # an optional package

    truth, results = faster_coco_eval.COCO(), faster_coco_eval.COCO()
    truth.dataset, results.dataset = coco.dataset, {**coco.dataset, "annotations": _as_annotations(detections)}
    truth.createIndex()
    results.createIndex()
    return faster_coco_eval.COCOeval_faster(truth, results, "bbox", print_function=lambda *_: None)


def ultrafast_eval(coco: COCO, detections: np.ndarray) -> Any:
    """Return the COCOeval of ultrafast-pycocotools, not run yet. It reads the rows of ``detections`` as they are.

    Raises ValueError in a process that was forked from one that has used it.
    """
    import ultrafast_pycocotools  # an optional package

    if _process_with_threads() != os.getpid():
        raise ValueError(
            "this process was forked from one that has evaluated with the backend 'ultrafast-pycocotools'; it lacks the "
            "threads of that backend and would wait for ever: start it with 'spawn', or use the backend 'pycocotools'"
        )
    truth = ultrafast_pycocotools.COCO(verbose=False)
    truth.dataset = coco.dataset
    truth.createIndex()
    results = truth.loadRes(np.asarray(detections, np.float64))
    return ultrafast_pycocotools.COCOeval(truth, results, "bbox", print_function=lambda *_: None)


@cache
def _process_with_threads() -> int:
    """Return the id of the process that was the first to use ultrafast-pycocotools; forked processes inherit it."""
    return os.getpid()


def find_pairs(backend: Backend, coco: COCO, coco_eval: Any, detections: np.ndarray, iou: float) -> Pairs:
    """Return the pairs of detections and objects, see ``read_pairs``, from a COCOeval of a backend that has run."""
    if backend == "pycocotools":
        return read_pairs(coco_eval, len(detections), iou)
    if backend == "ultrafast-pycocotools":
        return read_ultrafast_pairs(coco_eval, len(detections), iou)
    return make_pairs(coco, detections, coco_eval.params.imgIds, iou)  # faster-coco-eval does not give its pairs


def _as_annotations(detections: np.ndarray) -> list[dict[str, Any]]:
    annotations = []
    for number, row in enumerate(detections, start=1):
        image_id, *bbox, score, category_id = row.tolist()
        ids = {"id": number, "image_id": int(image_id), "category_id": int(category_id)}
        annotations.append(ids | {"bbox": bbox, "score": score, "area": bbox[2] * bbox[3], "iscrowd": 0})
    return annotations
