"""The embedded data set: the same images every time, true boxes, and a folder that is whole or absent."""

import hashlib
import json
import multiprocessing
import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from data import CocoDataModule
from data.shapes import draw as drawing_code
from data.shapes import write as shapes
from data.shapes.draw import CLASSES, DECOYS, Drawing, draw_image
from data.shapes.write import MARKER, draw_shapes
from tests.processes import FORKSERVER


@pytest.fixture(scope="module")
def drawings() -> list[Drawing]:
    return [draw_image(0, "train", index) for index in range(150)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_shapes(tmp_path_factory.mktemp("shapes") / "deep" / "set", num_train=12, num_val=5)


def annotations(root: Path, split: str) -> dict:
    return json.loads((root / "annotations" / f"{split}.json").read_text())


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file below the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x1 y1 x2 y2 around the pixels that are not zero."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def test_a_image_depends_on_seed_split_and_index_alone(drawings: list[Drawing]) -> None:
    np.random.seed(7)  # noqa: NPY002  the global state must not matter
    cv2.setRNGSeed(7)
    again = draw_image(0, "train", 3)
    np.testing.assert_array_equal(again.image, drawings[3].image)
    np.testing.assert_array_equal(again.boxes, drawings[3].boxes)
    assert again.labels == drawings[3].labels
    others = [(0, "train", 3), (1, "train", 3), (0, "val", 3), (0, "train", 4)]
    assert len({hashlib.sha256(draw_image(*other).image.tobytes()).hexdigest() for other in others}) == len(others)


def test_another_process_draws_the_same_pixels(drawings: list[Drawing]) -> None:
    with multiprocessing.get_context(FORKSERVER).Pool(1) as pool:
        other = pool.apply(draw_image, (0, "train", 0))
    np.testing.assert_array_equal(other.image, drawings[0].image)


def test_sizes_classes_and_empty_images(drawings: list[Drawing]) -> None:
    boxes = np.concatenate([drawing.boxes for drawing in drawings])
    small = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) < 32**2).mean()
    assert 0.25 < small < 0.45
    counts = Counter(label for drawing in drawings for label in drawing.labels)
    assert min(counts[label] for label in range(len(CLASSES))) > len(boxes) / len(CLASSES) / 2
    objects = [len(drawing.labels) for drawing in drawings]
    assert min(objects) == 0
    assert max(objects) == 7
    assert 0.01 < np.mean(np.array(objects) == 0) < 0.1
    assert len({drawing.image.shape for drawing in drawings}) > 100
    for drawing in drawings:
        height, width = drawing.image.shape[:2]
        assert drawing.boxes.shape == (len(drawing.labels), 4)
        assert (drawing.boxes >= 0).all()
        assert (drawing.boxes <= [width, height, width, height]).all()


