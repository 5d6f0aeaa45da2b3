"""The numbers of the page, computed by each backend."""

import json
from pathlib import Path

import numpy as np

from detector.evaluation import write_predictions
from detector.report.analysis import analyze
from detector.report.curves import ap_by_limit, precision_recall
from tests.detector.evaluation.cases import installed_backends
from tests.detector.report.cases import random_case


def test_every_backend_gives_the_page_the_same_numbers(tmp_path: Path) -> None:
    content, detections = random_case(3)
    truth, predictions = tmp_path / "truth.json", tmp_path / "predictions.json"
    truth.write_text(json.dumps(content))
    write_predictions(predictions, detections)
    expected, *others = (analyze("one2one", predictions, truth, backend=backend) for backend in installed_backends())
    for analysis in others:
        np.testing.assert_allclose(
            list(analysis.result.metrics.values()), list(expected.result.metrics.values()), rtol=0, atol=1e-12
        )
        curves = precision_recall(analysis.coco_eval, 0.5), precision_recall(expected.coco_eval, 0.5)
        np.testing.assert_allclose(*curves, rtol=0, atol=1e-12)
        limits, expected_limits = ap_by_limit(analysis.coco_eval), ap_by_limit(expected.coco_eval)
        assert list(limits) == list(expected_limits) == [100, 300, 1000]
        np.testing.assert_allclose(list(limits.values()), list(expected_limits.values()), rtol=0, atol=1e-12)
        np.testing.assert_array_equal(analysis.matching.matches, expected.matching.matches)
        np.testing.assert_array_equal(analysis.matching.counted, expected.matching.counted)
        assert analysis.best == expected.best
