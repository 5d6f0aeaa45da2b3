"""YOLO text labels: the same objects as in a COCO file, and faults that are named."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data import CocoDataModule
from data.yolo import read_yolo
from data.yolo_folders import label_path


def test_the_same_objects_as_in_the_coco_file(tiny_yolo: Path, tiny_arguments: dict[str, Any]) -> None:
    coco = CocoDataModule(**tiny_arguments)
    yolo = CocoDataModule(str(tiny_yolo), image_size=64, batch_size=4, num_workers=0)
    assert yolo.class_names == coco.class_names
    assert yolo.category_ids == [0, 1, 2]
    for a, b in zip(coco.val_dataloader(), yolo.val_dataloader(), strict=True):
        assert (a["images"] == b["images"]).all()
        for one, other in zip(a["targets"], b["targets"], strict=True):
            np.testing.assert_allclose(one["boxes"], other["boxes"], atol=1e-3)
            assert one["labels"].tolist() == other["labels"].tolist()
    assert len(yolo.ground_truth("train")["images"]) == 8


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("/d/images/train/a.jpg", "/d/labels/train/a.txt"),
        ("/d/images/x/images/b.c.png", "/d/images/x/labels/b.c.txt"),
        ("/d/train/images/a.jpg", "/d/train/labels/a.txt"),
        ("/d/photos/a.jpg", "/d/photos/a.txt"),
    ],
)
def test_label_paths(image: str, labels: str) -> None:
    assert label_path(Path(image)) == Path(labels)


def test_lists_sub_folders_and_several_sources(tiny_yolo: Path, edit_yaml: Callable[..., Path]) -> None:
    root = tiny_yolo.parent
    for kind, suffix in (("images", "png"), ("labels", "txt")):
        (root / kind / "train/deep").mkdir()
        os.rename(root / kind / f"train/image_0.{suffix}", root / kind / f"train/deep/image_0.{suffix}")
    (root / "some.txt").write_text("./images/train/image_1.png\n\nimages/train/deep/image_0.png\n")
    edit_yaml(train=["some.txt", "images/val"], test="images/train", names=["red", "green", "blue"])
    splits = read_yolo(tiny_yolo)
    assert [len(splits[split]) for split in ("train", "val", "test")] == [7, 5, 8]
    assert splits["train"].file_names[:2].tolist() == [b"images/train/image_1.png", b"images/train/deep/image_0.png"]
    assert splits["train"].objects(1)[1].tolist() == [0, 1]
    for annotations in splits.values():
        assert all(annotations.image_path(n).is_file() for n in range(len(annotations)))


def test_polygons_become_boxes_and_exif_is_applied(tiny_yolo: Path) -> None:
    root = tiny_yolo.parent
    (root / "labels/val/image_0.txt").write_text("1 0.25 0.5 0.75 0.25 0.5 1.0\n")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((40, 80, 3), np.uint8)).save(root / "images/val/image_0.png", exif=exif)
    val = read_yolo(tiny_yolo)["val"]
    assert val.sizes[0].tolist() == [80, 40]
    assert val.objects(0)[0].tolist() == [[10, 20, 30, 80]]
    data = CocoDataModule(str(tiny_yolo), image_size=64, batch_size=5, num_workers=0)
    (batch,) = data.val_dataloader()
    assert batch["targets"][0]["letterbox"].original_height == 80


LABEL_FAULTS = {
    "text": ("0 a 0.5 0.5 0.5", r"image_0\.txt, line 2: '0 a 0\.5 0\.5 0\.5' is not all numbers"),
    "class": ("3 0.5 0.5 0.5 0.5", r"line 2: the class is 3; expected a whole number from 0 to 2"),
    "fraction": ("0.5 0.5 0.5 0.5 0.5", r"line 2: the class is 0\.5"),
    "pixels": ("0 12 14 20 20", r"line 2: .* leaves 0\.\.1; .* not pixels"),
    "short": ("0 0.5 0.5 0.5", r"line 2: .* has 4 numbers"),
    "odd polygon": ("0 0.5 0.5 0.5 0.5 0.1", r"line 2: .* has 6 numbers"),
    "nan": ("0 nan 0.5 0.5 0.5", r"line 2: .* leaves 0\.\.1"),
}


@pytest.mark.parametrize("fault", LABEL_FAULTS)
def test_label_faults_name_file_and_line(tiny_yolo: Path, fault: str) -> None:
    line, message = LABEL_FAULTS[fault]
    (tiny_yolo.parent / "labels/train/image_0.txt").write_text(f"0 0.5 0.5 0.5 0.5\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_yolo(tiny_yolo)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nc": 4}, "nc is 4, but names has 3"),
        ({"names": None, "nc": None}, "names is None"),
        ({"names": {1: "a", 2: "b", 3: "c"}}, r"keys \[1, 2, 3\]; expected 0 to 2"),
        ({"names": ["a", "a", "b"]}, "one name twice"),
        ({"path": "elsewhere"}, "path is 'elsewhere', but there is no folder"),
        ({"train": "images/trian"}, "train is 'images/trian', but there is no"),
        ({"train": "labels/train"}, "has no images"),
        ({"train": "x" * 5000}, "but there is no"),
        ({"names": ["red", False, "blue"]}, "names has False; expected text"),
        ({"val": None}, "has no 'val'"),
        ({"kpt_shape": [17, 3]}, "key points"),
    ],
)
def test_mistakes_in_the_yaml_are_named(edit_yaml: Callable[..., Path], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_yolo(edit_yaml(**change))


def test_habits_of_exporters_are_understood(tiny_yolo: Path, edit_yaml: Callable[..., Path]) -> None:
    """``../train/images`` meaning a folder beside the file, no ``path``, names by number only."""
    path = edit_yaml(path=None, names=None, train="../images/train", val=None, validation="../images/val")
    splits = read_yolo(path)
    assert len(splits["train"]) == 8
    assert splits["val"].class_names == ["class_0", "class_1", "class_2"]


def test_files_from_windows_are_understood(tiny_yolo: Path, edit_yaml: Callable[..., Path]) -> None:
    """A byte order mark, CR LF at line ends, backslashes, suffixes in capitals."""
    root = tiny_yolo.parent
    os.rename(root / "images/train/image_1.png", root / "images/train/image_1.PNG")
    (root / "some.txt").write_bytes(b"\xef\xbb\xbfimages\\train\\image_0.png\r\nimages\\train\\image_1.PNG\r\n")
    (root / "labels/train/image_0.txt").write_bytes(b"\xef\xbb\xbf1 0.5 0.5 0.5 0.5\r\n2 0.5 0.5 0.25 0.25\r\n")
    path = edit_yaml(train="some.txt")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    train = read_yolo(path)["train"]
    assert [train.objects(n)[1].tolist() for n in range(2)] == [[1, 2], [2]]


@pytest.mark.parametrize("file", ["labels/train/image_0.txt", "some.txt", "data.yaml"])
def test_files_that_are_not_text_are_named(tiny_yolo: Path, edit_yaml: Callable[..., Path], file: str) -> None:
    edit_yaml(val="some.txt" if file == "some.txt" else "images/val")
    (tiny_yolo.parent / file).write_bytes(b"\xff\xfe1\x00")
    with pytest.raises(ValueError, match=rf"{file}: is not"):
        read_yolo(tiny_yolo)


def test_any_text_file_for_a_list_is_refused(tiny_yolo: Path, edit_yaml: Callable[..., Path]) -> None:
    (tiny_yolo.parent / "some.txt").write_text("x" * 5000)
    with pytest.raises(ValueError, match=r"1 of 1 image in the list .*some\.txt cannot be found, e\.g\. xxx"):
        read_yolo(edit_yaml(train="some.txt"))


def test_linked_folders_are_followed_and_repeats_counted(tiny_yolo: Path, edit_yaml: Callable[..., Path]) -> None:
    root = tiny_yolo.parent
    os.rename(root / "images/val", root / "elsewhere")
    os.mkdir(root / "images/val")
    os.symlink(root / "elsewhere", root / "images/val/link")
    os.rename(root / "labels/val", root / "labels/link")
    os.mkdir(root / "labels/val")
    os.rename(root / "labels/link", root / "labels/val/link")
    with pytest.warns(UserWarning, match=r"\(train\): 8 images are listed more than once"):
        splits = read_yolo(edit_yaml(train=["images/train", "images/train"]))
    assert [len(splits[split]) for split in ("train", "val")] == [8, 5]
    assert len(splits["val"].ids) > 0


@pytest.mark.parametrize("location", ["above", "inside", "elsewhere"])
def test_the_folder_of_the_data_set_is_found(
    tiny_yolo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    """``path: tiny``, as in coco8.yaml: beside the file, around it, or below datasets/."""
    monkeypatch.chdir(tmp_path)
    content = tiny_yolo.read_text().replace("path: .", "path: tiny")
    file = {"above": tmp_path, "inside": tiny_yolo.parent, "elsewhere": tmp_path / "other"}[location] / "tiny.yaml"
    file.parent.mkdir(exist_ok=True)
    if location == "elsewhere":
        (tmp_path / "datasets").mkdir()
        os.rename(tmp_path / "tiny", tmp_path / "datasets/tiny")
    file.write_text(content)
    assert len(read_yolo(file)["train"]) == 8


def test_missing_labels_are_an_error(tiny_yolo: Path) -> None:
    os.rename(tiny_yolo.parent / "labels", tiny_yolo.parent / "label")
    with pytest.raises(ValueError, match=r"no image has labels: looked for .*labels/train/image_0"):
        read_yolo(tiny_yolo)


def test_a_missing_test_split_does_not_stop_training(edit_yaml: Callable[..., Path]) -> None:
    path = edit_yaml(test="images/test")
    with pytest.warns(UserWarning, match=r"test split is left out.*there is no .*images/test"):
        assert set(read_yolo(path)) == {"train", "val"}


def test_unreadable_images_are_counted(tiny_yolo: Path) -> None:
    for n in (1, 2):
        (tiny_yolo.parent / f"images/train/image_{n}.png").write_bytes(b"spoilt")
    with pytest.raises(ValueError, match=r"image_1\.png: its size cannot be read .*and 1 more like it"):
        read_yolo(tiny_yolo)
