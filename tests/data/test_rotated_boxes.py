"""Rotated rectangles become the upright boxes around them, and are counted."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.coco import read_coco
from data.rotated_boxes import bboxes_around

Edit = Callable[[str, Callable[[dict[str, Any]], Any]], Path]


def read(root: Path):
    return read_coco(root / "annotations/train.json", root / "images/train")


def test_boxes_around_rotated_rectangles_worked_out_by_hand() -> None:
    bboxes = np.array([[10, 20, 40, 20]] * 4, float)  # the center is 30, 30
    around = bboxes_around(bboxes, np.radians([0, 90, -180, 30]))
    cos, sin = math.sqrt(3) / 2, 0.5
    width, height = 40 * cos + 20 * sin, 40 * sin + 20 * cos
    by_hand = [30 - width / 2, 30 - height / 2, 30 + width / 2, 30 + height / 2]
    np.testing.assert_allclose(around, [[10, 20, 50, 40], [20, 10, 40, 50], [10, 20, 50, 40], by_hand])


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({"attributes": {"rotation": 90.0, "occluded": False}}, r"attributes\.rotation"),
        ({"rotation": -270}, "rotation"),
        ({"attributes": {"rotation": "90.0"}}, r"attributes\.rotation"),
        ({"angle": 90}, "angle"),  # more than a turn of radians
        ({"angle": math.pi / 2}, "angle"),
        ({"attributes": {"angle": math.pi / 2}}, r"attributes\.angle"),
    ],
)
def test_rotated_rectangles_are_counted(tiny_coco: Path, edit_json: Edit, fields: dict[str, Any], keys: str) -> None:
    edit_json("train", lambda content: content["annotations"][0].update(fields, bbox=[10, 8, 20, 40]))
    with pytest.warns(
        UserWarning, match=rf"1 annotation carries a rotation \({keys}\), e\.g\. annotation 1010 of -?\d"
    ) as caught:
        annotations = read(tiny_coco)
    assert len(caught) == 1
    assert annotations.objects(0)[0][0].tolist() == [0, 18, 40, 38]
    truth = annotations.ground_truth()["annotations"]
    assert [a["bbox"] for a in truth if a["id"] == 1010] == [[0, 18, 40, 20]]
    assert [remark.level for remark in annotations.remarks] == ["warning"]


def test_a_rotated_box_is_clipped_to_the_image(tiny_coco: Path, edit_json: Edit) -> None:
    edit_json("train", lambda c: c["annotations"][0].update(bbox=[2, 8, 20, 40], rotation=90))
    with pytest.warns(UserWarning, match="clipped to the image"):
        assert read(tiny_coco).bboxes[0].tolist() == [0, 18, 32, 20]


@pytest.mark.parametrize(
    "fields",
    [
        {"attributes": {"rotation": 0.0}},
        {"rotation": 180},
        {"attributes": {"rotation": "left"}},
        {"rotation": "nan"},
        {"attributes": []},
    ],
)
def test_no_rotation_is_no_warning(tiny_coco: Path, edit_json: Edit, fields: dict[str, Any]) -> None:
    edit_json("train", lambda content: content["annotations"][0].update(fields))
    annotations = read(tiny_coco)
    assert annotations.remarks == ()
    assert annotations.objects(0)[0][0].tolist() == [10, 8, 30, 24]
