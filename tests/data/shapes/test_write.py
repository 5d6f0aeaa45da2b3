"""The embedded data set: its files, and a folder that is complete or does not exist."""

import hashlib
import json
import multiprocessing
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from data import CocoDataModule
from data.shapes import write
from data.shapes.draw import CLASSES, SIMPLE, Drawing, Style, draw_image
from data.shapes.write import MARKER, draw_shapes, draw_simple_shapes
from tests.processes import FORKSERVER


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_shapes(tmp_path_factory.mktemp("shapes") / "deep" / "set", num_train=12, num_val=5)


def annotations(root: Path, split: str) -> dict:
    return json.loads((root / "annotations" / f"{split}.json").read_text())


def contents(folder: Path) -> dict[str, str]:
    """Return the hash of every file in the folder and below."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_files_are_coco(root: Path) -> None:
    for split, num_images in (("train", 12), ("val", 5)):
        content = annotations(root, split)
        assert [category["name"] for category in content["categories"]] == list(CLASSES)
        assert len(content["images"]) == len(list((root / split).iterdir())) == num_images
        sizes = {image["id"]: (image["height"], image["width"], 3) for image in content["images"]}
        for image in content["images"]:
            assert cv2.imread(str(root / split / image["file_name"])).shape == sizes[image["id"]]
        assert len({entry["id"] for entry in content["annotations"]}) == len(content["annotations"]) > 0
        for entry in content["annotations"]:
            assert entry["image_id"] in sizes
            assert 1 <= entry["category_id"] <= len(CLASSES)
            assert entry["area"] == entry["bbox"][2] * entry["bbox"][3] > 0


def test_the_files_hold_the_drawings(root: Path) -> None:
    drawing, content = draw_image(0, "val", 4), annotations(root, "val")
    stored = cv2.imread(str(root / "val" / content["images"][4]["file_name"]))
    assert np.abs(stored.astype(float) - drawing.image).mean() < 6  # JPEG
    boxes = np.array([entry["bbox"] for entry in content["annotations"] if entry["image_id"] == 5]).reshape(-1, 4)
    np.testing.assert_array_equal(boxes[:, :2] + boxes[:, 2:], drawing.boxes[:, 2:])


def test_simple_shapes_are_the_drawings_of_their_style(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "PROGRESS_SECONDS", 0.0)
    lines = []
    monkeypatch.setattr(write, "rank_zero_info", lines.append)
    root = draw_simple_shapes(tmp_path, num_train=1, num_val=3)
    assert lines[1:] == ["drew 0 of 1 images of train", *(f"drew {n} of 3 images of val" for n in range(3))]
    drawing = draw_image(0, "val", 2, SIMPLE)
    assert np.abs(cv2.imread(str(root / "val" / "000003.jpg")).astype(float) - drawing.image).mean() < 6  # JPEG


def test_a_second_call_does_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(root)
    monkeypatch.setattr(write, "draw_image", lambda *_: pytest.fail("drew again"))
    assert draw_shapes(root, num_train=12, num_val=5) == root
    assert contents(root) == before


def test_other_numbers_replace_the_set(tmp_path: Path) -> None:
    draw_shapes(tmp_path / "set", num_train=2, num_val=2)
    draw_shapes(tmp_path / "set", num_train=3, num_val=1)
    assert len(list((tmp_path / "set" / "train").iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_after_an_interrupt_nothing_is_left_and_the_next_call_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seed: int, split: str, index: int, style: Style) -> Drawing:
        if split == "val":
            raise KeyboardInterrupt
        return draw_image(seed, split, index)

    monkeypatch.setattr(write, "draw_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_shapes(tmp_path / "set", num_train=2, num_val=1)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    draw_shapes(tmp_path / "set", num_train=2, num_val=1)
    assert (tmp_path / "set" / MARKER).is_file()


def test_temporary_folders_of_killed_processes_are_removed(tmp_path: Path) -> None:
    killed, running = tmp_path / ".set-drawing-a", tmp_path / ".set-drawing-b"
    for folder in (killed, running):
        (folder / "drawn").mkdir(parents=True)
    os.utime(killed, (0, 0))
    draw_shapes(tmp_path / "set", num_train=1, num_val=1)
    assert not killed.exists()
    assert running.exists()


def test_processes_may_draw_at_the_same_time(tmp_path: Path) -> None:
    with multiprocessing.get_context(FORKSERVER).Pool(2) as pool:
        results = pool.starmap(draw_shapes, [(tmp_path / "set", 8, 2)] * 2, chunksize=1)
    assert results == [tmp_path / "set"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert len(list((tmp_path / "set" / "train").iterdir())) == 8


def test_the_slower_of_two_processes_keeps_the_set_of_the_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overtaken(seed: int, split: str, index: int, style: Style) -> Drawing:
        monkeypatch.undo()
        draw_shapes(tmp_path / "set", num_train=1, num_val=1)
        (tmp_path / "set" / "of the faster process").touch()
        return draw_image(seed, split, index)

    monkeypatch.setattr(write, "draw_image", overtaken)
    draw_shapes(tmp_path / "set", num_train=1, num_val=1)
    assert (tmp_path / "set" / "of the faster process").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_foreign_folders_are_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="give another root"):
        draw_shapes(tmp_path, num_train=1, num_val=1)
    assert contents(tmp_path).keys() == {"thesis.txt"}


def test_a_link_to_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "disk" / "shapes").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "shapes")
    draw_shapes(tmp_path / "link", num_train=1, num_val=1)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "shapes" / MARKER).is_file()


@pytest.mark.parametrize("numbers", [{"num_train": 0}, {"num_val": 0}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(numbers: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least"):
        draw_shapes(tmp_path / "set", **numbers)


@pytest.mark.parametrize("name", ["shapes", "simple_shapes"])
def test_the_data_module_draws_a_set_on_first_use(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(getattr(write, f"draw_{name}"), "__defaults__", (6, 2, 0))  # fewer images
    config = yaml.safe_load((Path(write.__file__).parents[2] / f"configs/data/{name}.yaml").read_text())["data"]
    data = CocoDataModule(**config, image_size=64, batch_size=2, num_workers=0)
    assert data.class_names == list(CLASSES)
    assert len(data.ground_truth("train")["images"]) == 6
