"""Findings that the annotations alone show."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data.check.findings import check_annotations
from data.coco import read_coco

Edit = Callable[[str, Callable[[dict[str, Any]], Any]], Path]


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


def test_image_files_in_no_split_are_counted(check: Callable, tiny_coco: Path) -> None:
    """Hidden files and files of other kinds are none; with an error, splits are missing and nothing is said."""
    for name in ("new.JPG", "._new.jpg", "notes.txt"):
        (tiny_coco / "images/train" / name).touch()
    _, report = check("--quick")
    assert "all: 1 image file is beside those of the splits and in none of them, so left out" in report
    assert "images/train/new.JPG" in report
    (tiny_coco / "annotations/val.json").write_text("{}")
    assert "beside those of the splits" not in check("--quick")[1]


def test_remarks_of_the_reader_are_findings(tiny_coco: Path, edit_json: Edit) -> None:
    edit_json("train", lambda content: content["annotations"][0].update(rotation=90))
    edit_json("val", lambda content: [a.update(id=f"a{a['id']}") for a in content["annotations"]])
    splits = {s: read_coco(tiny_coco / f"annotations/{s}.json", tiny_coco / f"images/{s}") for s in ("train", "val")}
    findings = [finding for finding in check_annotations(splits, (64, 64)) if finding.already_warned]
    assert [(finding.level, finding.split, finding.text[:28]) for finding in findings] == [
        ("warning", "train", "1 annotation carries a rotat"),
        ("note", "val", "annotation ids are text; ann"),
    ]


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
    findings = check_annotations({"train": train, "val": train}, (640, 640))
    leaks = [finding for finding in findings if "also in train (the same file)" in finding.text]
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
