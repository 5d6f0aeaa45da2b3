"""Objects keep box, label, area and crowd flag of their own image: mixed, skipped, or out of order in the file."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data import Augmentation, CocoDataModule
from tests.conftest import write_coco

STILL = {"scale": 0, "translate": 0, "fliplr": 0, "hsv": (0, 0, 0)}
SIDE = 64
# Category ids and boxes (x, y, width, height) of each image. No two objects have the same width and height, which therefore
# tell the object. Image 2 has none, and the last object of image 3 is a crowd.
OBJECTS = [
    [(30, (8, 8, 20, 30)), (10, (30, 30, 31, 21))],
    [(20, (12, 20, 22, 32)), (20, (34, 4, 23, 33)), (30, (2, 40, 24, 19))],
    [],
    [(10, (10, 10, 40, 25)), (20, (4, 4, 50, 50))],
    [(30, (20, 16, 18, 41))],
    [(20, (6, 30, 42, 17)), (10, (26, 6, 16, 43))],
]
CROWD = (3, 1)  # image and object
SMALL = {"train_annotations": "annotations.json", "train_images": "images", "val_annotations": "annotations.json"}
SMALL |= {"val_images": "images", "image_size": SIDE, "batch_size": 2, "num_workers": 0}


@pytest.fixture
def unordered(tmp_path: Path) -> dict[str, Any]:
    """Arguments for a set whose file lists categories, images and annotations in no order. Areas are not width x height."""
    annotations = [
        {"id": 100 - 10 * image - n, "image_id": image_id(image), "category_id": category, "bbox": list(bbox)}
        | {"area": bbox[2] * bbox[3] / 2 + n, "iscrowd": int((image, n) == CROWD)}
        for image, objects in enumerate(OBJECTS)
        for n, (category, bbox) in enumerate(objects)
    ]
    images = [{"id": image_id(n), "file_name": f"{n}.png", "height": SIDE, "width": SIDE} for n in range(len(OBJECTS))]
    categories = [{"id": id_, "name": name} for id_, name in ((20, "green"), (30, "blue"), (10, "red"))]
    order = np.random.default_rng(0).permutation(len(annotations))
    content = {"images": images, "annotations": [annotations[n] for n in order], "categories": categories}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "images").mkdir()
    for image in images:
        cv2.imwrite(str(tmp_path / "images" / image["file_name"]), np.full((SIDE, SIDE, 3), 90, np.uint8))
    return {"root": str(tmp_path), **SMALL}


def image_id(number: int) -> int:
    """Return the id of an image: descending and with gaps, so that it is neither an index nor in order."""
    return 90 - 7 * number


def label_of_sizes() -> dict[tuple[int, int], int]:
    """Return the label of each object that is not a crowd, by width and height of its box."""
    objects = {(i, n): object_ for i, row in enumerate(OBJECTS) for n, object_ in enumerate(row) if (i, n) != CROWD}
    return {bbox[2:]: (10, 20, 30).index(category) for category, bbox in objects.values()}


def train_targets(data: CocoDataModule, epochs: int) -> list[tuple[int, list[tuple[tuple[int, int], int]]]]:
    """Return for each sample of some epochs its image id, and of each box its width and height, and its label."""
    loader = data.train_dataloader()
    targets = [target for _ in range(epochs) for batch in loader for target in batch["targets"]]
    sizes = [(target["boxes"][:, 2:] - target["boxes"][:, :2]).round().int().tolist() for target in targets]
    labels = [target["labels"].tolist() for target in targets]
    return [
        (target["image_id"], list(zip(map(tuple, rows), numbers)))
        for target, rows, numbers in zip(targets, sizes, labels, strict=True)
    ]


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(("mosaic", "mixup"), [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.filterwarnings("ignore:skipped")
def test_objects_keep_the_labels_of_their_own_image(
    unordered: dict[str, Any], tmp_path: Path, mosaic: int, mixup: int, skip: bool
) -> None:
    """With ``skip`` one image cannot be decoded, and the next one takes its place, with its own objects."""
    if skip:
        (tmp_path / "images/4.png").write_bytes(b"spoilt")
    augment = Augmentation(mosaic=mosaic, mixup=mixup, **STILL)
    samples = train_targets(CocoDataModule(**unordered, augment=augment, on_bad_image="skip"), epochs=12)
    expected, seen = label_of_sizes(), set()
    if not skip:  # each image comes once an epoch, whatever it is mixed with
        assert sorted(id_ for id_, _ in samples[: len(OBJECTS)]) == sorted(map(image_id, range(len(OBJECTS))))
    if skip:
        del expected[18, 41]
    for id_, boxes in samples:
        whole = {size: label for size, label in boxes if size in expected}  # a mosaic cuts some boxes
        assert whole == {size: expected[size] for size in whole}
        assert mosaic or len(whole) == len(set(boxes))
        seen |= whole.keys()
        if not mosaic:  # the objects of the first image, whose id the sample has, and with mixup of one more
            own = {bbox[2:] for _, bbox in OBJECTS[(90 - id_) // 7]} & expected.keys()
            assert own <= whole.keys()
            assert mixup or own == whole.keys()
    assert seen == expected.keys()
    sizes = {size for _, boxes in samples for size, _ in boxes}
    assert (50, 50) not in sizes, "a crowd is no object of training"
    assert skip == ((18, 41) not in sizes)


def test_evaluation_keeps_the_objects_of_each_image(unordered: dict[str, Any]) -> None:
    data = CocoDataModule(**unordered)
    targets = [target for batch in data.val_dataloader() for target in batch["targets"]]
    assert [target["image_id"] for target in targets] == [image_id(n) for n in range(len(OBJECTS))]
    for n, target in enumerate(targets):
        objects = {bbox[:2]: (category, bbox) for i, (category, bbox) in enumerate(OBJECTS[n]) if (n, i) != CROWD}
        found = {
            (int(x1), int(y1)): (data.category_ids[label], (int(x1), int(y1), int(x2 - x1), int(y2 - y1)))
            for (x1, y1, x2, y2), label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True)
        }
        assert found == objects


def test_training_places_boxes_as_evaluation_does(tmp_path: Path) -> None:
    """Very long images: rounded to whole pixels, they are scaled by 0.1 along and by 0.114 across."""
    rows = [(35, 640, [(7, 300, 0, 200, 35)]), (640, 35, [(22, 0, 300, 35, 200)])]
    write_coco(tmp_path, "train", rows, first_id=1)
    files = {"train_annotations": "annotations/train.json", "train_images": "images/train"}
    files |= {"val_annotations": "annotations/train.json", "val_images": "images/train"}
    augment = Augmentation(mosaic=0, **STILL)
    data = CocoDataModule(str(tmp_path), **files, image_size=SIDE, num_workers=0, augment=augment)
    trained, evaluated = (
        {target["image_id"]: target["boxes"].tolist() for batch in loader for target in batch["targets"]}
        for loader in (data.train_dataloader(), data.val_dataloader())
    )
    assert evaluated == {1: [[30, 30, 50, 34]], 2: [[30, 30, 34, 50]]}
    assert trained == evaluated


FIELDS = ("category_id", "bbox", "area", "iscrowd")


def rows(content: dict[str, Any]) -> list[tuple]:
    """Return all annotations of ``content``, without ids: base name of the image, and the fields."""
    names = {image["id"]: Path(image["file_name"]).name for image in content["images"]}
    return sorted((names[entry["image_id"]], *(entry[key] for key in FIELDS)) for entry in content["annotations"])


def test_the_ground_truth_is_what_the_file_says(unordered: dict[str, Any], tmp_path: Path) -> None:
    content = json.loads((tmp_path / "annotations.json").read_text())
    truth = CocoDataModule(**unordered).ground_truth("val")
    assert truth["categories"] == sorted(content["categories"], key=lambda category: category["id"])
    assert rows(truth) == rows(content)
    by_id = {entry["id"]: entry for entry in content["annotations"]}
    assert all(entry == by_id[entry["id"]] for entry in truth["annotations"])


def test_joined_files_keep_the_fields_of_each(unordered: dict[str, Any], tmp_path: Path) -> None:
    """The second file has other images, areas and crowds, and a category that shifts the labels of the first."""
    first = json.loads((tmp_path / "annotations.json").read_text())
    second = json.loads((tmp_path / "annotations.json").read_text())
    second["categories"].append({"id": 15, "name": "yellow"})
    second["images"] = second["images"][1:]
    second["annotations"] = [entry for entry in second["annotations"] if entry["image_id"] != image_id(0)]
    for entry in second["annotations"]:
        entry["area"], entry["iscrowd"] = 3 * entry["area"], int(entry["category_id"] == 10)
    second["annotations"][0]["category_id"] = 15
    (tmp_path / "second.json").write_text(json.dumps(second))
    files = ["annotations.json", "second.json"]
    data = CocoDataModule(**unordered | {"train_annotations": files, "val_annotations": files})
    truth = data.ground_truth("val")
    assert rows(truth) == sorted(rows(first) + rows(second))
    assert truth["categories"] == sorted(second["categories"], key=lambda category: category["id"])
    assert data.class_names == [category["name"] for category in truth["categories"]]
