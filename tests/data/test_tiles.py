"""Tiles of a data set: evaluated, and cut to train on."""

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import yaml

import evaluate
from data.__main__ import main
from data.coco import read_coco
from data.cut_tiles import cut_data_set
from data.datamodule import CocoDataModule
from data.reader import ImageReader
from data.tiles import TileDataset
from detector.imaging.letterbox import to_original
from detector.imaging.tiles import as_tiling
from tests.conftest import write_coco
from tests.detector.reference_files import some_weights, write_checkpoint

# x y width height: in one tile; half, a quarter and three quarters of them right of x = 64; without area in the image
OBJECTS = [(10, 10, 20, 20), (54, 30, 20, 20), (49, 5, 20, 8), (60, 50, 16, 8), (10, 120, 0, 4)]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A COCO set of one image of 64 x 128 pixels (height x width), in both splits."""
    for split in ("train", "val"):
        images = [(64, 128, [(7, *box) for box in OBJECTS[:4]]), (32, 32, [(22, 4, 4, 8, 8)])]
        write_coco(tmp_path / "large", split, images, first_id=5, crowd=(0, (7, 80, 0, 40, 20)))
    path = tmp_path / "large/annotations/train.json"
    content = json.loads(path.read_text())
    entry = {"id": 99, "image_id": 5, "category_id": 7, "bbox": OBJECTS[4], "area": 0, "iscrowd": 0}
    content["annotations"].append(entry)
    path.write_text(json.dumps(content))
    return tmp_path / "large"


def arguments(root: Path) -> list[str]:
    names = {f"{split}_annotations": f"annotations/{split}.json" for split in ("train", "val")}
    names |= {f"{split}_images": f"images/{split}" for split in ("train", "val")}
    return [word for name, value in ({"root": str(root)} | names).items() for word in (f"--data.{name}", value)]


def test_a_set_is_cut_and_all_objects_are_counted(large: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "cut"
    assert main(["tile", *arguments(large), "--tile", "64", "--overlap", "0", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for line in (
        "2 images -> 3 tiles, 0 of them without objects",
        "in tiles: 5 of 6 objects, as 6 boxes, 4 of them cut by an edge",
        "2 parts of objects below a visible share of 0.5 became crowds",
        "1 box without area inside of their image left out",
        "1 crowd stays a crowd, as 1 box",
        f"python train.py --config configs/backbone.yaml --config {out}/tiles.yaml",
    ):
        assert line in printed
    assert (out / "tiles.txt").read_text() in printed
    content = json.loads((out / "annotations/train.json").read_text())
    by_tile: dict[int, list[Any]] = {image["id"]: [] for image in content["images"]}
    for entry in content["annotations"]:
        by_tile[entry["image_id"]].append((entry["bbox"], entry["iscrowd"], entry["category_id"]))
    assert by_tile[1] == [([10, 10, 20, 20], 0, 7), ([54, 30, 10, 20], 0, 7), ([49, 5, 15, 8], 0, 7), ([60, 50, 4, 8], 1, 7)]
    assert by_tile[2] == [
        ([0, 30, 10, 20], 0, 7), ([0, 5, 5, 8], 1, 7), ([0, 50, 12, 8], 0, 7), ([16, 0, 40, 20], 1, 7),
    ]  # fmt: skip
    assert by_tile[3] == [([4, 4, 8, 8], 0, 22)]
    assert content["images"][1]["tile"] == [64, 0, 64, 64]
    image = cv2.imread(str(large / "images/train/image_0.png"))
    tile = cv2.imread(str(out / "train" / content["images"][1]["file_name"]))
    np.testing.assert_array_equal(tile, image[:, 64:])


def test_the_tiles_are_read_as_any_set(large: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    assert main(["tile", *arguments(large), "--tile", "32", "--overlap", "0.5", "--out", str(out)]) == 0
    config = yaml.safe_load((out / "tiles.yaml").read_text())["data"]
    data = CocoDataModule(**config, num_workers=0, batch_size=2)
    assert data.category_ids == [7, 22, 90]
    assert (data.size, len(data.annotations["train"])) == ((32, 32), 3 * 7 + 1)


def test_a_split_that_is_held_out_is_named_and_other_settings_stay(
    large: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Training reads the tiles with the user's own file, whose share is not held out once more."""
    files = {"root": str(large), "train_annotations": "annotations/train.json", "train_images": "images/train"}
    given = files | {"val_split": 0.5, "single_cls": True, "val_annotations": None, "val_images": None}
    mine, out = tmp_path / "my set.yaml", tmp_path / "cut"
    mine.write_text(yaml.safe_dump({"data": given, "model": {"variant": "dyn_n"}}))
    assert main(["tile", "--config", str(mine), "--tile", "64", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "\nval: held out of train, data.val_split 0.5\n" in printed
    assert f"python train.py --config '{mine}' --config {out}/tiles.yaml\n" in printed  # it has a network
    data = CocoDataModule(**given | yaml.safe_load((out / "tiles.yaml").read_text())["data"], num_workers=0)
    assert (data.val_split, data.class_names) == (None, ["object"])


def test_names_that_are_not_utf_8(large: Path, tmp_path: Path) -> None:
    annotations = read_coco(large / "annotations/train.json", large / "images/train")
    (large / "images/train/image_0.png").rename(large / "images/train" / os.fsdecode(b"\xff.png"))
    annotations = replace(annotations, file_names=np.array([b"\xff.png", b"image_1.png"]))
    cut_data_set({"train": annotations}, as_tiling(64, 0), tmp_path / "cut")
    assert len(list((tmp_path / "cut/train").iterdir())) == 3


def test_the_input_is_a_tile_rounded_up_to_what_networks_take(large: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    assert main(["tile", *arguments(large), "--tile", "64", "48", "--out", str(out)]) == 0
    assert yaml.safe_load((out / "tiles.yaml").read_text())["data"]["image_size"] == [64, 64]


def test_wrong_values_are_refused(large: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a.txt").touch()
    for options, message in (
        (["--tile", "0"], "--tile is 0; expected one side"),
        (["--tile", "64", "--overlap", "1"], "--overlap is 1.0; expected a share of the tile, a number from 0 to 0.9"),
        (["--tile", "64", "--min_visible", "0"], "--min_visible is 0.0; expected a share above 0"),
        (["--tile", "64", "--min_visible", "2"], "--min_visible is 2.0; expected a share above 0, up to 1"),
        ([], "needs the size of the tiles, as --tile 640"),
        (["--tile", "64", "--out", str(tmp_path / "full")], "already exists and has files; give a new folder"),
    ):
        assert main(["tile", *arguments(large), "--out", str(tmp_path / "new"), *options]) == 2
        assert message in capsys.readouterr().err
    for option, value in (("--tile", "64"), ("--overlap", "0.3"), ("--min_visible", "0.4")):
        assert main(["check", *arguments(large), option, value]) == 2
        assert f"{option} is of the command tile" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_bad_image_is_left_out_and_named_or_nothing_is_written(
    large: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    bad = large / "images/val/image_0.png"
    bad.write_bytes(bad.read_bytes()[:60])
    words = ["tile", *arguments(large), "--tile", "128", "--out", str(tmp_path / "cut")]
    assert main(words) == 2
    assert "image_0.png: is not a whole image" in capsys.readouterr().err
    assert list((tmp_path / "cut").iterdir()) == []
    assert main([*words, "--data.on_bad_image", "skip"]) == 0
    train, val = capsys.readouterr().out.split("val:")
    assert "every image fits into one tile" in train
    assert "2 images -> 1 tile, 0 of them without objects\n  in tiles: 1 of 1 object, as 1 box" in val
    assert "1 image cannot be used and is left out, with 4 objects and 1 crowd:\n" in val
    assert "image_0.png: is not a whole image" in val
    (large / "images/val/image_1.png").write_bytes(b"")
    assert main([*words[:-1], str(tmp_path / "new"), "--data.on_bad_image", "skip"]) == 2
    assert "val.json: none of 2 images can be used, e.g. " in capsys.readouterr().err
    assert list((tmp_path / "new").iterdir()) == []


def test_a_full_disk_leaves_no_files(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotations = read_coco(large / "annotations/train.json", large / "images/train")
    monkeypatch.setattr(yaml, "safe_dump", Mock(side_effect=OSError("No space left on device")))
    with pytest.raises(OSError, match="No space"):
        cut_data_set({"train": annotations}, as_tiling(64, 0), tmp_path / "cut")
    assert list((tmp_path / "cut").iterdir()) == []


def test_objects_that_no_tile_shows_are_counted(large: Path, tmp_path: Path) -> None:
    annotations = read_coco(large / "annotations/train.json", large / "images/train")
    report = cut_data_set({"train": annotations}, as_tiling(64, 0), tmp_path / "cut", min_visible=1.0)
    assert "in tiles: 2 of 6 objects, as 2 boxes, 0 of them cut" in report
    assert "3 objects are lost: they are in no tile with this share; larger tiles keep more" in report
    config = yaml.safe_load((tmp_path / "cut/tiles.yaml").read_text())["data"]
    data = CocoDataModule(**config, num_workers=0)
    assert list(data.annotations) == ["train"]  # val_split 0 stays: tiles of one image do not come into two splits


def test_tiles_of_an_evaluation_show_their_part_of_the_image(large: Path) -> None:
    reader = ImageReader(read_coco(large / "annotations/val.json", large / "images/val"), "raise")
    dataset = TileDataset(reader, (64, 64), as_tiling(64, 0))
    assert [dataset[n].target["image_id"] for n in range(4)] == [5, 5, 5, 6]
    image = reader.read(0)
    right = dataset[1]
    np.testing.assert_array_equal(right.image, image[:, 64:])
    assert right.target["boxes"].tolist() == [[0, 30, 10, 50], [0, 50, 12, 58]]
    whole = dataset[2]
    assert whole.target["tile"].is_whole
    assert to_original(whole.target["boxes"], whole.target["letterbox"])[:, 0].tolist() == [10, 54, 49, 60]
    assert "image_0.png, tile at x 64, y 0" in dataset.describe(1)


def test_an_evaluation_says_if_tiles_make_no_difference(large: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The images are 64 x 128 and 32 x 32 (height x width)."""
    words = [word.removeprefix("--data.") for word in arguments(large)]
    files: dict[str, Any] = dict(zip(words[::2], words[1::2]))
    data = CocoDataModule(**files, image_size=64, num_workers=0)
    for side, expected in (((64, 128), True), ((128, 64), False), ((96, 120), False), ((200, 200), True)):
        caplog.clear()
        data.tiling = as_tiling(side)
        data.val_dataloader()
        assert ("tile makes no difference: every image fits into one tile" in caplog.text) == expected, side


def test_evaluate_takes_tiles_and_the_mirrored_image(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image is evaluated once, with boxes of all tiles in its own pixels; wrong values are refused before."""
    monkeypatch.chdir(tmp_path)
    path = write_checkpoint(tmp_path / "official.pt", some_weights(), ["red", "green", "blue"])
    common = [*arguments(large), "--data.image_size", "64", "--data.num_workers", "0", "--trainer.accelerator", "cpu"]
    common += ["--model.variant", "yolo26_n"]
    for options, message in (
        (["--tile", "64", "--overlap", "1.0"], "overlap is 1.0; expected a share"),
        (["--overlap", "0.3"], "--overlap is 0.3, but there are no tiles; give their size, as --tile 640"),
    ):
        with pytest.raises(SystemExit, match=message):
            evaluate.main([str(path), *common, *options])
    common += ["--evaluation.branch", "one2one"]
    evaluate.main([str(path), *common, "--tile", "64", "--overlap", "0", "--flip_test"])
    folder = tmp_path / "eval_val_official"
    rows = json.loads((folder / "predictions.json").read_text())
    assert {row["image_id"] for row in rows} == {5, 6}
    assert max(row["bbox"][0] + row["bbox"][2] for row in rows if row["image_id"] == 5) > 100
    assert len(Counter((row["image_id"], *row["bbox"], row["category_id"]) for row in rows)) == len(rows)
    assert len(json.loads((folder / "ground_truth.json").read_text())["images"]) == 2
    settings = yaml.safe_load((folder / "evaluation.yaml").read_text())
    assert (settings["tile"], settings["overlap"], settings["evaluation"]["flip_test"]) == (64, 0.0, True)
