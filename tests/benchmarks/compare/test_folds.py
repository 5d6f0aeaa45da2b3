"""Folds: images with the same content are never on both sides."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare.folds import assign_folds, content_hash, write_folds
from data import CocoDataModule
from data.annotations import Annotations


@pytest.fixture
def splits(tiny_coco: Path, tiny_arguments: dict[str, Any]) -> list[Annotations]:
    """Train and val of the tiny set; in each, two files have the content of files of the other."""
    for source, copy in (("train/0", "val/0"), ("train/4", "val/4")):
        image, other = (sorted((tiny_coco / "images" / n.split("/")[0]).iterdir())[int(n[-1])] for n in (source, copy))
        shutil.copy(image, other)
    annotations = CocoDataModule(**tiny_arguments).annotations
    return [annotations["train"], annotations["val"]]


def test_folds_hold_out_every_image_once_and_no_copy_of_it_is_trained_on(
    splits: list[Annotations], tmp_path: Path, tiny_arguments: dict[str, Any]
) -> None:
    held_out = []
    for settings in write_folds(splits, 3, 0, tmp_path / "folds"):
        values = {name.removeprefix("data."): None if value == "null" else value for name, value in settings.items()}
        test = {"test_annotations": "annotations/val.json", "test_images": "images/val"}  # not in the folder of the folds
        fold = CocoDataModule(**tiny_arguments | test | values).annotations
        train, val = ({content_hash(fold[s].image_path(n)) for n in range(len(fold[s]))} for s in ("train", "val"))
        assert not train & val
        assert fold["train"].category_ids == splits[0].category_ids
        assert len(fold["train"]) + len(fold["val"]) == 13
        assert len(fold["train"].ids) + len(fold["val"].ids) == len(splits[0].ids) + len(splits[1].ids)
        assert fold["train"].crowds.sum() + fold["val"].crowds.sum() == 2
        held_out += [fold["val"].image_path(n) for n in range(len(fold["val"]))]
    assert len(held_out) == len(set(held_out)) == 13


def test_groups_stay_together_and_folds_are_even() -> None:
    groups = ["a", "b", "a", "c", "a", "d", "e", "e"]
    folds = assign_folds(groups, 3, seed=0)
    assert len({folds[n] for n in (0, 2, 4)}) == len({folds[n] for n in (6, 7)}) == 1
    assert sorted(folds.count(fold) for fold in range(3)) == [2, 3, 3]
    assert assign_folds(list("abcdefgh"), 2, 0) != assign_folds(list("abcdefgh"), 2, 1)
    with pytest.raises(ValueError, match="6 folds of 5 different images"):
        assign_folds(groups, 6, 0)


def test_a_file_of_both_splits_is_one_image_and_must_have_the_same_objects(
    tiny_coco: Path, tiny_arguments: dict[str, Any], tmp_path: Path
) -> None:
    same = tiny_arguments | {"val_annotations": "annotations/train.json", "val_images": "images/train"}
    annotations = CocoDataModule(**same).annotations
    write_folds([annotations["train"], annotations["val"]], 2, 0, tmp_path / "folds")
    written = [json.loads((tmp_path / f"folds/val_{fold}.json").read_text()) for fold in (0, 1)]
    assert [len(content["images"]) for content in written] == [4, 4]
    other = json.loads((tiny_coco / "annotations/train.json").read_text())
    other["annotations"][0]["bbox"][0] += 1
    (tiny_coco / "annotations/other.json").write_text(json.dumps(other))
    annotations = CocoDataModule(**same | {"val_annotations": "annotations/other.json"}).annotations
    with pytest.raises(ValueError, match="two splits list other objects for it"):
        write_folds([annotations["train"], annotations["val"]], 2, 0, tmp_path / "more")


def test_folds_that_runs_may_have_used_are_not_replaced(splits: list[Annotations], tmp_path: Path) -> None:
    first = write_folds(splits, 2, 0, tmp_path)
    assert write_folds(splits, 2, 0, tmp_path) == first
    with pytest.raises(ValueError, match="the folds have changed"):
        write_folds(splits, 2, 1, tmp_path)
