"""The threshold of the best F1, against a slow loop, where scores are small, close, equal or missing."""

import numpy as np
import pytest

from detector.evaluation import detection_rows, evaluate, load_ground_truth
from detector.evaluation.coco_eval import run_coco_eval
from detector.evaluation.coco_files import round_scores
from detector.evaluation.thresholds import separating_threshold, threshold_curve
from tests.detector.evaluation.cases import CAT, DOG, annotation, answer_rows, installed_backends, random_case, rows
from tests.detector.fakes import coco_dict

BOX, ELSEWHERE = [10, 10, 20, 20], [60, 40, 20, 20]


def f1(scores: np.ndarray, right: np.ndarray, num_objects: int, shown: np.ndarray) -> float:
    return 2 * right[shown].sum() / (shown.sum() + num_objects)


def test_a_curve_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.8, 0.3])
    curve = threshold_curve(scores, np.array([True, False, True, False]), num_objects=4)
    assert curve.thresholds.tolist() == [0.9, 0.8, 0.3]  # equal scores are shown together
    assert curve.precision == pytest.approx([1, 2 / 3, 1 / 2])
    assert curve.recall == pytest.approx([1 / 4, 1 / 2, 1 / 2])
    assert curve.f1 == pytest.approx([2 / 5, 4 / 7, 1 / 2])
    best = curve.best()
    assert (best.threshold, best.precision, best.recall, best.f1) == pytest.approx((0.799, 2 / 3, 1 / 2, 4 / 7))
    assert curve.at(0.95).f1 == 0
    assert curve.at(0.0).precision == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("lower", "upper", "threshold"),
    [
        (0.0, 0.0124, 0.0123),
        (0.01236, 0.0124, 0.01239),
        (0.0123739, 0.012374, 0.01237395),  # neighbors as written: the middle, from which both are rounded
        (0.5004, 0.5009, 0.5008),
        (0.0, 1.0, 0.999),
        (0.999999, 1.0, 0.9999995),
        (0.0, 1e-7, 9.99e-8),
        (0.0, 0.0, 0.0),
    ],
)
def test_a_threshold_has_as_many_digits_as_it_needs(lower: float, upper: float, threshold: float) -> None:
    assert separating_threshold(lower, upper) == threshold


def test_scores_that_differ_late_are_separated() -> None:
    for lower, upper in ((0.5, np.nextafter(0.5, 1)), (0.3, 0.3 + 1e-12), (1e-12, 1.1e-12)):
        assert lower < separating_threshold(lower, upper) <= upper


@pytest.mark.parametrize("scale", [1.0, 0.0124, 1e-7])
def test_filtering_by_the_best_threshold_gives_its_f1(scale: float) -> None:
    """As a network does that has learned little: all scores within a few percent."""
    rng = np.random.default_rng(0)
    raw = (scale * rng.uniform(0.95, 1, 400)).astype(np.float32)
    right = rng.random(400) < (raw / scale - 0.95) / 0.05
    written = round_scores(raw.astype(np.float64))
    highest = max(f1(written, right, 300, written >= score) for score in written)
    best = threshold_curve(written, right, 300).best()
    assert best.f1 == pytest.approx(highest)
    for scores in (written, raw):  # the file, and the network
        for shown in (scores > best.threshold, scores >= best.threshold):
            assert f1(scores, right, 300, shown) == pytest.approx(highest)


def test_small_scores_are_written_with_six_digits() -> None:
    scores = np.array([0.98765432, 0.0123744904994964, 0.00123456789, 1.23456789e-7, 0.0, 1.0], np.float32)
    detections = detection_rows(1, np.zeros((6, 4)), scores, np.ones(6, int))
    assert detections[:, 5].tolist() == [0.987654, 0.0123745, 0.00123457, 1.23457e-7, 0.0, 1.0]


def test_every_backend_gives_the_best_of_a_slow_loop() -> None:
    truth, close, unrelated = random_case(1)
    detections = np.concatenate([answer_rows(close), answer_rows(unrelated)])
    detections[:, 5] = (detections[:, 5] / 70).round(3)  # small scores, most of them equal
    best, *others = (evaluate(truth, detections, backend=backend).best_f1 for backend in installed_backends())
    assert others == [best] * len(others)
    num_objects = sum(not entry["iscrowd"] for entry in truth["annotations"])
    coco = load_ground_truth(truth)
    points = []
    for score in np.unique(detections[:, 5]):
        coco_eval = run_coco_eval(coco, detections[detections[:, 5] >= score], sorted(coco.imgs))
        results = [r for r in coco_eval.evalImgs if r is not None and r["aRng"] == [0, 1e10]]
        shown = sum(int((~r["dtIgnore"][0]).sum()) for r in results)
        true = sum(int(((r["dtMatches"][0] > 0) & ~r["dtIgnore"][0]).sum()) for r in results)
        points.append((2 * true / (shown + num_objects), score))
    highest, score = max(points)
    assert best.f1 == pytest.approx(highest)
    assert score - 0.001 < best.threshold < score


def test_the_best_point_by_hand() -> None:
    truth = coco_dict(
        [1, 2, 3, 4],
        [
            annotation(1, CAT, BOX),
            annotation(2, DOG, BOX),
            annotation(3, DOG, BOX),
            annotation(1, DOG, [0, 0, 90, 60], iscrowd=1),
            annotation(4, CAT, BOX),
        ],
    )
    detections = rows(
        (1, CAT, BOX, 0.0124),  # right
        (1, DOG, ELSEWHERE, 0.0123),  # in a crowd: does not count
        (2, CAT, BOX, 0.0122),  # wrong class
        (2, DOG, BOX, 0.0121),  # right
        (3, DOG, ELSEWHERE, 0.0120),
    )
    best = evaluate(truth, detections, [1, 2, 3]).best_f1  # image 4 is not evaluated, so its object does not count
    assert (best.threshold, best.precision, best.recall, best.f1) == pytest.approx((0.01209, 2 / 3, 2 / 3, 2 / 3), abs=1e-5)
    assert 0.0120 < best.threshold < 0.0121


@pytest.mark.parametrize(
    ("num_objects", "detections", "threshold"),
    [
        (1, [], None),
        (0, [(BOX, 0.5)], None),
        (1, [(ELSEWHERE, 0.5)], None),
        (1, [(BOX, 0.5)], 0.499),
        (1, [(BOX, 1.0), (ELSEWHERE, 1.0)], 0.999),
        (1, [(BOX, 1e-7), (ELSEWHERE, 9e-8)], 9.99e-8),
        (1, [(BOX, 0.0)], 0.0),
    ],
)
def test_few_detections(num_objects: int, detections: list, threshold: float | None) -> None:
    truth = coco_dict([1], [annotation(1, CAT, BOX)] * num_objects)
    best = evaluate(truth, rows(*[(1, CAT, box, score) for box, score in detections])).best_f1
    assert (None if best is None else best.threshold) == threshold
