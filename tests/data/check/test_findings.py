"""``python -m data check`` and ``show``: every kind of fault is found, named and counted."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from data.__main__ import main
from data.check.files import image_kind
from data.check.findings import check_annotations
from data.coco import read_coco

Edit = Callable[[str, Callable[[dict[str, Any]], Any]], Path]


def test_a_sound_set_has_no_errors(check: Callable) -> None:
    status, report = check()
    assert status == 0
    assert report.splitlines()[-2] == "0 errors, 1 warning: training can start"
    assert "train: 3 classes have fewer than 10 objects (red: 4; green: 4; blue: 4)" in report
    assert "8 images, 1 without objects; 13 objects, 1 crowd among them; 1.6 an image, at most 3" in report
    assert "class balance: 4 x" in report


def faulty_boxes(content: dict[str, Any]) -> None:
    content["annotations"][0]["bbox"] = [10, 8, 0, 16]
    content["annotations"][1]["bbox"] = [50, 20, 60, 24]
    content["annotations"].append(content["annotations"][4] | {"id": 5})


def test_doubtful_boxes_are_counted(check: Callable, edit_json: Edit) -> None:
    edit_json("train", faulty_boxes)
    status, report = check("--quick")
    assert status == 0
    assert "train: 1 box has no area inside the image" in report
    assert "(annotation 1010 in image_0.png)" in report
    assert "train: 1 box sticks out of the image; clipped for training (annotation 1011 in image_0.png)" in report
    assert "train: 1 box repeats another one" in report


def test_errors_of_all_splits_are_reported_and_stop(check: Callable, edit_json: Edit, tiny_coco: Path) -> None:
    edit_json("train", lambda content: content["annotations"][0].update(category_id=8))
    os.remove(tiny_coco / "images/val/image_2.png")
    status, report = check()
    assert status == 1
    assert "annotation 1010 refers to category_id 8" in report
    assert "1 of 5 images is not in" in report
    assert report.splitlines()[-2] == "2 errors, 0 warnings"


def test_files_are_decoded(check: Callable, tiny_coco: Path) -> None:
    """Unreadable, of another size, of every kind, and the same in train and val, or twice in train."""
    train, val = tiny_coco / "images/train", tiny_coco / "images/val"
    (train / "image_0.png").write_bytes(b"spoilt")
    cv2.imwrite(str(train / "image_1.png"), np.zeros((48, 64, 3), np.uint8))  # 64 x 48 on file
    shutil.copy(train / "image_4.png", val / "image_0.png")
    cv2.imwrite(str(train / "image_2.png"), np.zeros((80, 60), np.uint16))
    Image.new("RGBA", (47, 33)).save(train / "image_3.png")
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (50, 50)).save(train / "image_7.png", exif=exif)
    Image.new("CMYK", (50, 100)).save(train / "image_5.png", "JPEG")  # the name does not matter
    status, report = check()
    assert status == 1
    assert "train: 2 images cannot be used" in report
    assert "image_0.png: is not a whole image" in report
    assert "image_1.png: the image is 64 x 48" in report
    assert "val: 1 image is also in train (the same content)" in report
    assert "train: 1 image (16 bits a channel) read as the upper 8 bits" in report
    assert "train: 1 image (with transparency) read as the colors that are stored" in report
    assert "train: 1 image (CMYK) read as RGB (image_5.png)" in report
    assert "train: 1 image has an EXIF rotation" in report


def test_classes_and_images_are_compared_between_splits(tiny_coco: Path, edit_json: Edit) -> None:
    def drop_blue(content: dict[str, Any]) -> None:
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] != 90]

    for split in ("train", "val"):
        edit_json(split, lambda content: content["categories"].append({"id": 91, "name": "unused"}))
    edit_json("train", drop_blue)
    train = read_coco(tiny_coco / "annotations/train.json", tiny_coco / "images/train")
    val = read_coco(tiny_coco / "annotations/val.json", tiny_coco / "images/val")
    lines = [finding.line() for finding in check_annotations({"train": train, "val": val}, (640, 640))]
    assert "all: 1 of 4 classes is never used (unused)" in lines
    assert "val: 1 class is only here and not in train: never learned (blue)" in lines
    lines = [finding.line() for finding in check_annotations({"train": val, "val": train}, (640, 640))]
    assert "val: 1 class of train is not in val: never measured (blue)" in lines
    found = check_annotations({"train": train, "val": train}, (640, 640))
    leaks = [finding for finding in found if "also in train (the same file)" in finding.text]
    assert [(leak.split, leak.level) for leak in leaks] == [("val", "warning")]
    assert leaks[0].text.startswith("8 images")


def test_tiny_objects_are_counted_in_pixels_of_the_input(tiny_coco: Path) -> None:
    train = read_coco(tiny_coco / "annotations/train.json", tiny_coco / "images/train")
    texts = {size: [f.text for f in check_annotations({"train": train}, (size, size))] for size in (16, 640)}
    assert any(text.startswith("0.0% of the objects are smaller than 8 x 8") for text in texts[640])
    # On 16 pixels each image's longer side becomes 16: all but the boxes above half of it in side are tiny.
    sides = [((w * h) ** 0.5) * 16 / max(size) for size, w, h in objects(tiny_coco)]
    share = np.mean(np.array(sides) < 8)
    assert any(text.startswith(f"{share:.1%} of the objects") for text in texts[16])


def objects(root: Path) -> list[tuple[tuple[int, int], float, float]]:
    content = json.loads((root / "annotations/train.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    return [(sizes[a["image_id"]], *a["bbox"][2:]) for a in content["annotations"]]


@pytest.mark.parametrize(
    ("mode", "suffix", "kind"),
    [("L", "png", "grayscale"), ("CMYK", "jpeg", "CMYK"), ("RGBA", "png", "with transparency"), ("P", "png", "palette"),
     ("I;16", "png", "16 bits a channel"), ("RGB", "jpeg", "RGB"), ("LA", "png", "with transparency")],
)  # fmt: skip
def test_kinds_of_images(tmp_path: Path, mode: str, suffix: str, kind: str) -> None:
    Image.new(mode, (5, 4)).save(tmp_path / f"a.{suffix}")
    assert image_kind((tmp_path / f"a.{suffix}").read_bytes()) == kind


def test_show_writes_sheets_of_every_split(config: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["show", *config, "--out", "sheets", "--pictures", "6", "--data.augment.mixup=1"]) == 0
    assert capsys.readouterr().out.splitlines() == ["look at sheets/train.jpg", "look at sheets/val.jpg"]
    train, val = (cv2.imread(f"sheets/{split}.jpg") for split in ("train", "val"))
    assert train.shape == val.shape
    assert train.std() > 20


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--data.rot", "x"], "rot"),
        (["--config", "lost.yaml"], "lost.yaml is not a file"),
        (["--data.root", "lost"], "lost"),
        (["--config", "broken.yaml"], "broken.yaml: is not YAML"),
        (["--out", "broken.yaml"], "--out broken.yaml is a file"),
        (["--pictures", "0"], "--pictures is 0; expected 1 or more"),
    ],
)
def test_mistakes_are_named(config: list[str], extra: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    Path("broken.yaml").write_text("data: [")
    assert main(["show", *config, *extra]) == 2
    assert message in capsys.readouterr().err
