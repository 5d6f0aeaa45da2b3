"""The data sets of the study of dynamic layers: what is in them, to the box."""

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks import dynamic_data
from data.shapes.draw import draw_image


def write_coco(folder: Path, split: str, names: list[str], rows: list[tuple[int, list[float]]]) -> None:
    """Write a COCO split with one image of 640 x 480 px, and an object for each row: category id and box."""
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    cv2.imwrite(str(folder / split / "photo.jpg"), np.zeros((480, 640, 3), np.uint8))
    content: dict[str, Any] = {"images": [{"id": 7, "file_name": "photo.jpg", "width": 640, "height": 480}]}
    content["categories"] = [{"id": number, "name": name} for number, name in enumerate(names, start=3)]
    content["annotations"] = [{"id": n, "image_id": 7, "category_id": c, "bbox": box} for n, (c, box) in enumerate(rows)]
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write sets with at most 3 images of a source, and the control a second time."""
    folder = tmp_path_factory.mktemp("sets")
    box = [64.0, 32.0, 128.0, 64.0]
    for split in ("train", "val"):
        write_coco(folder / "bccd", split, ["Platelets", "RBC", "WBC"], [(4, box), (5, [10.0, 10.0, 0.0, 5.0])])
        write_coco(folder / "cards", split, list(dynamic_data.CARD_CLASSES), [(8, box)])
        write_coco(folder / "coco128", f"{split}2017", ["car", "person"], [(3, box), (4, box)])
    inputs = [f"--{name}={folder / name}" for name in ("bccd", "cards", "coco128")]
    for out, names in (("out", ["control", "joint", "shapes_200", "shapes_800"]), ("again", ["control"])):
        arguments = ["dynamic_data", "--out", str(folder / out), "--source_images", "3", *inputs, "--sets", *names]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", arguments)
            dynamic_data.main()
    return folder / "out"


def read(folder: Path, split: str = "train") -> dict[str, Any]:
    return json.loads((folder / "annotations" / f"instances_{split}.json").read_text())


def test_the_style_of_the_control_turns_the_labels(sets: Path) -> None:
    content = read(sets / "control")
    assert [image["source"] for image in content["images"]] == ["as_drawn", "inverted_dark", "blurred_gray"]
    drawing = draw_image(11, "train", 1)
    rows = [row for row in content["annotations"] if row["image_id"] == 2]
    assert [row["category_id"] for row in rows] == [(label + 1) % 6 + 1 for label in drawing.labels]
    assert max(content["images"][1]["width"], content["images"][1]["height"]) == 160
    images = [cv2.imread(str(sets / "control" / "train" / image["file_name"])) for image in content["images"]]
    assert images[1].mean() == pytest.approx((255 - drawing.image.mean()) / 2, abs=1)
    assert np.ptp(images[2], axis=2).max() <= 2  # gray
    assert np.ptp(images[0], axis=2).max() > 20


def test_sources_of_the_joint_set_have_their_own_classes(sets: Path) -> None:
    content = read(sets / "joint", "val")
    names = [category["name"] for category in content["categories"]]
    assert len(names) == 16
    sources = {image["id"]: image["source"] for image in content["images"]}
    assert list(sources.values()) == ["bccd", "cards", *["shapes"] * 3, "coco128"]
    classes = {(sources[row["image_id"]], names[row["category_id"] - 1]) for row in content["annotations"]}
    assert {name for source, name in classes if source != "shapes"} == {"RBC", "ace", "person"}
    assert {name for source, name in classes if source == "shapes"} <= set(dynamic_data.SHAPE_CLASSES)
    photos = [row for row in content["annotations"] if sources[row["image_id"]] != "shapes"]
    assert all(row["bbox"] == [32.0, 16.0, 64.0, 32.0] and row["area"] == 2048 for row in photos)  # 640 px became 320
    manifest = json.loads((sets / "joint" / "manifest.json").read_text())
    assert manifest["val"]["bccd"] == {"images": 1, "objects": 1, "dropped_boxes": 1}


def test_sets_are_the_same_each_time_and_stay(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [path.relative_to(sets) for path in (sets / "control").rglob("*") if path.is_file()]
    assert len(files) == 3 + 3 + 3
    assert all((sets / file).read_bytes() == (sets.parent / "again" / file).read_bytes() for file in files)
    assert read(sets / "shapes_200", "val") == read(sets / "shapes_800", "val")
    monkeypatch.setattr(sys, "argv", ["dynamic_data", "--out", str(sets), "--sets", "control"])
    with pytest.raises(SystemExit, match="control: was written by another version, or with another --source_images"):
        dynamic_data.main()
