"""Pairs of detections and objects, by hand."""

import numpy as np
import pytest

from detector.report.matching import box_ious
from tests.detector.report.cases import evaluated, rows, truth


def test_pairs_by_hand() -> None:
    objects = ((1, 1, [0, 0, 20, 20]), (2, 5, [0, 0, 20, 20]), (2, 1, [50, 50, 40, 40], 1))
    detections = (
        (2, 5, [0, 0, 20, 20], 0.3),
        (1, 1, [0, 0, 20, 20], 0.2),
        (1, 1, [1, 0, 20, 20], 0.9),  # takes the object from the weaker one
        (2, 1, [55, 55, 20, 20], 0.8),  # in the crowd
        (1, 99, [0, 0, 20, 20], 0.8),  # of an unknown class
    )
    _, _, matching = evaluated(truth(*objects), rows(*detections))
    assert matching.matches.tolist() == [1, -1, 0, -1, -1]
    assert matching.counted.tolist() == [True, True, True, False, False]
    assert matching.det_classes.tolist() == [1, 0, 0, 0, -1]
    assert matching.det_boxes[2].tolist() == [1, 0, 21, 20]
    assert matching.num_objects == 2
    assert [(d.tolist(), o.tolist()) for d, o in matching.by_image()] == [([1, 2, 4], [0]), ([0, 3], [1, 2])]


def test_box_ious() -> None:
    boxes, others = np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 15, 10], [20, 20, 30, 30]])
    assert box_ious(boxes, others) == pytest.approx(np.array([[1 / 3, 0]]))
    assert box_ious(np.empty((0, 4)), others).shape == (0, 2)
