"""Pairs made without pycocotools are those of pycocotools."""

import numpy as np
import pytest

from detector.evaluation import load_ground_truth, run_coco_eval
from detector.evaluation.pairs import make_pairs, read_pairs
from tests.detector.evaluation.cases import BIRD, CAT, DOG, annotation, rows
from tests.detector.fakes import coco_dict


@pytest.mark.parametrize("seed", range(3))
def test_they_are_those_of_pycocotools(seed: int) -> None:
    """Crowds, equal scores and overlaps, boxes without area, unknown classes, more than 100 detections of an image."""
    rng = np.random.default_rng(seed)
    images, categories = [1, 2, 3, 4, 5], [CAT, DOG, BIRD]
    objects, detections = [], []
    for image in images:
        for _ in range(12):
            box = [*(4.0 * rng.integers(0, 8, 2)), *(8.0 * rng.integers(1, 4, 2))]
            crowd, area = int(rng.random() < 0.2), 1e11 if rng.random() < 0.1 else box[2] * box[3]
            objects.append(annotation(image, int(rng.choice(categories)), box, iscrowd=crowd, area=area))
        for _ in range(400 if image == 1 else 40):
            box = [*(4.0 * rng.integers(0, 8, 2)), *(8.0 * rng.integers(-1, 4, 2))]
            detections.append((image, int(rng.choice([*categories, 999])), box, rng.random().__round__(1)))
    coco, found = load_ground_truth(coco_dict(images, objects)), rows(*detections)
    for detected in (found, found[:0]):
        for iou in (0.5, 0.75):
            coco_eval = run_coco_eval(coco, detected, images[:4])
            counted, matches = make_pairs(coco, detected, images[:4], iou)
            expected_counted, expected_matches = read_pairs(coco_eval, len(detected), iou)
            assert np.array_equal(matches, expected_matches)
            assert np.array_equal(counted, expected_counted)
    assert (matches >= 0).sum() == 0  # of no detections
