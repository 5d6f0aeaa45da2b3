"""Data that were given to the wrong program: train.py and pretrain.py name each other."""

from pathlib import Path

import pytest

from data import CocoDataModule, ImageFolderDataModule


def fill(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


COCO = ("annotations/train.json", "train/1.jpg", "val/2.jpg")
COCO_2017 = ("annotations/instances_train2017.json", "train2017/1.jpg", "val2017/2.jpg")
YOLO = ("images/train/1.jpg", "labels/train/1.txt", "images/val/2.jpg")
ROBOFLOW = ("train/images/1.jpg", "train/labels/1.txt", "valid/images/2.jpg")
CLASSES = ("train/cat/1.jpg", "train/dog/2.jpg", "val/cat/3.jpg")


@pytest.mark.parametrize(
    ("names", "sign"),
    [
        (COCO, "annotations/train.json"),
        (COCO_2017, "annotations/instances_train2017.json"),
        (YOLO, "labels/train/1.txt"),
        (ROBOFLOW, "train/labels/1.txt"),
    ],
)
def test_a_detection_set_is_for_train_py(names: tuple[str, ...], sign: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"is a detection set, as {sign} shows: .*with train.py"):
        ImageFolderDataModule(str(fill(tmp_path, names)), num_workers=0)


def test_a_data_yaml_is_for_train_py(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat]\n")
    with pytest.raises(ValueError, match=r"is a detection set, as the entries of a data\.yaml shows"):
        ImageFolderDataModule(str(tmp_path / "data.yaml"), num_workers=0)


@pytest.mark.parametrize("names", [CLASSES, ("cat/1.jpg", "dog/2.JPG")])
def test_folders_of_classes_are_for_pretrain_py(names: tuple[str, ...], tmp_path: Path) -> None:
    root = fill(tmp_path, names)
    with pytest.raises(
        ValueError, match=rf"images by class \(cat, dog\).*python pretrain.py --data.root {root}, which checks"
    ):
        CocoDataModule(str(root), num_workers=0)
    with pytest.raises(ValueError, match="images by class"):
        CocoDataModule(str(root), "train.json", "train", "val.json", "val", num_workers=0)


def test_other_mistakes_say_nothing_about_the_other_program(tmp_path: Path) -> None:
    root = fill(tmp_path, (*CLASSES, "annotations/boxes.json"))  # boxes beside class folders, as ImageNet has them
    with pytest.raises(ValueError, match=r"0 bytes|empty|cannot be read") as error:  # of the images
        ImageFolderDataModule(str(root), num_workers=0)
    assert "detection set" not in str(error.value)
    with pytest.raises(ValueError, match=r"In .* is annotations/boxes\.json") as error:
        CocoDataModule(str(root), num_workers=0)
    assert "pretrain.py" not in str(error.value)
