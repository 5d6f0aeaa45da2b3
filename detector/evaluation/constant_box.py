"""The AP of a constant box: what a detector that does not look at the image reaches.

On every image it gives one detection of each class: the mean box of the class, as shares of the image. Where images have one
large object, this alone can reach an AP50 of 0.5. A network whose AP is not above this floor shows nothing.
"""

from dataclasses import dataclass

import numpy as np

from detector.evaluation.coco_eval import CocoResult, evaluate
from detector.evaluation.coco_files import GroundTruth

MAX_DETECTIONS = 50_000  # in one evaluation, for its time: larger sets are evaluated on evenly spaced images


@dataclass(frozen=True)
class MeanBoxes:
    """The mean box of each of K classes that have objects."""

    labels: np.ndarray  # (K,) in 0..C-1, the order of the category ids
    shares: np.ndarray  # (K,) of the objects that are of the class: the score of its detections
    boxes_cxcywh: np.ndarray  # (K, 4) shares of image width and height


def mean_boxes(bboxes: np.ndarray, sizes: np.ndarray, labels: np.ndarray) -> MeanBoxes:
    """Return the mean boxes of N objects, each clipped to its image; those without area inside it are left out.

    Args:
        bboxes: (N, 4) x y width height in pixels of the object's image.
        sizes: (N, 2) height and width of the object's image.
        labels: (N,) in 0..C-1, the order of the category ids.
    """
    limits = sizes[:, ::-1]
    low, high = np.clip(bboxes[:, :2] / limits, 0, 1), np.clip((bboxes[:, :2] + bboxes[:, 2:]) / limits, 0, 1)
    usable = (high > low).all(axis=1)
    boxes, labels = np.hstack([(low + high) / 2, high - low])[usable], labels[usable]
    known, counts = np.unique(labels, return_counts=True)
    means = [boxes[labels == label].mean(axis=0) for label in known]
    return MeanBoxes(known, counts / max(len(labels), 1), np.array(means).reshape(-1, 4))


def mean_boxes_of(coco: GroundTruth) -> MeanBoxes | None:
    """Return the mean boxes of the objects of ``coco`` without crowds; None if the size of an image is not known."""
    if not _have_sizes(coco):
        return None
    objects = _objects(coco)
    sizes = np.array([_size(coco, entry["image_id"]) for entry in objects], dtype=float).reshape(-1, 2)
    labels = np.searchsorted(sorted(coco.cats), [entry["category_id"] for entry in objects])
    return mean_boxes(np.array([entry["bbox"] for entry in objects], dtype=float).reshape(-1, 4), sizes, labels)


def evaluate_constant_box(coco: GroundTruth, means: MeanBoxes | None) -> CocoResult | None:
    """Return the COCO metrics of the mean boxes, as detections on every image of ``coco``.

    ``coco`` comes from ``load_ground_truth``. None if there are no mean boxes, if ``coco`` has no object, or if the size of
    an image is not known.
    """
    if means is None or not len(means.labels) or not _objects(coco) or not _have_sizes(coco):
        return None
    image_ids = np.array(sorted(coco.imgs))
    most = max(MAX_DETECTIONS // len(means.labels), 1)
    if len(image_ids) > most:
        image_ids = image_ids[np.linspace(0, len(image_ids) - 1, most).round().astype(int)]
    return evaluate(coco, _detections(coco, means, image_ids), [coco.image_ids.id(n) for n in image_ids.tolist()])


def _detections(coco: GroundTruth, means: MeanBoxes, image_ids: np.ndarray) -> np.ndarray:
    """Return detections (N, 7), one of each class on each image.

    Those of a class should all have the same score. But then pycocotools would sort them by image, and a file that has the
    images of a class together would get another AP. So detections that overlap an object less come first, by a tiny
    difference: precision is then the same at every recall, as it is for equal scores.
    """
    sizes = np.array([_size(coco, image_id) for image_id in image_ids.tolist()], dtype=float)
    category_ids = np.array(sorted(coco.cats))[means.labels]
    boxes = means.boxes_cxcywh.copy()
    boxes[:, :2] -= boxes[:, 2:] / 2  # x y width height
    boxes = (boxes[None] * np.tile(sizes[:, None, ::-1], 2)).reshape(-1, 4)  # image by image
    rows = np.column_stack([
        np.repeat(image_ids, len(means.shares)), boxes,
        np.tile(means.shares, len(image_ids)), np.tile(category_ids, len(image_ids)),
    ])  # fmt: skip
    rows[:, 5] -= 1e-9 * _best_overlaps(coco, rows)
    return rows


def _best_overlaps(coco: GroundTruth, detections: np.ndarray) -> np.ndarray:
    """Return the highest IoU (N,) of each of the ``detections`` (N, 7) with an object of its image and class, 0 without."""
    numbers = {(image, category): n for n, (image, category) in enumerate(detections[:, [0, 6]].astype(np.int64).tolist())}
    pairs = [(numbers.get((entry["image_id"], entry["category_id"])), entry["bbox"]) for entry in _objects(coco)]
    chosen = np.array([number for number, _ in pairs if number is not None], dtype=np.int64)
    objects = np.array([bbox for number, bbox in pairs if number is not None], dtype=float).reshape(-1, 4)
    boxes = detections[chosen, 1:5]
    low = np.maximum(boxes[:, :2], objects[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], objects[:, :2] + objects[:, 2:])
    shared = (high - low).clip(0).prod(axis=1)
    overlaps = np.zeros(len(detections))
    np.maximum.at(overlaps, chosen, shared / (boxes[:, 2:].prod(axis=1) + objects[:, 2:].prod(axis=1) - shared))
    return overlaps


def _objects(coco: GroundTruth) -> list[dict]:
    return [entry for entry in coco.dataset["annotations"] if not entry["iscrowd"]]


def _have_sizes(coco: GroundTruth) -> bool:
    return all(image.get(side) for image in coco.imgs.values() for side in ("height", "width"))


def _size(coco: GroundTruth, image_id: int) -> tuple[int, int]:
    return coco.imgs[image_id]["height"], coco.imgs[image_id]["width"]
