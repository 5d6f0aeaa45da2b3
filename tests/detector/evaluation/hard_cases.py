"""Small random sets with what is hard for an evaluation: ties, crowds, area limits, ids with gaps, huge and empty boxes."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.evaluation import load_ground_truth
from detector.evaluation.coco_eval import MAX_DETECTIONS
from detector.evaluation.coco_files import GroundTruth
from detector.evaluation.ids import Id

AREAS = (0, 1, 1023.999, 1024, 1024.001, 9216, 9216.001, 1e10, 1.1e10)  # at the limits of small, medium and large
SIDES = (0, 1e-9, 31.99, 32, 96, 96.01, 1e5)  # of boxes with these areas


@dataclass(frozen=True)
class HardCase:
    """Ground truth, detections (N, 7), the images to evaluate, and limits of detections for each image and class."""

    coco: GroundTruth
    detections: np.ndarray
    images: list[int]
    limits: tuple[int, ...]


def hard_case(seed: int) -> HardCase:
    """Return the case of a seed. The same seed gives the same case."""
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(["grid", "grid", "close", "float32", "huge", "limits"]))
    scale = 10.0 ** rng.integers(3, 150)  # of huge boxes; their areas are still finite
    coco = load_ground_truth(_ground_truth(rng, kind, scale))
    images = sorted(coco.imgs)
    parts = [_detections(rng, coco, image, kind, scale) for image in images if rng.random() < 0.8]
    detections = np.concatenate([np.empty((0, 7)), *parts])
    if rng.random() < 0.4:
        rng.shuffle(detections)
    if rng.random() < 0.05:
        detections = detections[:0]
    share = rng.choice([1, 0.7, 0], p=[0.6, 0.37, 0.03])
    evaluated = [image for image in images if rng.random() < share]
    return HardCase(coco, detections, evaluated, MAX_DETECTIONS if rng.random() < 0.7 else (*MAX_DETECTIONS, 300, 1000))


def _ground_truth(rng: np.random.Generator, kind: str, scale: float) -> dict[str, Any]:
    images = _image_ids(rng, int(rng.integers(0, 9)))
    categories = rng.permutation(90)[: rng.integers(0, 6)].tolist()
    with_objects = [category for category in categories if rng.random() < 0.8]
    objects = []
    for image in images:
        if with_objects and rng.random() < 0.75:
            for box in _boxes(rng, int(rng.integers(1, 10)), kind, scale).tolist():
                objects.append(
                    {"image_id": image, "category_id": int(rng.choice(with_objects)), "bbox": box, **_fields(rng)}
                )
    if images and rng.random() < 0.1:
        objects.append({"image_id": images[0], "category_id": 777, "bbox": [0, 0, 9, 9]})  # of no category
    rng.shuffle(objects)
    names = [{"id": category, "name": f"class {category}"} for category in categories]
    return {"images": [{"id": image} for image in images], "categories": names, "annotations": objects}


def _image_ids(rng: np.random.Generator, number: int) -> list[Id]:
    """Return ids in any order: small, with gaps and below 0, large, or text."""
    kind = rng.integers(4)
    if kind == 3:
        return [f"image {n}" for n in rng.permutation(number)]
    low, high = ((1, number + 1), (-5, 500), (2**52, 2**53))[kind]
    return list(dict.fromkeys(rng.integers(low, high, number).tolist()))


def _fields(rng: np.random.Generator) -> dict[str, Any]:
    """Return the fields of an annotation that may be missing."""
    fields: dict[str, Any] = {}
    if rng.random() < 0.15:
        fields["iscrowd"] = int(rng.random() < 0.9)
    if rng.random() < 0.2:
        fields["area"] = float(rng.choice(AREAS))
    if rng.random() < 0.1:
        fields["ignore"] = 1
    return fields


def _boxes(rng: np.random.Generator, number: int, kind: str, scale: float) -> np.ndarray:
    """Return boxes (``number``, 4), x y width height. On a grid, many are equal, and some are empty or inside out."""
    if kind == "grid":
        return np.column_stack([4.0 * rng.integers(0, 8, (number, 2)), 8.0 * rng.integers(-1, 5, (number, 2))])
    if kind == "limits":
        return np.column_stack([rng.integers(-2, 3, (number, 2)), rng.choice(SIDES, (number, 2))])
    boxes = np.column_stack([rng.uniform(0, 60, (number, 2)), rng.uniform(1, 60, (number, 2))])
    if kind == "float32":
        return boxes.astype(np.float32).astype(np.float64)
    return boxes * scale if kind == "huge" else boxes.round(3)


def _detections(rng: np.random.Generator, coco: GroundTruth, image: int, kind: str, scale: float) -> np.ndarray:
    """Return up to 12, or 100 to 400, detections of an image: half of them on an object or near one."""
    number = int(rng.integers(100, 400) if rng.random() < 0.05 else rng.integers(0, 12))
    boxes, classes = _boxes(rng, number, kind, scale), rng.choice([*coco.cats, 999], number)  # 999 is of no category
    objects = coco.imgToAnns.get(image, [])
    for n in range(number if objects else 0):
        if rng.random() < 0.5:
            chosen = objects[rng.integers(len(objects))]
            boxes[n] = np.array(chosen["bbox"]) * (1 if rng.random() < 0.5 else rng.normal(1, 0.08, 4))
            classes[n] = chosen["category_id"]
    return np.column_stack([np.full(number, image), boxes, _scores(rng, number), classes])


def _scores(rng: np.random.Generator, number: int) -> np.ndarray:
    """Return scores (``number``,): different, many equal, all equal, below 0, or of both zeros."""
    scores = rng.random(number)
    zeros = rng.choice([0.0, -0.0, 1e-310, 1.0], number)
    return (scores, scores.round(1), np.full(number, 0.5), (scores - 0.5).round(1), zeros)[rng.integers(5)]