@pytest.mark.parametrize("kind", CLASSES + DECOYS)
def test_boxes_are_tight_around_the_painted_pixels(kind: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        contours = drawing_code.pose(drawing_code.outline(kind, rng), rng.uniform(15, 70), rng)
        center = rng.uniform((0, 0), (100, 80))  # many are cut off by the border
        shape = drawing_code.stamp(kind, [contour + center for contour in contours], height=80, width=100)
        if shape.coverage.sum() < 20:
            continue  # such a shape is never drawn
        canvas = np.full((80, 100, 3), 128, dtype=np.float32)
        drawing_code.paint_shape(canvas, shape, rng)
        np.testing.assert_allclose(shape.box, extent((canvas != 128).any(axis=2)), atol=1)


@pytest.mark.parametrize("kind", CLASSES + DECOYS)
def test_boxes_equal_the_extent_of_the_outline(kind: str) -> None:
    rng = np.random.default_rng(1)
    for size in (15, 31, 80, 120):
        contours = [
            contour + np.array((150.3, 140.8)) for contour in drawing_code.pose(drawing_code.outline(kind, rng), size, rng)
        ]
        shape = drawing_code.stamp(kind, contours, height=300, width=320)
        expected = (*contours[0].min(axis=0), *contours[0].max(axis=0))
        np.testing.assert_allclose(shape.box, expected, atol=0.5)
        assert max(expected[2] - expected[0], expected[3] - expected[1]) == pytest.approx(size)


def test_no_shape_is_hidden_by_more_than_seventy_per_cent() -> None:
    shares = []
    for seed in range(60):
        free = np.ones((300, 260), dtype=np.float32)
        for shape in drawing_code.arrange(300, 260, np.random.default_rng(seed)):
            shares.append((shape.coverage * free[shape.window]).sum() / shape.area)
            free[shape.window] *= 1 - shape.coverage
    assert min(shares) >= 0.3 - 1e-4
    assert 0.1 < np.mean(np.array(shares) < 0.95) < 0.4  # overlaps and cut-off shapes exist


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


def test_the_files_hold_what_is_drawn(root: Path) -> None:
    drawing, content = draw_image(0, "val", 4), annotations(root, "val")
    stored = cv2.imread(str(root / "val" / content["images"][4]["file_name"]))
    assert np.abs(stored.astype(float) - drawing.image).mean() < 6  # JPEG
    boxes = np.array([entry["bbox"] for entry in content["annotations"] if entry["image_id"] == 5]).reshape(-1, 4)
    np.testing.assert_array_equal(boxes[:, :2] + boxes[:, 2:], drawing.boxes[:, 2:])


def test_a_second_call_does_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(root)
    monkeypatch.setattr(shapes, "draw_image", lambda *_: pytest.fail("drew again"))
    assert draw_shapes(root, num_train=12, num_val=5) == root
    assert contents(root) == before


def test_other_numbers_replace_the_set(tmp_path: Path) -> None:
    draw_shapes(tmp_path / "set", num_train=2, num_val=2)
    draw_shapes(tmp_path / "set", num_train=3, num_val=1)
    assert len(list((tmp_path / "set" / "train").iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_interrupted_drawing_leaves_nothing_and_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seed: int, split: str, index: int) -> Drawing:
        if split == "val":
            raise KeyboardInterrupt
        return draw_image(seed, split, index)

    monkeypatch.setattr(shapes, "draw_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_shapes(tmp_path / "set", num_train=2, num_val=1)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    draw_shapes(tmp_path / "set", num_train=2, num_val=1)
    assert (tmp_path / "set" / MARKER).is_file()


def test_leavings_of_a_killed_drawing_are_removed(tmp_path: Path) -> None:
    killed, going_on = tmp_path / ".set-drawing-a", tmp_path / ".set-drawing-b"
    for folder in (killed, going_on):
        (folder / "drawn").mkdir(parents=True)
    os.utime(killed, (0, 0))
    draw_shapes(tmp_path / "set", num_train=1, num_val=1)
    assert not killed.exists()
    assert going_on.exists()


def test_processes_that_draw_at_once_do_not_collide(tmp_path: Path) -> None:
    with multiprocessing.get_context(FORKSERVER).Pool(2) as pool:
        results = pool.starmap(draw_shapes, [(tmp_path / "set", 8, 2)] * 2, chunksize=1)
    assert results == [tmp_path / "set"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert len(list((tmp_path / "set" / "train").iterdir())) == 8


def test_the_slower_of_two_processes_keeps_the_set_of_the_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overtaken(seed: int, split: str, index: int) -> Drawing:
        monkeypatch.undo()
        draw_shapes(tmp_path / "set", num_train=1, num_val=1)
        (tmp_path / "set" / "seen").touch()
        return draw_image(seed, split, index)

    monkeypatch.setattr(shapes, "draw_image", overtaken)
    draw_shapes(tmp_path / "set", num_train=1, num_val=1)
    assert (tmp_path / "set" / "seen").exists()
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


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--root", str(tmp_path / "set"), "--num-train", "2", "--num-val", "1", "--seed", "3"]
    monkeypatch.setattr("sys.argv", ["shapes", *arguments])
    shapes.main()
    assert capsys.readouterr().out.strip() == str(tmp_path / "set")
    assert len(list((tmp_path / "set" / "train").iterdir())) == 2


def test_the_data_module_draws_the_embedded_set_on_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shapes.draw_shapes, "__defaults__", (6, 2, 0))  # fewer images
    config = yaml.safe_load((Path(shapes.__file__).parents[2] / "configs/data/shapes.yaml").read_text())["data"]
    data = CocoDataModule(**config, image_size=64, batch_size=2, num_workers=0)
    assert data.class_names == list(CLASSES)
    assert len(data.ground_truth("train")["images"]) == 6
