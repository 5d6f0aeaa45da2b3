"""Small ground truths and detections whose evaluation can be worked out by hand, and larger ones at random."""

from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.coco_eval import run_coco_eval
from detector.evaluation.coco_files import load_ground_truth
from detector.report.matching import Matching, read_matching

CATEGORIES = {1: "cat", 5: "dog"}
Row = tuple[int, int, list[float], float]  # image id, category id, x y width height, score


def truth(*objects: tuple, images: tuple[int, ...] = (1, 2), categories: dict[int, str] = CATEGORIES) -> dict[str, Any]:
    """A COCO annotation file of (image id, category id, x y width height) and, for a crowd, a fourth entry 1."""
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 100, "width": 100} for i in images],
        "annotations": [
            {"id": n, "image_id": o[0], "category_id": o[1], "bbox": o[2], "iscrowd": o[3] if len(o) > 3 else 0}
            for n, o in enumerate(objects, start=1)
        ],
        "categories": [{"id": id_, "name": name} for id_, name in categories.items()],
    }


def rows(*detections: Row) -> np.ndarray:
    """Detections (N, 7)."""
    return np.array([[image, *box, score, category] for image, category, box, score in detections]).reshape(-1, 7)


def evaluated(
    content: dict[str, Any], detections: np.ndarray, limits: tuple = (1, 10, 100)
) -> tuple[COCO, COCOeval, Matching]:
    """The ground truth, pycocotools' evaluation, and the matching at IoU 0.5."""
    coco = load_ground_truth(content)
    coco_eval = run_coco_eval(coco, detections, sorted(coco.imgs), limits)
    return coco, coco_eval, read_matching(coco, coco_eval, detections)


def random_case(seed: int, num_images: int = 12) -> tuple[dict[str, Any], np.ndarray]:
    """Overlapping objects of two classes, crowds and an empty image among them, and detections of every quality."""
    random = np.random.default_rng(seed)
    objects, detections = [], []
    for image in range(1, num_images):
        for _ in range(random.integers(1, 8)):
            box = [*random.uniform(0, 60, 2), *random.uniform(5, 40, 2)]
            category = int(random.choice([1, 5]))
            objects.append((image, category, box, int(random.random() < 0.1)))
            for _ in range(random.integers(0, 4)):
                moved = [*(np.array(box[:2]) + random.normal(0, 3, 2)), *(np.array(box[2:]) * random.uniform(0.7, 1.3, 2))]
                detections.append(
                    (image, category if random.random() < 0.8 else 6 - category, moved, random.random().__round__(2))
                )
    for _ in range(20):
        detections.append((int(random.integers(1, num_images + 1)), 1, [*random.uniform(0, 60, 2), 10, 10], random.random()))
    return truth(*objects, images=tuple(range(1, num_images + 1))), rows(*detections)
