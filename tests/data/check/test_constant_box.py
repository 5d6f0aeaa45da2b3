"""The AP of a constant box in the data check, against values worked out by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data.check.constant_box import constant_box_findings
from data.check.findings import Splits
from data.coco import read_coco
from tests.conftest import write_coco


def read(root: Path, **images: list[tuple]) -> Splits:
    """Write and read splits of (height, width, [(category id, x y width height)])."""
    splits = {}
    for split, rows in images.items():
        write_coco(root, split, rows, first_id=10)
        splits[split] = read_coco(root / "annotations" / f"{split}.json", root / "images" / split)
    return splits


def test_one_large_object_in_every_image_gives_a_warning(tmp_path: Path) -> None:
    """The mean box of train is 10 10 80 80 in an image of 100 x 100; that of val overlaps it by 0.8 * 0.9 = 0.72."""
    train = [(100, 100, [(7, 0, 0, 80, 80)]), (50, 200, [(7, 40, 10, 160, 40)])]
    splits = read(tmp_path, train=train, val=[(100, 100, [(7, 10, 10, 64, 72)]), (100, 100, [])])
    (finding,) = constant_box_findings(splits)
    assert (finding.level, finding.split) == ("warning", "val")
    assert "the mean box of each class of train" in finding.text
    assert "has AP50 0.500 and AP 0.250" in finding.text  # right at 5 of 10 thresholds, on one of two images
    assert "an AP50 below 0.500 shows nothing" in finding.text


def test_small_objects_at_many_places_give_a_note(tmp_path: Path) -> None:
    objects = [(100, 100, [(7, 10 * n, 10 * (n % 3), 10, 10)]) for n in range(9)]
    (finding,) = constant_box_findings(read(tmp_path, train=objects, val=objects))
    assert finding.level == "note"
    assert "at or below that shows nothing" in finding.text


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_single_split_is_evaluated_on_itself(tmp_path: Path, split: str) -> None:
    (finding,) = constant_box_findings(read(tmp_path, **{split: [(100, 100, [(7, 20, 20, 60, 60)])]}))
    assert finding.split == split
    assert f"of {split}, the same on every image) has AP50 1.000 and AP 1.000" in finding.text


def test_splits_without_objects_have_no_finding(tmp_path: Path) -> None:
    splits = read(tmp_path, train=[(50, 50, [(7, 5, 5, 40, 40)])], val=[(50, 50, [])])
    assert constant_box_findings(splits) == []
    assert constant_box_findings({"train": splits["val"], "val": splits["train"]}) == []
    assert constant_box_findings({}) == []


def test_the_command_prints_it(check: Callable) -> None:
    status, report = check("--quick")
    assert status == 0
    assert "val: a constant box (the mean box of each class of train, the same on every image) has AP50 0." in report
