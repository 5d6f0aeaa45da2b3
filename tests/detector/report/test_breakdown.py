"""Counts by size and shape, by hand."""

from detector.report.breakdown import Bin, by_ratio, by_size
from detector.report.errors import find_errors
from tests.detector.report.cases import evaluated, rows, truth


def test_counts_by_hand() -> None:
    objects = (
        (1, 1, [0, 0, 10, 10]),  # 10 px, detected
        (1, 1, [20, 0, 12, 12]),  # 12 px, missed
        (1, 5, [0, 40, 60, 15]),  # 30 px, 4:1, detected
        (2, 1, [0, 0, 32, 32]),  # 32 px: the upper of two bins
        (2, 1, [50, 50, 50, 50], 1),  # crowds are not counted
    )
    detections = (
        (1, 1, [0, 0, 10, 10], 0.9),
        (1, 5, [0, 40, 60, 15], 0.8),
        (2, 5, [60, 5, 9, 9], 0.7),
        (1, 1, [0, 0, 9, 9], 0.1),
    )
    _, _, matching = evaluated(truth(*objects), rows(*detections))
    errors = find_errors(matching, 0.5)
    assert by_size(matching, errors) == [
        Bin("8 to 16 px", num_objects=2, num_detected=1, num_detections=2, num_correct=1),
        Bin("16 to 32 px", num_objects=1, num_detected=1, num_detections=1, num_correct=1),
        Bin("32 to 64 px", num_objects=1, num_detected=0, num_detections=0, num_correct=0),
    ]
    assert by_ratio(matching, errors) == [
        Bin("2:3 to 3:2", num_objects=3, num_detected=1, num_detections=2, num_correct=1),
        Bin("over 3:1", num_objects=1, num_detected=1, num_detections=1, num_correct=1),
    ]
