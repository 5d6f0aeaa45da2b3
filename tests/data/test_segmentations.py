"""Boxes that do not fit the segmentations of the same objects are counted; the boxes stay."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask

from data.annotations import Annotations
from data.coco import read_coco

Edit = Callable[[str, Callable[[dict[str, Any]], Any]], Path]
Segment = Callable[[list[float], tuple[int, int]], Any]


def read(root: Path) -> Annotations:
    return read_coco(root / "annotations/train.json", root / "images/train")


def polygon(bbox: list[float], size: tuple[int, int]) -> list[list[float]]:
    x, y, w, h = bbox
    return [[x, y, x + w / 2, y, x + w / 2, y + h], [x + w / 2, y, x + w, y + h / 2, x + w, y + h]]


def run_lengths(bbox: list[float], size: tuple[int, int]) -> dict[str, Any]:
    """As of crowds, in the order of columns."""
    x, y, w, h = map(int, bbox)
    pixels = np.zeros(size, np.uint8, order="F")
    pixels[y : y + h, x : x + w] = 1
    flat = pixels.flatten("F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, flat.size]).tolist()
    return {"size": list(size), "counts": [0, *counts] if flat[0] else counts}


def compressed(bbox: list[float], size: tuple[int, int]) -> dict[str, Any]:
    content = mask.frPyObjects(run_lengths(bbox, size), *size)
    return content | {"counts": content["counts"].decode()}


def write(edit_json: Edit, segment: Segment, moved: float = 0.0, number: int = 99) -> None:
    def change(content: dict[str, Any]) -> None:
        sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
        for n, annotation in enumerate(content["annotations"]):
            annotation["segmentation"] = segment(annotation["bbox"], sizes[annotation["image_id"]])
            if n < number:
                annotation["bbox"][0] += moved

    edit_json("train", change)


@pytest.mark.parametrize("segment", [polygon, run_lengths, compressed])
def test_boxes_are_compared_with_their_segmentations(tiny_coco: Path, edit_json: Edit, segment: Segment) -> None:
    write(edit_json, segment, moved=1.0)  # within the tolerance
    assert read(tiny_coco).remarks == ()
    write(edit_json, segment, moved=0.0)
    write(edit_json, lambda bbox, size: segment([bbox[0] - 7, *bbox[1:]] if bbox[0] >= 7 else bbox, size))
    with pytest.warns(
        UserWarning, match=r"\d+ of 13 boxes that were compared do not fit their segmentation, e\.g\. annotation 1010"
    ):
        annotations = read(tiny_coco)
    assert "segmentation lies within [4.0, 8.0, 24.0, 24.0]" in annotations.remarks[0].text
    assert annotations.bboxes[0, 0] == 11  # as in the file


@pytest.mark.parametrize(
    "content", [[], None, {}, "", [[]], [[1, 2, 3]], {"counts": "?", "size": [1, 1]}, {"counts": [5]}, 7]
)
def test_other_segmentations_are_not_compared(tiny_coco: Path, edit_json: Edit, content: Any) -> None:
    write(edit_json, lambda bbox, size: content)
    assert read(tiny_coco).remarks == ()


def test_few_differences_give_no_remark(tiny_coco: Path, edit_json: Edit) -> None:
    write(edit_json, polygon, moved=20.0, number=1)
    assert read(tiny_coco).remarks == ()
