"""Thresholds by hand, and curves that equal pycocotools'."""

import numpy as np
import pytest

from detector.evaluation.coco_eval import class_ap
from detector.report.curves import ap_by_limit, class_curve, precision_recall, threshold_curve
from tests.detector.report.cases import evaluated, random_case, rows, truth


def test_a_curve_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.8, 0.3])
    curve = threshold_curve(scores, np.array([True, False, True, False]), num_objects=4)
    assert curve.thresholds.tolist() == [0.9, 0.8, 0.3]  # equal scores are shown together
    assert curve.precision == pytest.approx([1, 2 / 3, 1 / 2])
    assert curve.recall == pytest.approx([1 / 4, 1 / 2, 1 / 2])
    assert curve.f1 == pytest.approx([2 / 5, 4 / 7, 1 / 2])
    best = curve.best()
    assert (best.threshold, best.precision, best.recall, best.f1) == pytest.approx((0.8, 2 / 3, 1 / 2, 4 / 7))
    assert curve.at(0.95).f1 == 0
    assert curve.at(0.0).precision == pytest.approx(0.5)


def test_the_threshold_that_is_shown_gives_what_is_shown() -> None:
    curve = threshold_curve(np.array([0.5009, 0.5004]), np.array([True, False]), num_objects=1)
    best = curve.best()
    assert (best.threshold, best.precision, best.f1) == pytest.approx((0.5, 0.5, 2 / 3))  # rounding lets the second in


@pytest.mark.parametrize(("scores", "right"), [([], []), ([0.5], [False])])
def test_nothing_right_has_no_best_threshold(scores: list, right: list) -> None:
    curve = threshold_curve(np.array(scores), np.array(right, dtype=bool), num_objects=0)
    assert curve.best() is None
    assert curve.at(0.1).recall == 0


@pytest.mark.parametrize("seed", range(3))
def test_precision_at_every_recall_is_that_of_pycocotools(seed: int) -> None:
    content, detections = random_case(seed)
    coco, coco_eval, matching = evaluated(content, detections)
    at_half = precision_recall(coco_eval, 0.5)
    assert np.array_equal(at_half, coco_eval.eval["precision"][0, :, :, 0, 2])
    for k in range(2):
        curve = class_curve(matching, k)
        envelope = np.maximum.accumulate(curve.precision[::-1])[::-1]
        places = np.searchsorted(curve.recall, coco_eval.params.recThrs)
        own = np.append(envelope, 0.0)[places]
        # Our points are scores, pycocotools' single detections: among equal scores it may be above.
        assert (own <= at_half[:, k] + 1e-9).all()
        assert own == pytest.approx(at_half[:, k], abs=0.1)
        assert curve.recall[-1] == pytest.approx(coco_eval.eval["recall"][0, k, 0, 2])
    mean = precision_recall(coco_eval, None)
    assert mean.mean(axis=0) == pytest.approx(list(class_ap(coco, coco_eval).values()))
    assert mean.mean() == pytest.approx(coco_eval.stats[0])


def test_different_scores_give_the_same_points_as_pycocotools() -> None:
    content, detections = random_case(5)
    detections[:, 5] = np.random.default_rng(0).permutation(len(detections)) / len(detections)
    _, coco_eval, matching = evaluated(content, detections)
    for k in range(2):
        curve = class_curve(matching, k)
        envelope = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0.0)
        places = np.searchsorted(curve.recall, coco_eval.params.recThrs)
        assert envelope[places] == pytest.approx(coco_eval.eval["precision"][0, :, k, 0, 2])
        scores = np.append(curve.thresholds, 0.0)
        assert scores[places] == pytest.approx(coco_eval.eval["scores"][0, :, k, 0, 2])


def test_more_detections_than_100_count_from_another_limit_on() -> None:
    boxes = [[(n % 15) * 6.0, (n // 15) * 6.0, 5.0, 5.0] for n in range(150)]
    content = truth(*[(1, 1, box) for box in boxes], images=(1,))
    found = rows(*[(1, 1, box, 1 - n / 1000) for n, box in enumerate(boxes)])
    _, coco_eval, matching = evaluated(content, found, (1, 10, 100, 300))
    limits = ap_by_limit(coco_eval)
    assert limits[300] == (1.0, 1.0)
    assert limits[100][1] == pytest.approx(100 / 150)
    assert limits[100][0] == pytest.approx(coco_eval.stats[0])
    assert coco_eval.stats[8] == pytest.approx(100 / 150)  # AR100 stays that of 100
    assert matching.counted.sum() == 100


def test_no_objects() -> None:
    _, coco_eval, _ = evaluated(truth(), rows((1, 1, [0, 0, 5, 5], 0.5)))
    assert np.isnan(precision_recall(coco_eval, 0.5)).all()
    assert ap_by_limit(coco_eval)[100] == (-1.0, -1.0)
