"""data.yaml files as exporters write them, and folders without one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data import CocoDataModule
from data.__main__ import main
from data.yolo import read_yolo

EditYaml = Callable[..., Path]


@pytest.mark.parametrize("key", ["val", "valid", "validation"])
def test_names_of_the_validation_split(edit_yaml: EditYaml, key: str) -> None:
    assert len(read_yolo(edit_yaml(**{"val": None, key: "images/val"}))["val"]) == 5


def test_two_different_validation_splits_are_refused(edit_yaml: EditYaml) -> None:
    assert len(read_yolo(edit_yaml(valid="images/val"))["val"]) == 5  # the same
    with pytest.raises(ValueError, match="'val' and 'valid' name different images; keep one of them"):
        read_yolo(edit_yaml(valid="images/train"))


def test_a_missing_split_is_proposed(edit_yaml: EditYaml) -> None:
    with pytest.raises(
        ValueError, match=r"has no 'val', only .*train; there is .*images/val: add the line 'val: images/val'"
    ):
        read_yolo(edit_yaml(val=None))
    with pytest.raises(ValueError, match=r"has no 'train', only .*test"):
        read_yolo(edit_yaml(train=None, val=None, test="images/val"))


@pytest.mark.parametrize(
    "names",
    [{"0": "red", "1": "green", "2": "blue"}, {2: "blue", 0: "red", 1: "green"}, "obj.names"],
    ids=["text", "order", "file"],
)
def test_names_as_exporters_write_them(tiny_yolo: Path, edit_yaml: EditYaml, names: Any) -> None:
    (tiny_yolo.parent / "obj.names").write_text("red\ngreen\nblue\n\n")
    assert read_yolo(edit_yaml(names=names))["train"].class_names == ["red", "green", "blue"]


@pytest.mark.parametrize("names", [{"0": "a", 0: "b", 1: "c"}, {"a": 0, "b": 1, "c": 2}])
def test_names_with_other_keys_are_refused(edit_yaml: EditYaml, names: Any) -> None:
    with pytest.raises(ValueError, match=r"names has the keys .*; expected 0 to 2, each once"):
        read_yolo(edit_yaml(names=names))


def test_names_given_twice_are_refused(tiny_yolo: Path) -> None:
    tiny_yolo.write_text("names: [red, green, blue]\n" + tiny_yolo.read_text())
    with pytest.raises(ValueError, match=r"data\.yaml: the key 'names' is given twice, in lines 1 and 2; keep one"):
        read_yolo(tiny_yolo)


def test_a_path_of_another_computer(edit_yaml: EditYaml) -> None:
    with pytest.raises(ValueError, match=r"there is no folder /content/set; images/train is beside the file: remove the "):
        read_yolo(edit_yaml(path="/content/set"))
    assert len(read_yolo(edit_yaml(path="..\\tiny"))["train"]) == 8


def test_a_folder_with_a_data_yaml_names_it(tiny_yolo: Path) -> None:
    with pytest.raises(ValueError, match=rf"described by data\.yaml; give that file: --data\.root {tiny_yolo}"):
        CocoDataModule(str(tiny_yolo.parent))


@pytest.mark.parametrize("name", ["classes.txt", "obj.names", "labels/classes.txt", "labels/train/classes.txt"])
def test_a_folder_with_names_of_classes_gets_a_data_yaml_proposed(
    tiny_yolo: Path, name: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny_yolo.parent
    monkeypatch.chdir(root)
    tiny_yolo.unlink()
    (root / name).write_text("red\ngreen, light\nblue\n")
    with pytest.raises(ValueError, match=rf"has {name} but no data\.yaml, which YOLO labels need") as caught:
        CocoDataModule(str(root))
    proposed = "\n".join(line.strip() for line in str(caught.value).splitlines() if line.startswith("    "))
    expected = {"train": "images/train", "val": "images/val", "names": ["red", "green, light", "blue"]}
    assert yaml.safe_load(proposed) == expected
    tiny_yolo.write_text(proposed)
    assert len(read_yolo(tiny_yolo)["val"]) == 5
    tiny_yolo.unlink()
    assert main(["check", "--data.root", str(root)]) == 1
    assert "no data.yaml, which YOLO labels need" in capsys.readouterr().out


def test_a_folder_with_labels_alone_gets_a_data_yaml_proposed(tiny_yolo: Path) -> None:
    tiny_yolo.unlink()
    with pytest.raises(ValueError, match=r"has label files \(\.txt\) but no data\.yaml, which YOLO labels need") as caught:
        CocoDataModule(str(tiny_yolo.parent))
    assert "    names: [NAME OF CLASS 0, NAME OF CLASS 1]\n" in str(caught.value)


def test_coco_files_beside_names_of_classes_are_read(tiny_arguments: dict[str, Any], tiny_coco: Path) -> None:
    (tiny_coco / "classes.txt").write_text("red\ngreen\nblue\n")
    assert len(CocoDataModule(**tiny_arguments).annotations["train"]) == 8
