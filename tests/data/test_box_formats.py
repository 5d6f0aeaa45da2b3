"""Boxes in another format than their file's are named; sound boxes are not."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from data.box_formats import CXCYWH, XYWH, area_remarks, box_format_remarks
from detector.batch import xywh_to_xyxy

SIZES = (480, 640)


def sound_boxes(number: int, seed: int = 0, largest: float = 0.5) -> np.ndarray:
    """Return boxes x y width height inside an image of SIZES."""
    rng = np.random.default_rng(seed)
    sides = rng.uniform(0.02, largest, (number, 2)) * SIZES[::-1]
    return np.concatenate([rng.uniform(0, 1, (number, 2)) * (np.array(SIZES[::-1]) - sides), sides], axis=1)


def lines(values: np.ndarray, read_as: str = XYWH) -> list[tuple[str, str]]:
    sizes = np.tile(SIZES, (len(values), 1))
    return [(one.level, one.line()) for one in box_format_remarks(values, sizes, read_as, lambda n: f"box {n}")]


FOUR = np.array([640, 480, 640, 480])
WRONG: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str, str]] = {
    "shares": (lambda b: b / FOUR, "error", "all boxes lie within 0..1, e.g. box 0: they look like shares of the image"),
    "shares of the width": (lambda b: b / [640, 1, 640, 1], "error", "x and width of all boxes lie within 0..1, e.g. box 0"),
    "shares as corners": (lambda b: xywh_to_xyxy(b) / FOUR, "error", "all boxes lie within 0..1"),
    "shares twice": (lambda b: b / [1, 1, 640, 480], "error", "every box is smaller than a pixel, e.g. box 0"),
    "corners": (xywh_to_xyxy, "error", "as x y width height, .* of 40 boxes leave .*; as x1 y1 x2 y2, all lie inside"),
    "corners, y first": (lambda b: xywh_to_xyxy(b)[:, [1, 0, 3, 2]], "error", "as y1 x1 y2 x2, all lie inside"),
    "centers": (lambda b: b + np.concatenate([b[:, 2:] / 2, b[:, 2:] * 0], 1), "(error|warning)", "as center x, center y"),
    "percent": (lambda b: b / FOUR * 100, "warning", "no box reaches beyond 15% of the width and 20% of the height"),
    "a smaller copy": (lambda b: b / 2, "warning", "no box reaches beyond .*a smaller copy of the images"),
    "a larger copy": (lambda b: b * 2, "warning", "boxes leave their image.*a larger copy of the images"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_boxes_of_another_format_are_named(fault: str) -> None:
    change, level, message = WRONG[fault]
    ((found_level, line),) = lines(change(sound_boxes(40)))
    assert re.fullmatch(level, found_level)
    assert re.search(message, line), line


@pytest.mark.parametrize("number", [1, 2, 5, 12, 40, 200])
@pytest.mark.parametrize("largest", [0.03, 0.3, 1.0])
def test_sound_boxes_give_no_remark(number: int, largest: float) -> None:
    for seed in range(10):
        boxes = sound_boxes(number, seed, largest)
        assert lines(boxes) == []
        centers = np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)
        assert lines(centers, CXCYWH) == []
        off_by_one = boxes + np.array([0, 0, 1, 1])  # many tools round this way
        assert lines(off_by_one) == []


@pytest.mark.parametrize(
    "boxes",
    [
        [[0, 0, 640, 480]] * 30,  # the whole image
        [[0, 0, 1, 1]],  # a single pixel
        [[3, 5, 8.5, 6]],
        [[0, 0, 0, 0]] * 6 + [[30.5, 50.5, 80.5, 60.5]] * 4,  # boxes without area
        [[0, 0, 0, 0]] * 6,
        [[600, 400, 100, 100], [10, 10, 0, 5], [5, 5, 50, 50]],  # single faults have their own warnings
        [],
    ],
)
def test_unusual_boxes_give_no_remark(boxes: list[list[float]]) -> None:
    assert lines(np.array(boxes, float).reshape(-1, 4)) == []


def test_yolo_labels_with_another_order_are_named() -> None:
    boxes = sound_boxes(40)
    ((_, line),) = lines(boxes, CXCYWH)
    assert "as center x, center y, width, height" in line
    assert "as x y width height, all lie inside" in line
    ((_, line),) = lines(xywh_to_xyxy(boxes), CXCYWH)
    assert "as x1 y1 x2 y2, all lie inside" in line


def test_areas_tell_corners_and_other_sizes_of_a_few_boxes() -> None:
    boxes = sound_boxes(4)
    areas = boxes[:, 2:].prod(axis=1)
    assert area_remarks(boxes, areas, str) == []
    assert area_remarks(boxes, areas * 0.6, str) == []  # of a segmentation
    assert area_remarks(boxes, areas * np.nan, str) == []  # the file has none
    (remark,) = area_remarks(boxes, areas * 0, str)
    assert remark.level == "warning"
    assert remark.text.startswith(f"{len(boxes)} annotations have the area 0, e.g. 0; they all count as small")
    (remark,) = area_remarks(xywh_to_xyxy(boxes), areas, str)
    assert (remark.level, remark.text[:44]) == ("error", "the areas are those of boxes x1 y1 x2 y2, e.")
    (remark,) = area_remarks(boxes / 2, areas, str)
    assert (remark.level, remark.text[:55]) == ("warning", "areas are larger than width x height, 4 times in the mi")
