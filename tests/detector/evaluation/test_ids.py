"""Ids of images and categories are exact from file to file, whatever float64 would do to them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from detector.evaluation import (
    detection_rows,
    evaluate,
    load_ground_truth,
    read_predictions,
    write_ground_truth,
    write_predictions,
)
from detector.evaluation.coco_eval import Backend
from detector.evaluation.ids import Id, Ids
from tests.detector.evaluation.cases import IMAGES, answer_rows, plain_pycocotools, random_case, with_ids
from tests.detector.fakes import CATEGORY_IDS

LARGEST = 2**63 - 1
IMAGE_IDS: dict[str, Callable[[int], Id]] = {
    "two beside each other above 2**53": lambda n: 2**53 + n,
    "63 bits": lambda n: LARGEST - n,
    "negative and 0": lambda n: n - 5,
    "large and negative": lambda n: -LARGEST + n,
    "text": lambda n: f"image {n}.jpg",
    "text of digits": lambda n: f"{n:03}",
}


@pytest.mark.parametrize("kind", IMAGE_IDS)
def test_ids_are_exact_from_file_to_file(kind: str, tmp_path: Path) -> None:
    """The metrics are those of small ids, by both backends and by plain pycocotools with the user's own file."""
    plain, close, _ = random_case()
    image_ids = {image_id: IMAGE_IDS[kind](n) for n, image_id in enumerate(IMAGES)}
    category_ids = dict(zip(CATEGORY_IDS, (2**53 + 1, 2**53 + 2, LARGEST)))
    content = with_ids(plain, image_ids, category_ids)
    truth = load_ground_truth(content)
    detections = answer_rows(close)
    detections[:, 5] = detections[:, 5].round(1)  # equal scores: the order of the images decides
    expected = evaluate(plain, detections)
    for row in detections:
        row[0] = truth.image_ids.number(image_ids[int(row[0])])
        row[6] = truth.category_ids.number(category_ids[int(row[6])])
    results = [evaluate(truth, detections, list(image_ids.values()), backend) for backend in get_args(Backend)]
    for result in results if list(image_ids.values()) == sorted(image_ids.values()) else []:  # in the order of small ids
        assert result.metrics == pytest.approx(expected.metrics, rel=0, abs=1e-12)
        assert result.per_class == pytest.approx(expected.per_class, rel=0, abs=1e-12)
    path = tmp_path / "predictions.json"
    write_predictions(path, detections, truth)
    written = json.loads(path.read_text())
    assert {entry["image_id"] for entry in written} == {image_ids[i] for i in close if close[i]}
    assert {entry["category_id"] for entry in written} == set(category_ids.values())
    assert (read_predictions(path, truth) == detections).all()
    offline, _ = plain_pycocotools(content, path, tmp_path)
    assert offline == list(results[0].metrics.values())
    assert offline == pytest.approx(list(results[1].metrics.values()), rel=0, abs=1e-12)

    evaluated = list(image_ids.values())[:7]
    write_ground_truth(tmp_path / "ground_truth.json", truth, evaluated)
    written = json.loads((tmp_path / "ground_truth.json").read_text())
    for key in ("image_id", "category_id", "bbox"):
        assert [a[key] for a in written["annotations"]] == [
            a[key] for a in content["annotations"] if a["image_id"] in evaluated
        ]
    assert [image["id"] for image in written["images"]] == evaluated
    assert written["categories"] == content["categories"]


def test_ids_that_float64_holds_are_their_own_numbers() -> None:
    exact = Ids("image", [0, -3, 2**53])
    assert [exact.number(id_) for id_ in (0, -3, 2**53, 17)] == [0, -3, 2**53, 17]
    large = Ids("category", [2**53, 2**53 + 1])
    assert [large.number(id_) for id_ in (2**53, 2**53 + 1, 5)] == [1, 2, 3]
    assert [large.id(number) for number in (1, 2, 3)] == [2**53, 2**53 + 1, 5]


@pytest.mark.parametrize(
    ("image_id", "message"),
    [
        (1.5, r"the id 1\.5; expected a whole number"),
        (True, "the id True; expected a whole number"),
        (None, "the id None; expected a whole number"),
        (2**63, "the id 9223372036854775808; expected a whole number of at most 63 bits"),
        (2.0**53, r"the id 9007199254740992\.0; expected a whole number"),
        ("2", r"ids are both text and numbers, e\.g\. \[20000001, '2', 20000003\]"),
        (IMAGES[0], "the image id 20000001 is used twice"),
    ],
)
def test_other_ids_are_refused(image_id: Any, message: str) -> None:
    plain, _, _ = random_case()
    plain["images"][1]["id"] = image_id
    with pytest.raises(ValueError, match=message):
        load_ground_truth(plain)


def test_whole_floats_are_numbers_and_text_is_none() -> None:
    plain, close, _ = random_case()
    floats = with_ids(plain, {i: float(i) for i in IMAGES}, {i: float(i) for i in CATEGORY_IDS})
    assert evaluate(floats, answer_rows(close)).metrics == evaluate(plain, answer_rows(close)).metrics
    plain["annotations"][0]["image_id"] = str(plain["annotations"][0]["image_id"])
    with pytest.raises(
        ValueError, match="annotation 1: the image id '20000001' is text, but those of the ground truth are numbers"
    ):
        load_ground_truth(plain)


def test_rows_refuse_ids_that_they_would_round(tmp_path: Path) -> None:
    _, close, _ = random_case()
    boxes, scores = answer_rows(close)[:1, 1:5], answer_rows(close)[:1, 5]
    for image_id, category_id in ((2**53 + 1, 1), (1, 2**53 + 1), ("a.jpg", 1)):
        with pytest.raises(ValueError, match=r"cannot hold the ids .*image_ids\.number\(id\)"):
            detection_rows(image_id, boxes, scores, [category_id])
        path = tmp_path / "predictions.json"
        path.write_text(json.dumps([{"image_id": image_id, "category_id": category_id, "bbox": [1, 2, 3, 4], "score": 0.5}]))
        with pytest.raises(ValueError, match=r"predictions\.json: entry 0: the (image|category) id"):
            read_predictions(path)
