"""Paths of a data set that are wrong: the message names the option to set, and what there is."""

from pathlib import Path
from typing import Any

import pytest

from data.splits import read_splits

FILES = {"train": ("annotations/train.json", "images/train"), "val": ("annotations/val.json", "images/val")}
VAL = r"^data\.val_annotations"
LISTED = r"In .*tiny are annotations/train\.json, annotations/val\.json, boxes \(a folder with XML files\)$"


@pytest.mark.parametrize(
    ("root", "split", "paths", "message"),
    [
        (
            ".",
            "val",
            ("annotations/instances_val2017.json", "val2017"),
            VAL + r": it is not given; set data\.val_annotations, .* or set data\.val_split to hold out .*" + LISTED,
        ),
        (
            ".",
            "val",
            ("annotations/vall.json", "images/val"),
            VAL + r": there is no .*vall\.json .*; set data\.val_annotations, relative to .*" + LISTED,
        ),
        (".", "test", ("annotations/test.json", "images/val"), r"^data\.test_annotations: there is no annotation file"),
        (
            ".",
            "train",
            ("images/train", "annotations/train.json"),
            r"^data\.train_annotations: .*images/train is a folder; .*train_images may be swapped\)",
        ),
        (".", "val", (["annotations/val.json", "images"], "images/val"), VAL + r": .*images is a folder; expected"),
        (
            ".",
            "val",
            ("annotations/val.json", "annotations/val.json"),
            r"^data\.val_images: .*val\.json is a file; expected a",
        ),
        (".", "val", ("annotations/val.json", "val"), r"^data\.val_images: there is no image folder .*tiny/val .*; set"),
        (".", "val", ("annotations/val.json", "val2017"), r"^data\.val_images: it is not given; set data\.val_images, rel"),
        (".", "train", ("annotations/train.json", "train2017"), r"^data\.train_images: it is not given; set"),
        (".", "train", ("images", "boxes"), r"^data\.train_annotations: .*images is a folder; .*_images may be swapped\)"),
        (".", "train", ("boxs", "images"), r": there is no .*\. In .* annotations/val\.json, boxes \(a folder with XML fil"),
        ("images", "val", FILES["val"], r"^data\.train_annotations: there is no .*images has no JSON or XML files$"),
        ("annotations/train.json", "val", FILES["val"], r"^data\.root: .*train\.json is a file; .*data\.train_annotations"),
    ],
)
def test_a_wrong_path_names_the_option(tiny_coco: Path, root: str, split: str, paths: Any, message: str) -> None:
    (tiny_coco / "boxes").mkdir()
    (tiny_coco / "boxes/a.xml").touch()
    with pytest.raises(ValueError, match=message):
        read_splits(tiny_coco / root, {**FILES, "test": (None, None), split: paths})


def test_all_paths_are_checked_before_a_file_is_read(tiny_coco: Path) -> None:
    """Reading a large training file takes a minute."""
    (tiny_coco / "annotations/train.json").write_text("not JSON")
    with pytest.raises(ValueError, match=r"data\.val_images: there is no image folder"):
        read_splits(tiny_coco, {**FILES, "val": ("annotations/val.json", "val")})
