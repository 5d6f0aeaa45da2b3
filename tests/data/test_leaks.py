"""Images that are in train and in val: named for the report, and left out of a clean file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data import CocoDataModule
from data.__main__ import main

Edit = Callable[[str, Callable[[dict[str, Any]], Any]], Path]


def test_images_also_in_train_are_named_and_cleaned(
    config: list[str], tiny_coco: Path, tiny_arguments: dict[str, Any], capsys: pytest.CaptureFixture, edit_json: Edit
) -> None:
    """val's image 202 becomes a copy of train's first image; another file of the same size in bytes is no copy."""
    source, copy = tiny_coco / "images/train/image_0.png", tiny_coco / "images/val/image_1.png"
    assert "also_in_train" not in CocoDataModule(**tiny_arguments).ground_truth("val")["info"]
    sizes = {"height": 0, "width": 0}
    edit_json("train", lambda content: sizes.update({side: content["images"][0][side] for side in sizes}))
    edit_json("val", lambda content: content["images"][1].update(sizes))
    shutil.copy(source, copy)
    (tiny_coco / "images/val/image_2.png").write_bytes(bytes(len(source.read_bytes())))
    assert CocoDataModule(**tiny_arguments).ground_truth("val")["info"]["also_in_train"] == [202]
    assert main(["check", *config, "--quick", "--clean", "clean"]) == 0
    assert "wrote clean/val.json: val without the 1 image of train, 4 images left" in capsys.readouterr().out
    content = json.loads(Path("clean/val.json").read_text())
    assert [image["id"] for image in content["images"]] == [201, 203, 204, 205]
    assert {entry["image_id"] for entry in content["annotations"]} <= {201, 203, 204, 205}
    data = CocoDataModule(**tiny_arguments | {"val_annotations": str(Path("clean/val.json").resolve())})
    assert "also_in_train" not in data.ground_truth("val")["info"]
    assert main(["check", *config, "--quick", "--clean", "tiny.yaml"]) == 2
    assert "--clean tiny.yaml: give a folder to write into" in capsys.readouterr().err
    edit_json("train", lambda content: content["annotations"][0].update(category_id=5))
    assert main(["check", *config, "--quick", "--clean", "new"]) == 1
    assert "wrote nothing into new: train cannot be read" in capsys.readouterr().out
