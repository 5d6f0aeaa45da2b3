"""Pairs of detections and objects, as pycocotools made them at one IoU threshold."""

from dataclasses import dataclass

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.batch import xywh_to_xyxy, xyxy_to_xywh
from detector.evaluation.backends import Backend, find_pairs
from detector.evaluation.thresholds import BEST_F1_IOU


@dataclass(frozen=True)
class Matching:
    """N detections and G objects in flat arrays, and the pairs of them."""

    det_images: np.ndarray  # (N,) image ids
    det_boxes: np.ndarray  # (N, 4) x1 y1 x2 y2 in pixels of the original images
    det_classes: np.ndarray  # (N,) 0..C-1 in the order of the category ids, -1 for an unknown one
    scores: np.ndarray  # (N,)
    counted: np.ndarray  # (N,) bool; not: beyond the 100 best of image and class, in a crowd, or of an unknown class
    matches: np.ndarray  # (N,) the row of the object that a detection is paired with, -1 for none
    obj_images: np.ndarray  # (G,) image ids
    obj_boxes: np.ndarray  # (G, 4)
    obj_classes: np.ndarray  # (G,)
    areas: np.ndarray  # (G,) as in the annotation file
    crowds: np.ndarray  # (G,) bool; crowds need no detection
    iou: float  # the threshold
    num_classes: int

    @property
    def num_objects(self) -> int:
        """Objects without crowds."""
        return int((~self.crowds).sum())

    def by_image(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the rows of detections and the rows of objects of every image that has any."""
        images = np.unique(np.concatenate((self.det_images, self.obj_images)))
        return list(zip(_rows_of(self.det_images, images), _rows_of(self.obj_images, images)))


def _rows_of(values: np.ndarray, keys: np.ndarray) -> list[np.ndarray]:
    """Return for each of ``keys``, ascending, its rows in ``values``."""
    order = np.argsort(values, kind="stable")
    starts = np.searchsorted(values[order], keys)
    return np.split(order, starts[1:]) if len(keys) else []


def read_matching(
    coco: COCO, coco_eval: COCOeval, detections: np.ndarray, iou: float = BEST_F1_IOU, backend: Backend = "pycocotools"
) -> Matching:
    """Return the pairs that ``coco_eval`` made of objects and ``detections`` (N, 7) at the threshold ``iou``.

    ``coco`` comes from ``load_ground_truth``, and ``coco_eval`` from ``run_coco_eval`` with the ``backend``. Every
    detection, from the highest score down, takes the free object of its class that it overlaps most, if by ``iou`` at least.
    """
    counted, matches = find_pairs(backend, coco, coco_eval, detections, iou)
    objects = coco.dataset["annotations"]
    class_numbers = {category_id: k for k, category_id in enumerate(coco_eval.params.catIds)}
    return Matching(
        det_images=detections[:, 0].astype(np.int64),
        det_boxes=xywh_to_xyxy(detections[:, 1:5]),
        det_classes=np.array([class_numbers.get(int(i), -1) for i in detections[:, 6]], dtype=np.int64),
        scores=detections[:, 5],
        counted=counted,
        matches=matches,
        obj_images=np.array([a["image_id"] for a in objects], dtype=np.int64),
        obj_boxes=xywh_to_xyxy(np.array([a["bbox"] for a in objects], dtype=float).reshape(-1, 4)),
        obj_classes=np.array([class_numbers[a["category_id"]] for a in objects], dtype=np.int64),
        areas=np.array([a["area"] for a in objects], dtype=float),
        crowds=np.array([a["iscrowd"] for a in objects], dtype=bool),
        iou=iou,
        num_classes=len(class_numbers),
    )


def box_ious(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU (N, M) of boxes (N, 4) and (M, 4), x1 y1 x2 y2, as pycocotools computes it."""
    if not len(boxes) or not len(others):
        return np.zeros((len(boxes), len(others)))
    return np.asarray(mask.iou(xyxy_to_xywh(boxes), xyxy_to_xywh(others), [0] * len(others)))
