"""Every option of ``python -m data`` and ``python -m data.shapes`` has its effect. A new option needs a row here."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from torch.utils.data import DataLoader

from data import CocoDataModule
from data.__main__ import _command_parser, main
from data.check import sheets
from data.shapes import __main__ as shapes_command
from data.shapes.write import MARKER

Check = Callable[..., tuple[int, str]]


def sheet(name: str, *words: str) -> np.ndarray:
    """Run ``show`` and return the sheet of a split."""
    assert main(["show", "--config", "tiny.yaml", "--out", "sheets", "--images", "2", *words]) == 0
    return cv2.imread(f"sheets/{name}.jpg").astype(int)


def test_the_number_of_images_and_the_folder_reach_the_sheets(config: list[str]) -> None:
    sizes = {n: sheet("train", "--images", str(n)).shape[1] for n in (1, 2, 4)}
    assert sizes[1] < sizes[2] < sizes[4]
    assert main(["show", *config, "--images", "1", "--out", "other"]) == 0
    assert sorted(os.listdir("other")) == ["train.jpg", "val.jpg"]


def test_the_seed_of_the_configuration_reaches_the_sheets(config: list[str]) -> None:
    """tiny.yaml has the seed 3. Validation does not depend on the seed."""
    first, again, other = (sheet("train", *words) for words in ([], ["--seed_everything", "3"], ["--seed_everything", "4"]))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(sheet("val"), sheet("val", "--seed_everything", "4"))


def test_later_configurations_and_options_win(config: list[str]) -> None:
    """Over base.yaml, which has other values of all of these."""
    Path("later.yaml").write_text(yaml.safe_dump({"data": {"image_size": 128}, "model": {"lr": 1}}))
    built = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data.__main__.write_sheets", lambda data, *rest: built.append(data) or [])
        for words in ([], ["--config", "later.yaml"], ["--config", "later.yaml", "--data.image_size", "96"]):
            assert main(["show", *config, *words]) == 0
    assert [data.size for data in built] == [(64, 64), (128, 128), (96, 96)]
    assert {(data.batch_size, data.num_workers, data.seed) for data in built} == {(4, 0, 3)}


def test_the_base_configuration_is_read_first(config: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has and tiny.yaml does not have counts; what both have is that of tiny.yaml."""
    tiny = yaml.safe_load(Path("tiny.yaml").read_text())
    del tiny["data"]["batch_size"], tiny["seed_everything"]
    Path("tiny.yaml").write_text(yaml.safe_dump(tiny))
    base = {"seed_everything": 8, "data": {"batch_size": 7, "image_size": 32}, "trainer": {"max_epochs": 1}}
    Path("base.yaml").write_text(yaml.safe_dump(base))
    built = []
    monkeypatch.setattr("data.__main__.BASE_CONFIG", Path("base.yaml"))
    monkeypatch.setattr("data.__main__.write_sheets", lambda data, *rest: built.append(data) or [])
    assert main(["show", *config]) == 0
    assert (built[0].batch_size, built[0].seed, built[0].size) == (7, 8, (64, 64))


