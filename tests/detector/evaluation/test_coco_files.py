import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.evaluation import detection_rows, load_ground_truth, read_predictions, write_predictions
from tests.detector.evaluation.cases import CAT, rows
from tests.detector.fakes import coco_dict


def test_rows_are_rounded_as_they_are_written(tmp_path: Path) -> None:
    detections = detection_rows(
        2**40 + 1, np.array([[1 / 3, 2 / 3, 100 / 3, 200 / 3]], np.float32), np.array([1 / 3], np.float32), np.array([90])
    )
    assert detections.tolist() == [[2**40 + 1, 0.333, 0.667, 33.0, 66.0, 0.333333, 90]]
    write_predictions(tmp_path / "predictions.json", detections)
    expected = {"image_id": 2**40 + 1, "category_id": 90, "bbox": [0.333, 0.667, 33.0, 66.0], "score": 0.333333}
    assert json.loads((tmp_path / "predictions.json").read_text()) == [expected]
    assert detection_rows(1, np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)).shape == (0, 7)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_written_predictions_are_read_back(number: int, tmp_path: Path) -> None:
    detections = rows(*[(1, CAT, [10, 10, 20, 20], 0.5)] * number)
    write_predictions(tmp_path / "predictions.json", detections)
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == number
    assert np.array_equal(read_predictions(tmp_path / "predictions.json"), detections)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, "annotations, categories"),
        ({**coco_dict([1], []), "annotations": [{"id": 5, "image_id": 1}]}, "annotation 5 has no category_id, bbox"),
    ],
    ids=["lists", "annotation"],
)
def test_incomplete_ground_truth_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_ground_truth(content)


def test_predictions_without_a_key_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"image_id": 1}]')
    with pytest.raises(ValueError, match=r"a\.json: has the entry .*; expected a dict with image_id, category_id, bbox"):
        read_predictions(tmp_path / "a.json")
