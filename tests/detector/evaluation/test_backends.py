"""The backends give what pycocotools gives.

A few cases run with the other tests. ``EVALUATION_CASES=2000 python -m pytest tests/detector/evaluation/test_backends.py``
runs 2,000 with every backend that is installed: try a new version of a package with it.
"""

import os
from functools import cache
from typing import Any

import numpy as np
import pytest

from detector.evaluation import backends as backends_module
from detector.evaluation import evaluate, load_ground_truth, run_coco_eval
from detector.evaluation.backends import PACKAGES, Backend, find_pairs
from detector.evaluation.coco_eval import class_ap
from detector.evaluation.pairs import Pairs
from detector.evaluation.thresholds import BEST_F1_IOU, best_operating_point
from tests.detector.evaluation.cases import CAT, annotation, rows
from tests.detector.evaluation.hard_cases import hard_case
from tests.detector.fakes import coco_dict

CASES = int(os.environ.get("EVALUATION_CASES", 25))
# pycocotools divides by n + 2.2e-16, and faster-coco-eval by n, which shows where n is 1.
TOLERANCES = {"faster-coco-eval": 1e-12, "ultrafast-pycocotools": 0}
ULTRAFAST = "ultrafast-pycocotools"


@pytest.fixture(params=PACKAGES)
def backend(request: pytest.FixtureRequest) -> Backend:
    pytest.importorskip(PACKAGES[request.param])
    return request.param


@cache
def result(backend: Backend, seed: int) -> tuple[dict[str, Any], Pairs, Any]:
    """Return what a backend gives for a case: numbers and arrays by name, the pairs, and the threshold of the best F1."""
    case = hard_case(seed)
    coco_eval = run_coco_eval(case.coco, case.detections, case.images, case.limits, backend)
    assert type(coco_eval).__module__.partition(".")[0] == PACKAGES.get(backend, "pycocotools")
    pairs = find_pairs(backend, case.coco, coco_eval, case.detections, BEST_F1_IOU)
    numbers = {"stats": coco_eval.stats, "class_ap": list(class_ap(case.coco, coco_eval).values())}
    numbers |= {name: coco_eval.eval[name] for name in ("precision", "recall", "scores")}
    return numbers, pairs, best_operating_point(case.coco, pairs, case.detections[:, 5], case.images)


def test_every_backend_gives_what_pycocotools_gives(backend: Backend) -> None:
    """All that is read from an evaluation, for the hard cases; only a backend with the tolerance 0 is equal to the bit."""
    for seed in range(CASES):
        expected, expected_pairs, expected_best = result("pycocotools", seed)
        numbers, pairs, best = result(backend, seed)
        for name, values in expected.items():
            np.testing.assert_allclose(numbers[name], values, rtol=0, atol=TOLERANCES[backend], err_msg=f"{seed}: {name}")
        for found, expected_found in zip(pairs, expected_pairs):
            np.testing.assert_array_equal(found, expected_found, err_msg=f"case {seed}: pairs")
        assert best == expected_best, seed


def test_the_cases_are_hard() -> None:
    """They have what may differ between backends, so that the test above sees it."""
    cases = [hard_case(seed) for seed in range(25)]
    by_group = [
        np.unique(case.detections[:, [0, 6]], axis=0, return_counts=True)[1].max(initial=0) for case in cases
    ]  # detections of an image and class
    objects = [a for case in cases for a in case.coco.dataset["annotations"]]
    tied = [len(np.unique(case.detections[:, 5])) < len(case.detections) for case in cases]
    assert max(by_group) > 100
    assert sum(tied) > 10
    assert sum(a["iscrowd"] for a in objects) > 10
    assert sum(a["area"] > 1e10 for a in objects) > 10
    assert any(not len(case.detections) for case in cases)
    assert any(not case.images and len(case.detections) for case in cases)
    assert any((case.detections[:, 3:5] <= 0).any() for case in cases)
    assert {len(case.limits) for case in cases} == {3, 5}
    assert len({result("pycocotools", seed)[0]["stats"][0] for seed in range(25)}) > 10


@pytest.mark.parametrize("column", [1, 3, 5])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_ultrafast_pycocotools_counts_what_is_not_finite_as_pycocotools_does(column: int, value: float) -> None:
    """A box side of 1e200 is finite, and the area of the box is not."""
    pytest.importorskip(PACKAGES[ULTRAFAST])
    coco = load_ground_truth(coco_dict([1, 2], [annotation(1, CAT, [0, 0, 10, 10]), annotation(2, CAT, [0, 0, 50, 50])]))
    detections = rows((1, CAT, [0, 0, 10, 10], 0.9), (2, CAT, [0, 0, 50, 50], 0.8), (2, CAT, [9, 0, 50, 50], 0.7))
    detections[0, column] = value
    expected, found = (run_coco_eval(coco, detections, [1, 2], backend=backend) for backend in ("pycocotools", ULTRAFAST))
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(found.eval[name], expected.eval[name])


def test_an_unknown_or_missing_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Python, too, where no command has checked it: a wrong name must not become pycocotools."""
    truth, detections = coco_dict([1], []), np.empty((0, 7))
    with pytest.raises(ValueError, match="unknown backend 'ultrafast'; did you mean ultrafast-pycocotools"):
        evaluate(truth, detections, backend="ultrafast")
    monkeypatch.setattr("detector.extras.find_spec", lambda package: None)
    for backend, extra in (("faster-coco-eval", "fast-eval"), (ULTRAFAST, "ultrafast-eval")):
        with pytest.raises(ValueError, match=rf"backend '{backend}' needs {PACKAGES[backend]}, .*pip install .*\[{extra}\]"):
            evaluate(truth, detections, backend=backend)


def test_a_forked_process_is_refused_and_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """ultrafast-pycocotools has threads, which a forked process lacks."""
    pytest.importorskip(PACKAGES[ULTRAFAST])
    truth, detections = coco_dict([1], [annotation(1, CAT, [0, 0, 10, 10])]), rows((1, CAT, [0, 0, 10, 10], 0.9))
    assert evaluate(truth, detections, backend=ULTRAFAST).metrics["AP"] == pytest.approx(1)
    monkeypatch.setattr(backends_module.os, "getpid", lambda: -1)
    with pytest.raises(ValueError, match=r"forked from one .* start it with 'spawn', or use the backend 'pycocotools'"):
        evaluate(truth, detections, backend=ULTRAFAST)