@pytest.fixture(autouse=True)
def pages(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arguments of every page of a check, which is not rendered: that takes long, and has its own tests."""
    arguments: list[Any] = []
    monkeypatch.setattr("data.__main__.html_report", lambda *args: arguments.append(args) or "")
    return arguments


def test_quick_leaves_out_the_images(check: Check, tiny_coco: Path) -> None:
    (tiny_coco / "images/val/image_1.png").write_bytes(b"spoilt")
    assert check()[0] == 1
    status, report = check("--quick")
    assert (status, "cannot be used" in report) == (0, False)


def test_the_report_goes_to_the_folder(check: Check) -> None:
    _, report = check("--out", "here")
    assert sorted(os.listdir("here")) == ["check.html", "check.txt"]
    assert Path("here/check.txt").read_text().strip() in report


@pytest.mark.parametrize("size", [(64, 100), (100, 64)])
def test_both_sides_of_the_input_are_checked(check: Check, size: tuple[int, int]) -> None:
    status, report = check("--data.image_size", str(list(size)), "--quick")
    assert status == 1
    assert f"data.image_size is {size}; training needs multiples of 32" in report


def test_the_size_of_the_input_reaches_findings_and_page(check: Check, pages: list[Any]) -> None:
    for size in (64, 16):
        _, report = check("--data.image_size", str(size), "--quick")
        assert (size == 16) == ("a larger data.image_size" in report)
    assert [page_size for _, _, page_size, *_ in pages] == [(64, 64), (16, 16)]


def test_every_split_is_checked(check: Check, edit_json: Any, tiny_coco: Path) -> None:
    (tiny_coco / "annotations/test.json").write_text((tiny_coco / "annotations/val.json").read_text())
    words = ["--data.test_annotations", "annotations/test.json", "--data.test_images", "images/val"]
    assert "test: 5 images" in check(*words, "--quick")[1]
    for split in ("train", "val", "test"):
        path = tiny_coco / f"annotations/{split}.json"
        whole = path.read_text()
        edit_json(split, lambda content: content["annotations"][0].update(category_id=5))
        status, report = check(*words, "--quick")
        assert (status, "refers to category_id 5" in report) == (1, True)
        path.write_text(whole)
    edit_json("test", lambda content: content["categories"][0].update(name="pink"))
    assert "list different categories" in check(*words, "--quick")[1]


def cut(config: list[str], *words: str) -> tuple[set[tuple[int, int]], int, int]:
    """Run ``tile``; return the sizes and the number of the tiles of an image of 48 x 64, and the number of their objects."""
    out = Path("tiles") / "_".join(words)
    assert main(["tile", *config, "--out", str(out), *words]) == 0
    content = json.loads((out / "annotations/train.json").read_text())
    tiles = [image for image in content["images"] if image["source"] == "image_0.png"]
    assert all((out / "train" / tile["file_name"]).is_file() for tile in tiles)
    ids = {tile["id"] for tile in tiles}
    kept = [entry for entry in content["annotations"] if entry["image_id"] in ids and not entry["iscrowd"]]
    return {(tile["height"], tile["width"]) for tile in tiles}, len(tiles), len(kept)


def test_size_and_overlap_reach_the_tiles(config: list[str]) -> None:
    numbers = {tile: cut(config, "--tile", *tile.split())[:2] for tile in ("32", "48 32", "64")}
    assert numbers == {"32": ({(32, 32)}, 2 * 3), "48 32": ({(48, 32)}, 3), "64": ({(48, 64)}, 1)}
    numbers = {overlap: cut(config, "--tile", "32", "--overlap", overlap)[1] for overlap in ("0", "0.2", "0.6")}
    assert numbers == {"0": 2 * 2, "0.2": 2 * 3, "0.6": 3 * 4}


def test_the_least_visible_share_reaches_the_objects(config: list[str]) -> None:
    """Tiles from x = 0 to 40 and from 24 to 64; each shows an object, and 0.2 or 0.3 of the other one."""
    words = ["--tile", "48", "40", "--overlap", "0"]
    kept = {share: cut(config, *words, "--min_visible", share)[1:] for share in ("0.1", "0.25", "0.5", "1")}
    assert kept == {"0.1": (2, 4), "0.25": (2, 3), "0.5": (2, 2), "1": (2, 2)}
    assert cut(config, *words)[1:] == (2, 2)  # as 0.5


def test_every_option_of_the_data_command_has_a_test() -> None:
    """The test of ``clean`` is in test_leaks.py."""
    tested = {"command", "config", "out", "quick", "clean", "images", "tile", "overlap", "min_visible"}
    assert {action.dest for action in _command_parser()._actions} - {"help"} == tested


def test_sheets_show_each_split_with_its_own_boxes(tiny_arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(sheets, "draw_boxes", lambda image, boxes, labels, names: drawn.append((boxes, labels)) or image)
    test = {"test_annotations": "annotations/train.json", "test_images": "images/train"}
    data = CocoDataModule(**tiny_arguments | test)
    for split, num_images in (("val", 5), ("test", 8)):
        drawn.clear()
        sheets.draw_sheet(data.eval_dataloader(split), data.class_names, 16)
        expected = [data.annotations[split].objects(n) for n in range(num_images)]
        assert [labels.tolist() for _, labels in drawn] == [labels.tolist() for _, labels in expected]
        ratio = [sheets.SIDE / max(data.annotations[split].size(n)) for n in range(num_images)]
        sides = [(boxes[:, 2:] - boxes[:, :2]) * scale for (boxes, _), scale in zip(expected, ratio)]
        for (boxes, _), side in zip(drawn, sides, strict=True):
            np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], side, atol=6)


def test_every_sheet_is_of_its_split(
    tiny_arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training with the augmentation, the others without."""
    shown = []

    def draw_sheet(loader: DataLoader, class_names: list[str], num_images: int) -> np.ndarray:
        shown.append((type(loader.dataset.dataset).__name__, loader.dataset.dataset.reader.annotations.name, num_images))
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(sheets, "draw_sheet", draw_sheet)
    copy = Path(tiny_arguments["root"]) / "annotations/test.json"
    copy.write_bytes(copy.with_name("val.json").read_bytes())
    test = {"test_annotations": "annotations/test.json", "test_images": "images/val"}
    paths = sheets.write_sheets(CocoDataModule(**tiny_arguments | test), tmp_path / "out", 3)
    assert [path.name for path in paths] == ["train.jpg", "val.jpg", "test.jpg"]
    assert [kind for kind, _, _ in shown] == ["TrainDataset", "EvalDataset", "EvalDataset"]
    assert [Path(name).stem for _, name, _ in shown] == ["train", "val", "test"]
    assert {number for _, _, number in shown} == {3}


def drawn_set(capsys: pytest.CaptureFixture, *words: str) -> tuple[str, dict[str, int], bytes]:
    """Run ``data.shapes`` and return the folder, the number of images of each split, and the first image."""
    shapes_command.main(["--num_train", "2", "--num_val", "1", *words])
    root = Path(capsys.readouterr().out.strip())
    contents = {split: json.loads((root / f"annotations/{split}.json").read_text()) for split in ("train", "val")}
    images = {split: len(content["images"]) for split, content in contents.items()}
    return str(root), images, (root / "train/000001.jpg").read_bytes()


def test_every_option_of_shapes_has_its_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    root, images, first = drawn_set(capsys)
    assert (root, images) == ("datasets/shapes", {"train": 2, "val": 1})
    assert drawn_set(capsys, "--root", "a") == ("a", images, first)
    assert drawn_set(capsys, "--root", "b", "--num_train", "3") == ("b", {"train": 3, "val": 1}, first)
    assert drawn_set(capsys, "--root", "c", "--num_val", "2") == ("c", {"train": 2, "val": 2}, first)
    root, same, other = drawn_set(capsys, "--root", "d", "--seed", "1")
    assert (root, same) == ("d", images)
    assert other != first
    assert drawn_set(capsys, "e") == ("e", images, first)
    root, same, simple = drawn_set(capsys, "--simple")
    assert (root, same) == ("datasets/simple_shapes", images)
    assert "simple_version" in json.loads(Path(root, MARKER).read_text())
    assert len({first, simple, drawn_set(capsys, "f", "--simple", "--seed", "1")[2]}) == 3
    with pytest.raises(SystemExit):
        shapes_command.main(["--help"])
    words = {word.strip("[],:") for word in capsys.readouterr().out.split() if word.strip("[],").startswith("--")}
    of_single = {"--single", "--num_classes", "--image_size"}  # tests/data/shapes/test_single.py
    tested = {"--help", "--root", "--num_train", "--num_val", "--seed", "--simple"}
    assert words - of_single == tested, "a new option needs a line above"
