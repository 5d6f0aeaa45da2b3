"""The AP of a constant box against values worked out by hand."""

from typing import Any

import numpy as np
import pytest

from detector.evaluation import constant_box
from detector.evaluation.coco_files import load_ground_truth
from detector.evaluation.constant_box import evaluate_constant_box, mean_boxes, mean_boxes_of


def content(*objects: tuple, sizes: dict[int, tuple[int, int]]) -> dict[str, Any]:
    """A COCO annotation file of (image id, category id, x y width height) and images of (width, height)."""
    return {
        "images": [{"id": i, "width": width, "height": height} for i, (width, height) in sizes.items()],
        "annotations": [
            {"id": n, "image_id": o[0], "category_id": o[1], "bbox": o[2], "iscrowd": o[3] if len(o) > 3 else 0}
            for n, o in enumerate(objects, start=1)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
    }


# Shares of the image: center (0.3, 0.4), sides 0.4 and 0.4; center (0.6, 0.5), sides 0.2 and 0.6. The crowd does not count.
TRAIN = content(
    (1, 1, [10, 20, 40, 40]), (2, 1, [100, 20, 40, 60]), (2, 1, [0, 0, 200, 100], 1), sizes={1: (100, 100), 2: (200, 100)}
)


def test_mean_boxes_are_means_of_shares_of_images_of_any_shape() -> None:
    means = mean_boxes_of(load_ground_truth(TRAIN))
    assert means.labels.tolist() == [0]
    assert means.boxes_cxcywh[0] == pytest.approx([0.45, 0.45, 0.3, 0.5])
    assert means.shares.tolist() == [1]


def test_boxes_are_clipped_and_those_without_area_left_out() -> None:
    bboxes = np.array([[-50.0, 0, 100, 100], [0, 0, 0, 50], [300, 0, 10, 10], [0, 0, 20, 10]])
    means = mean_boxes(bboxes, np.array([[100, 200]] * 4), np.array([0, 0, 0, 1]))
    assert means.boxes_cxcywh.tolist() == [pytest.approx([0.125, 0.5, 0.25, 1]), pytest.approx([0.05, 0.05, 0.1, 0.1])]
    assert means.shares.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("with_object", [1, 2, 3])
def test_ap_does_not_depend_on_the_order_of_the_images(with_object: int) -> None:
    """One of three images has an object, with IoU 0.82: right at 7 of 10 thresholds, with a precision of a third."""
    truth = content((with_object, 1, [30, 40, 30, 82]), sizes=dict.fromkeys((1, 2, 3), (100, 200)))  # the box: 30 40 30 100
    result = evaluate_constant_box(load_ground_truth(truth), mean_boxes_of(load_ground_truth(TRAIN)))
    assert result.metrics["AP50"] == pytest.approx(1 / 3)
    assert result.metrics["AP"] == pytest.approx(0.7 / 3)
    assert result.num_detections == 3


def test_one_large_object_in_every_image() -> None:
    truth = content(
        *((i, 1, [20, 20, 60, 60]) for i in (1, 2)), (3, 7, [5, 5, 80, 90]), sizes=dict.fromkeys((1, 2, 3), (100, 100))
    )
    coco = load_ground_truth(truth)
    result = evaluate_constant_box(coco, mean_boxes_of(coco))
    assert result.per_class == pytest.approx({"cat": 2 / 3, "dog": 1 / 3})  # a class is on some of the images only
    of_train = evaluate_constant_box(coco, mean_boxes_of(load_ground_truth(TRAIN)))
    assert of_train.per_class == pytest.approx({"cat": 0, "dog": 0})  # IoU below 0.5; and no dog in train


def test_ids_that_float64_would_round() -> None:
    truth = content(
        *((f"image {i}", 2**60 + 1, [20, 20, 60, 60]) for i in (1, 2)), sizes={"image 1": (100, 100), "image 2": (100, 100)}
    )
    truth["categories"] = [{"id": 2**60, "name": "cat"}, {"id": 2**60 + 1, "name": "dog"}]
    coco = load_ground_truth(truth)
    assert evaluate_constant_box(coco, mean_boxes_of(coco)).per_class == pytest.approx({"cat": -1, "dog": 1})


def test_nothing_to_evaluate() -> None:
    coco, empty = load_ground_truth(TRAIN), load_ground_truth(content(sizes={1: (100, 100)}))
    assert evaluate_constant_box(empty, mean_boxes_of(coco)) is None
    assert evaluate_constant_box(coco, mean_boxes_of(empty)) is None
    without_size = load_ground_truth(content((1, 1, [0, 0, 5, 5]), sizes={1: (100, None)}))
    assert mean_boxes_of(without_size) is None
    assert evaluate_constant_box(without_size, mean_boxes_of(coco)) is None


def test_large_sets_are_evaluated_on_evenly_spaced_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constant_box, "MAX_DETECTIONS", 3)
    coco = load_ground_truth(
        content((1, 1, [0, 0, 50, 50]), (9, 1, [0, 0, 50, 50]), sizes=dict.fromkeys(range(1, 10), (100, 100)))
    )
    result = evaluate_constant_box(coco, mean_boxes_of(coco))
    assert (result.num_images, result.num_detections) == (3, 3)
    assert result.metrics["AP50"] == pytest.approx(2 / 3)  # images 1, 5 and 9
