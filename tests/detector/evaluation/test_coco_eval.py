import copy

import numpy as np
import pytest

from detector.evaluation import coco_table, evaluate, load_ground_truth
from tests.detector.evaluation.cases import BIRD, CAT, DOG, annotation, answer_rows, random_case, rows
from tests.detector.fakes import CLASS_NAMES, coco_dict


def test_a_result_worked_out_by_hand() -> None:
    truth = coco_dict(
        [1, 2, 3, 4],
        [
            annotation(1, CAT, [10, 10, 20, 20]),
            annotation(2, CAT, [50, 10, 40, 40]),
            annotation(2, DOG, [0, 0, 100, 100], iscrowd=1),
            annotation(2, DOG, [200, 200, 120, 120]),
            annotation(4, BIRD, [10, 10, 20, 20]),
        ],
    )
    detections = rows(
        (1, CAT, [10, 10, 20, 20], 0.9),  # right
        (3, CAT, [10, 10, 20, 20], 0.8),  # wrong: the image has no objects
        (2, CAT, [50, 10, 40, 40], 0.7),  # right
        *[(2, DOG, [i * 20, 5, 15, 15], 0.95) for i in range(4)],  # inside the crowd: neither right nor wrong
        (2, DOG, [200, 200, 120, 120], 0.6),  # right
        *[(4, BIRD, [300, 10 + i, 20, 20], 0.9) for i in range(100)],  # wrong
        (4, BIRD, [10, 10, 20, 20], 0.5),  # right, but the 101st of its image
    )
    result = evaluate(truth, detections)
    cat = (51 + 50 * 2 / 3) / 101  # precision is 1 up to recall 0.50, then 2/3: 101 recall points
    assert result.per_class == pytest.approx({"cat": cat, "dog": 1.0, "bird": 0.0}, abs=1e-9)
    assert result.metrics["AP"] == pytest.approx((cat + 1 + 0) / 3, abs=1e-9)
    assert result.metrics["AP_small"] == pytest.approx((1 + 0) / 2)  # only the first cat is small
    assert result.metrics["AP_large"] == pytest.approx(1.0)
    assert result.metrics["AR100"] == pytest.approx((1 + 1 + 0) / 3)
    assert result.num_images == 4
    assert evaluate(truth, np.delete(detections, 8, axis=0)).per_class["bird"] == pytest.approx(1 / 100)  # now the 100th


def test_perfect_detections_score_one_whatever_the_annotations_lack() -> None:
    objects = [
        annotation(1, CAT, [10, 10, 20, 20], id=0),  # for pycocotools a match with the id 0 is no match
        annotation(1, CAT, [30, 30, 50, 50], area=0),
        annotation(1, DOG, [5, 5, 90, 90], iscrowd=1),
        annotation(2, DOG, [0, 0, 200, 110], id=2),  # an id that is used twice
        {"image_id": 2, "category_id": BIRD, "bbox": [1, 2, 3, 4]},  # no area, no iscrowd
    ]
    truth = coco_dict([1, 2, 3], objects)
    before = copy.deepcopy(truth)
    result = evaluate(truth, rows(*[(a["image_id"], a["category_id"], a["bbox"], 0.9) for a in objects]))
    assert truth == before
    assert result.per_class == dict.fromkeys(CLASS_NAMES, pytest.approx(1.0))
    assert all(value in (-1, pytest.approx(1)) for name, value in result.metrics.items() if name.startswith("AP"))
    assert result.metrics["AP"] == result.metrics["AR100"] == pytest.approx(1.0)


@pytest.mark.parametrize("num_objects", [0, 1])
@pytest.mark.parametrize("num_detections", [0, 1])
def test_no_detections_and_no_objects(num_objects: int, num_detections: int) -> None:
    truth = coco_dict([1], [annotation(1, CAT, [10, 10, 20, 20])] * num_objects)
    result = evaluate(truth, rows(*[(1, CAT, [10, 10, 20, 20], 0.5)] * num_detections))
    assert result.metrics["AP"] == pytest.approx(-1.0 if num_objects == 0 else float(num_detections))
    assert result.per_class["dog"] == -1.0
    assert "none" in coco_table({"one2one": result})
    assert evaluate(truth, rows(), image_ids=[]).metrics["AP"] == -1.0


def test_a_class_name_that_is_used_twice_gets_its_id() -> None:
    truth = coco_dict([1], [])
    truth["categories"][1]["name"] = "cat"
    assert list(evaluate(truth, rows()).per_class) == ["cat", f"cat ({DOG})", "bird"]


def test_images_without_ground_truth_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 of 3 evaluated images are not in the ground truth, e.g. ids \[5, 6\]"):
        evaluate(coco_dict([1], []), rows((5, CAT, [1, 1, 2, 2], 0.5)), image_ids=[1, 6])


def test_the_table_shows_every_metric_of_both_branches() -> None:
    truth, close, unrelated = random_case()
    coco = load_ground_truth(truth)
    results = {
        "one2one": evaluate(coco, answer_rows(close)),
        "one2many": evaluate(coco, answer_rows(unrelated)),
    }
    lines = coco_table(results).splitlines()
    assert len(lines) == 1 + 12 + 1 + 3
    assert lines[0].split() == ["21", "images", "one2one", "one2many"]
    assert lines[1].split()[:3] == ["AP"] + [f"{result.metrics['AP']:.4f}" for result in results.values()]
    assert lines[-1].split() == ["bird"] + [f"{result.per_class['bird']:.4f}" for result in results.values()]
