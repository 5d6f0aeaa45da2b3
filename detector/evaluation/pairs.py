"""Pairs of detections and objects: those that a backend has made, and the same made without one."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

ALL_SIZES = (0, 1e10)  # pixels of area; detections without a partner and objects beyond do not count
Pairs = tuple[np.ndarray, np.ndarray]


def read_pairs(coco_eval: COCOeval, num_detections: int, iou: float) -> Pairs:
    """Return pycocotools' pairs at the threshold ``iou``: ``counted`` (N,) bool and ``matches`` (N,).

    N detections are rows, as in ``run_coco_eval``. Not counted are those in crowds, and all but the 100 best of an image and
    class. A match is the row of an object in the ground truth, -1 for none.
    """
    level = int(np.argmin(np.abs(coco_eval.params.iouThrs - iou)))
    assert abs(coco_eval.params.iouThrs[level] - iou) < 1e-6, iou
    limit, all_sizes = coco_eval.params.maxDets[2], coco_eval.params.areaRng[0]
    counted, matches = np.zeros(num_detections, bool), np.full(num_detections, -1)
    for result in coco_eval.evalImgs:
        if result is not None and result["aRng"] == all_sizes and result["dtIds"]:
            rows = np.array(result["dtIds"][:limit]) - 1  # ids are rows plus 1
            ignored = result["dtIgnore"][level, :limit].astype(bool)
            counted[rows] = ~ignored
            matches[rows] = np.where(ignored, -1, result["dtMatches"][level, :limit].astype(int) - 1)
    return counted, matches


def read_ultrafast_pairs(coco_eval: Any, num_detections: int, iou: float) -> Pairs:
    """Return the same as ``read_pairs`` from a COCOeval of ultrafast-pycocotools that has run."""
    found, _ = coco_eval.per_instance(iou, max_dets=coco_eval.params.maxDets[2])
    counted, matches = np.zeros(num_detections, bool), np.full(num_detections, -1)
    rows = found["dt_id"] - 1  # ids are rows plus 1
    counted[rows] = ~found["ignore"]
    matches[rows] = np.where(found["ignore"] | (found["gt_id"] < 0), -1, found["gt_id"] - 1)
    return counted, matches


def make_pairs(coco: COCO, detections: np.ndarray, image_ids: Sequence[int], iou: float, limit: int = 100) -> Pairs:
    """Return the same as ``read_pairs`` for ``detections`` (N, 7), without an evaluation by pycocotools.

    ``coco`` comes from ``load_ground_truth``; only the ``image_ids`` are evaluated.
    """
    counted, matches = np.zeros(len(detections), bool), np.full(len(detections), -1)
    objects: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for annotation in coco.dataset["annotations"]:
        objects[annotation["image_id"], annotation["category_id"]].append(annotation)
    areas = detections[:, 3] * detections[:, 4]
    has_size = (areas >= ALL_SIZES[0]) & (areas <= ALL_SIZES[1])
    for key, rows in _rows_by_image_and_class(detections, image_ids, list(coco.cats)):
        rows = rows[:limit]
        counted[rows] = has_size[rows]
        if key in objects:
            for row, annotation in _match(detections[rows, 1:5], objects[key], iou):
                counted[rows[row]] = not _is_ignored(annotation)
                matches[rows[row]] = -1 if _is_ignored(annotation) else annotation["id"] - 1
    return counted, matches


def _rows_by_image_and_class(
    detections: np.ndarray, image_ids: Sequence[int], category_ids: Sequence[int]
) -> list[tuple[tuple[int, int], np.ndarray]]:
    """Return image id, category id and rows of ``detections``, the highest scores first."""
    images, scores, categories = detections[:, 0], detections[:, 5], detections[:, 6]
    order = np.lexsort((-scores, categories, images))
    order = order[np.isin(images[order], image_ids) & np.isin(categories[order], category_ids)]
    keys = detections[order][:, [0, 6]].astype(np.int64)
    if not len(order):
        return []
    starts = np.flatnonzero((keys[1:] != keys[:-1]).any(axis=1)) + 1
    return [(tuple(key), rows) for key, rows in zip(keys[[0, *starts]].tolist(), np.split(order, starts))]


def _match(boxes: np.ndarray, objects: list[dict[str, Any]], iou: float) -> list[tuple[int, dict[str, Any]]]:
    """Return the pairs of ``boxes`` (D, 4) x y width height, best first, and objects of one image and class.

    Every detection takes the free object that it overlaps most, or else a crowd, which stays free.
    """
    objects = sorted(objects, key=_is_ignored)
    ious = np.asarray(mask.iou(boxes, [o["bbox"] for o in objects], [int(o["iscrowd"]) for o in objects]))
    num_real = sum(not _is_ignored(o) for o in objects)
    free, pairs = np.ones(len(objects), bool), []
    for row in np.flatnonzero((ious >= iou).any(axis=1)):
        candidates = np.where(free & (ious[row] >= iou), ious[row], -1.0)
        part = candidates[:num_real] if candidates[:num_real].max(initial=-1.0) >= 0 else candidates
        if part.max() < 0:
            continue
        best = len(part) - 1 - int(part[::-1].argmax())  # of equal overlaps the last, as in pycocotools
        free[best] = bool(objects[best]["iscrowd"])
        pairs.append((int(row), objects[best]))
    return pairs


def _is_ignored(annotation: dict[str, Any]) -> bool:
    return bool(annotation["iscrowd"]) or not ALL_SIZES[0] <= annotation["area"] <= ALL_SIZES[1]
