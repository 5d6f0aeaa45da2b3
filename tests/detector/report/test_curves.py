"""Curves that equal pycocotools'."""

import numpy as np
import pytest

from detector.evaluation.coco_eval import class_ap, evaluate
from detector.evaluation.thresholds import threshold_curve
from detector.report.curves import ap_by_limit, class_curve, precision_recall
from tests.detector.report.cases import evaluated, random_case, rows, truth


@pytest.mark.parametrize("seed", range(3))
def test_the_best_threshold_is_that_of_the_evaluation(seed: int) -> None:
    """The sheet and the checkpoint have it from there."""
    content, detections = random_case(seed)
    detections[:, 5] /= 70
    assert class_curve(evaluated(content, detections)[2]).best() == evaluate(content, detections).best_f1


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
