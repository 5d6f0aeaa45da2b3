import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.evaluation import detection_rows, load_ground_truth, read_predictions, write_predictions
from detector.evaluation.ids import Id
from tests.detector.evaluation.cases import CAT, annotation, rows
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


@pytest.mark.parametrize("ids", [(1, 2), ("ä", 'a"\n'), (2**60, 2**60 + 1)], ids=["small", "text", "large"])
@pytest.mark.parametrize("last", [0.25, np.nan, -np.inf])
def test_a_predictions_file_is_what_json_writes(ids: tuple[Id, Id], last: float, tmp_path: Path) -> None:
    truth = {"images": [{"id": i} for i in ids], "categories": [{"id": i, "name": "a"} for i in ids], "annotations": []}
    coco = load_ground_truth(truth)
    numbers = [coco.image_ids.number(i) for i in ids]
    boxes = [[1e-9, 1e22, 0.1, 5], [1, -0.0, 1 / 3, 1e300]]
    detections = rows(*[(n, n, box, score) for n, box, score in zip(numbers, boxes, (0.123456, last))])
    write_predictions(tmp_path / "predictions.json", detections, coco)
    entries = [
        {"image_id": i, "category_id": i, "bbox": box, "score": score}
        for i, box, score in zip(ids, detections[:, 1:5].tolist(), (0.123456, last))
    ]
    text = (tmp_path / "predictions.json").read_text()
    assert text == "[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("iscrowd", 0.5, "iscrowd 0.5; expected 0 or 1"),
        ("iscrowd", None, "iscrowd None; expected 0 or 1"),
        ("iscrowd", "1", "iscrowd '1'; expected 0 or 1"),
        ("area", "5", "the area '5'; expected a number"),
        ("bbox", None, "the bbox None; expected four numbers, x y width height"),
        ("bbox", [1, 2, 3], r"the bbox \[1, 2, 3\]; expected four numbers"),
        ("bbox", [1, 2, 3, "4"], r"the bbox \[1, 2, 3, '4'\]; expected four numbers"),
        ("bbox", "1234", "the bbox '1234'; expected four numbers"),
    ],
)
def test_a_wrong_field_of_an_annotation_is_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"the ground truth: annotation 1 has {message}"):
        load_ground_truth(coco_dict([1], [annotation(1, CAT, [1, 2, 3, 4]) | {field: value}]))


@pytest.mark.parametrize(("iscrowd", "expected"), [(True, 1), (1.0, 1), (False, 0), (np.int64(1), 1)])
def test_annotations_are_read_however_their_numbers_are_written(iscrowd: Any, expected: int) -> None:
    box = np.array([1, 2, 3, 4], np.float32)
    coco = load_ground_truth(coco_dict([1], [annotation(1, CAT, box, area=None, iscrowd=iscrowd)]))
    (read,) = coco.dataset["annotations"]
    assert read == {"id": 1, "image_id": 1, "category_id": CAT, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": expected}
    assert type(read["iscrowd"]) is int  # ultrafast-pycocotools takes no other type


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
