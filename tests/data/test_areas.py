"""The areas of the annotation file decide what is small, medium and large: from the file to the metrics."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import CocoDataModule
from detector.evaluation import evaluate, load_ground_truth, read_predictions
from tests.conftest import write_coco
from tests.data.perfect import evaluate_perfectly

# By their boxes two objects are medium and one is large; by the areas of their outlines two are small and one is medium.
IMAGES = [(128, 160, [(7, 10, 10, 60, 30), (22, 20, 60, 100, 50)]), (128, 128, [(90, 8, 8, 110, 100)])]
AREAS = [400, 900, 5000]


@pytest.fixture
def outlined(tiny_arguments: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Arguments for a set whose areas are those of outlines, far below width x height."""
    root = tmp_path / "outlined"
    for split in ("train", "val"):
        write_coco(root, split, IMAGES, first_id=1)
        path = root / f"annotations/{split}.json"
        content = json.loads(path.read_text())
        for entry, area in zip(content["annotations"], AREAS, strict=True):
            entry["area"] = area
        path.write_text(json.dumps(content))
    return tiny_arguments | {"root": str(root)}


JOINED = {"val_annotations": ["annotations/val.json"] * 2, "val_images": ["images/val", "images/train"]}
TEST = {"test_annotations": "annotations/val.json", "test_images": "images/val"}


@pytest.mark.parametrize(
    ("change", "split"),
    [({}, "val"), ({"rect": True}, "val"), ({"single_cls": True}, "val"), (JOINED, "val"), (TEST, "test")],
    ids=["plain", "rect", "one class", "joined", "test"],
)
@pytest.mark.filterwarnings("ignore:look at your data")
def test_areas_of_outlines_reach_the_metrics(
    outlined: dict[str, Any], tmp_path: Path, change: dict[str, Any], split: str
) -> None:
    """While training evaluates, and from the files of that evaluation."""
    data = CocoDataModule(**outlined | change)
    metrics = evaluate_perfectly(data, tmp_path, split)
    expected = {"AP_small": 1.0, "AP_medium": 1.0, "AP_large": -1.0, "AR_small": 1.0, "AR_medium": 1.0, "AR_large": -1.0}
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    suffix = "" if split == "val" else "_test"
    truth, detections = tmp_path / f"ground_truth{suffix}.json", read_predictions(tmp_path / f"predictions{suffix}.json")
    assert json.loads(truth.read_text())["info"] == data.ground_truth(split)["info"]  # the folder of the images
    written = json.loads(truth.read_text())["annotations"]
    assert sorted(entry["area"] for entry in written) == sorted(AREAS * (len(written) // 3))
    assert evaluate(load_ground_truth(truth), detections).metrics == metrics
    for entry in written:
        entry["area"] = entry["bbox"][2] * entry["bbox"][3]
    by_box = load_ground_truth(json.loads(truth.read_text()) | {"annotations": written})
    assert evaluate(by_box, detections).metrics["AP_small"] == -1, "the areas of the boxes would give other metrics"


def test_areas_of_zero_and_missing_areas(outlined: dict[str, Any], tmp_path: Path) -> None:
    """An area of 0 stays 0, which is small; a missing area is that of the box."""
    path = Path(outlined["root"]) / "annotations/val.json"
    content = json.loads(path.read_text())
    for entry, area in zip(content["annotations"], (0, None, 5000), strict=True):
        entry["area"] = area
    del content["annotations"][1]["area"]
    path.write_text(json.dumps(content))
    metrics = evaluate_perfectly(CocoDataModule(**outlined), tmp_path)
    written = json.loads((tmp_path / "ground_truth.json").read_text())["annotations"]
    assert [entry["area"] for entry in written] == [0, 100 * 50, 5000]
    assert [metrics[f"AP_{size}"] for size in ("small", "medium", "large")] == pytest.approx([1, 1, -1])


def test_crowds_are_neither_objects_nor_misses(tiny_arguments: dict[str, Any], tmp_path: Path, edit_json: Callable) -> None:
    """As objects, the crowds of the set would count as missed: a perfect detector does not see them."""
    metrics = evaluate_perfectly(CocoDataModule(**tiny_arguments), tmp_path)
    assert metrics["AP"] == pytest.approx(1)
    written = json.loads((tmp_path / "ground_truth.json").read_text())["annotations"]
    assert sum(entry["iscrowd"] for entry in written) == 1
    edit_json("val", lambda content: [entry.update(iscrowd=0) for entry in content["annotations"]])
    content = json.loads((tmp_path / "tiny/annotations/val.json").read_text())
    assert evaluate(content, read_predictions(tmp_path / "predictions.json")).metrics["AP"] < 0.9


def test_false_detections_count_by_the_area_of_their_box() -> None:
    """A false detection of 50 x 50 pixels is medium: among the small objects it does not count."""
    rows = [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "area": 150, "iscrowd": 0}]
    rows += [{"image_id": 1, "category_id": 1, "bbox": [100, 10, 60, 60], "area": 2000, "iscrowd": 0}]
    truth = {"images": [{"id": 1}], "annotations": rows, "categories": [{"id": 1, "name": "a"}]}
    false_one, small, medium = [40, 40, 50, 50, 0.9], [10, 10, 20, 20, 0.5], [100, 10, 60, 60, 0.4]
    metrics = evaluate(truth, np.array([[1, *row, 1] for row in (false_one, small, medium)])).metrics
    assert metrics["AP_small"] == pytest.approx(1)
    assert metrics["AP_medium"] == pytest.approx(1 / 2)
