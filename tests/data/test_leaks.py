"""Images that are in train and in val: named for the report, and left out of a clean file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data import CocoDataModule
from data.__main__ import main
from data.annotations import Annotations
from data.splits import COCO_FILES, read_splits
from tests.data.voc_files import write_lists, write_voc

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
    assert (
        "wrote clean/val.json: val without the 1 image of train, 4 images left; it has boxes only" in capsys.readouterr().out
    )
    content = json.loads(Path("clean/val.json").read_text())
    assert main(["check", *config, "--config", "clean/clean.yaml", "--quick"]) == 0
    assert "also in train" not in capsys.readouterr().out
    assert [image["id"] for image in content["images"]] == [201, 203, 204, 205]
    assert {entry["image_id"] for entry in content["annotations"]} <= {201, 203, 204, 205}
    data = CocoDataModule(**tiny_arguments | {"val_annotations": str(Path("clean/val.json").resolve())})
    assert "also_in_train" not in data.ground_truth("val")["info"]
    assert main(["check", *config, "--quick", "--clean", "tiny.yaml"]) == 2
    assert "--clean tiny.yaml: give a folder to write into" in capsys.readouterr().err
    edit_json("train", lambda content: content["annotations"][0].update(category_id=5))
    assert main(["check", *config, "--quick", "--clean", "new"]) == 1
    assert "wrote nothing into new: train cannot be read" in capsys.readouterr().out


def voc_lists(root: Path) -> Path:
    """Two sets with lists; val has a copy of an image of train, one with another name than its XML file, and a "7 1"."""
    for year, first in (("VOC2007", 0), ("VOC2012", 4)):
        write_voc(root / year, 4, first)
        write_lists(root / year, train=f"{first} {first + 1}", val=f"{first + 2} {first + 3}", test=f"{first}")
    shutil.copy(root / "VOC2007/JPEGImages/0.png", root / "VOC2012/JPEGImages/6.png")
    (root / "VOC2007/JPEGImages/2.png").rename(root / "VOC2007/JPEGImages/photo.png")
    text = (root / "VOC2007/Annotations/2.xml").read_text()
    (root / "VOC2007/Annotations/2.xml").write_text(text.replace("<filename>", "<filename>photo.png"))
    (root / "VOC2007/ImageSets/Main/test.txt").write_text("3\n0\n")
    for path in (root / "VOC2012/JPEGImages/7.png", root / "VOC2012/Annotations/7.xml"):
        path.rename(path.with_stem("7 1"))
    (root / "VOC2012/ImageSets/Main/val.txt").write_text("6\n7 1\n")
    return root


def voc_folders(root: Path) -> Path:
    """A folder with images and XML files for each split, as Roboflow exports it."""
    for split, first in (("train", 0), ("valid", 3)):
        write_voc(root / split, 3, first, ("", ""))
    shutil.copy(root / "train/1.png", root / "valid/4.png")
    return root


def yolo(root: Path) -> Path:
    for split, first in (("train", 0), ("val", 3)):
        write_voc(root, 3, first, (f"xml/{split}", f"images/{split}"))
        (root / f"labels/{split}").mkdir(parents=True)
        for n in range(first, first + 3):
            (root / f"labels/{split}/{n}.txt").write_text(f"0 0.5 0.5 0.{n + 1} 0.5\n")
    shutil.copy(root / "images/train/1.png", root / "images/val/4.png")
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames: [cat]\n")
    return root / "data.yaml"


@pytest.mark.parametrize("write_set", [voc_lists, voc_folders, yolo])
def test_a_clean_split_stands_beside_the_train_set_in_its_format(
    write_set: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The printed configuration gives the same images and boxes, without those of train."""
    monkeypatch.chdir(tmp_path)
    root = write_set(tmp_path / "set")
    Path("set.yaml").write_text(yaml.safe_dump({"data": {"root": str(root)}}))
    arguments = ["--config", "set.yaml", "--quick"]
    main(["check", *arguments, "--clean", "clean"])
    printed = capsys.readouterr().out
    assert "val without the 1 image of train" in printed
    assert "use it: --config clean/clean.yaml behind your other --config" in printed
    assert main(["check", *arguments, "--config", "clean/clean.yaml", "--clean", "again"]) == 0
    assert "no split shares images with train: nothing to clean" in capsys.readouterr().out
    before = read_splits(root, COCO_FILES)
    section = yaml.safe_load(Path("clean/clean.yaml").read_text())["data"]
    files = {split: (section.get(f"{split}_annotations", names[0]), section.get(f"{split}_images", names[1]))
             for split, names in COCO_FILES.items()}  # fmt: skip
    after = read_splits(Path(section.get("root", tmp_path / "set")), files)
    expected = {split: boxes_by_path(part) for split, part in before.items()}
    known = {path.read_bytes() for path in expected["train"]}
    expected |= {s: {p: b for p, b in expected[s].items() if p.read_bytes() not in known} for s in expected if s != "train"}
    assert {split: boxes_by_path(part) for split, part in after.items()} == expected


def boxes_by_path(part: Annotations) -> dict[Path, list[list[float]]]:
    return {part.image_path(n).resolve(): part.bboxes[part.object_slice(n)].tolist() for n in range(len(part))}
