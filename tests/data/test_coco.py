"""The reader of COCO files: its results, and the faults that it refuses, drops or reports."""

import json
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import CocoDataModule, read_coco
from data.dataset import EvalDataset
from data.reader import ImageReader

Edit = Callable[[str, Callable[[dict[str, Any]], Any]], Path]


def read(root: Path, split: str = "train"):
    return read_coco(root / "annotations" / f"{split}.json", root / "images" / split)


def test_classes_are_numbered_by_ascending_category_id(tiny_coco: Path, edit_json: Edit) -> None:
    edit_json("train", lambda content: content["categories"].reverse())
    annotations = read(tiny_coco)
    assert annotations.category_ids == [7, 22, 90]
    assert annotations.class_names == ["red", "green", "blue"]
    boxes, labels = annotations.objects(0)
    assert labels.tolist() == [0, 1]
    assert boxes.tolist() == [[10, 8, 30, 24], [36, 20, 56, 44]]


@pytest.mark.parametrize("ids", [[0, 1, 2], [1, 2, 3], [2, 5, 4000]])
def test_any_category_ids_give_the_same_labels(tiny_coco: Path, edit_json: Edit, ids: list[int]) -> None:
    mapping = dict(zip([7, 22, 90], ids))

    def renumber(content: dict[str, Any]) -> None:
        for category in content["categories"]:
            category["id"] = mapping[category["id"]]
        for annotation in content["annotations"]:
            annotation["category_id"] = mapping[annotation["category_id"]]

    labels = read(tiny_coco).labels.tolist()
    edit_json("train", renumber)
    annotations = read(tiny_coco)
    assert annotations.labels.tolist() == labels
    assert annotations.category_ids == ids
    assert {a["category_id"] for a in annotations.ground_truth()["annotations"]} == set(ids)


def test_unused_categories_keep_their_label(tiny_coco: Path, edit_json: Edit) -> None:
    edit_json("train", lambda content: content["categories"].append({"id": 1, "name": "unused"}))
    annotations = read(tiny_coco)
    assert annotations.class_names == ["unused", "red", "green", "blue"]
    assert annotations.labels.min() == 1


def test_images_without_objects_stay_and_crowds_are_no_targets(tiny_coco: Path) -> None:
    annotations = read(tiny_coco)
    assert len(annotations) == 8
    boxes, labels = annotations.objects(3)
    assert boxes.shape == (0, 4)
    assert labels.shape == (0,)
    assert len(annotations.objects(1)[0]) == 1
    crowds = [a for a in annotations.ground_truth()["annotations"] if a["iscrowd"]]
    assert [(a["image_id"], a["bbox"]) for a in crowds] == [(102, [2, 34, 44, 28])]


def test_ground_truth_is_the_file(tiny_coco: Path) -> None:
    content = json.loads((tiny_coco / "annotations/train.json").read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    info = {"pictures": str(tiny_coco / "images" / "train"), "upright": False}
    assert read(tiny_coco).ground_truth() == {"info": info, **content}


def test_large_annotation_ids_survive(tiny_coco: Path, edit_json: Edit) -> None:
    edit_json("train", lambda content: content["annotations"][0].update(id=2**53 + 1))
    assert 2**53 + 1 in {a["id"] for a in read(tiny_coco).ground_truth()["annotations"]}


def test_defaults_of_area_and_iscrowd(tiny_coco: Path, edit_json: Edit) -> None:
    def strip(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            del annotation["area"], annotation["iscrowd"], annotation["segmentation"]

    edit_json("train", strip)
    first = read(tiny_coco).ground_truth()["annotations"][0]
    assert (first["area"], first["iscrowd"]) == (20 * 16, 0)


@pytest.mark.parametrize("polygons", [[], [[1, 1, 5, 1, 5, 5]], [[1, 1, 5, 1, 5, 5], [9, 9, 12, 9, 12, 12]], None])
def test_segmentation_never_changes_the_box(tiny_coco: Path, edit_json: Edit, polygons: list | None) -> None:
    edit_json("train", lambda content: content["annotations"][0].update(segmentation=polygons))
    assert read(tiny_coco).objects(0)[0][0].tolist() == [10, 8, 30, 24]


@pytest.mark.parametrize("bbox", [[10, 8, 0, 16], [10, 8, 20, -1], [70, 8, 20, 16], [-30, 8, 30, 16]])
def test_boxes_without_area_are_dropped_from_training_and_counted(
    tiny_coco: Path, edit_json: Edit, bbox: list[float]
) -> None:
    path = edit_json("train", lambda content: content["annotations"][0].update(bbox=bbox))
    with pytest.warns(UserWarning, match=r"train\.json: 1 box has no area .*annotation ids 1010\)") as caught:
        annotations = read(tiny_coco)
    assert len(caught) == 1
    assert str(path) in str(caught[0].message)
    assert annotations.objects(0)[0].tolist() == [[36, 20, 56, 44]]
    ground_truth = {a["id"]: a["bbox"] for a in annotations.ground_truth()["annotations"]}
    assert ground_truth[1010] == bbox  # as in an evaluation outside of this project


def test_boxes_that_stick_out_are_clipped_for_training_and_counted(tiny_coco: Path, edit_json: Edit) -> None:
    edit_json("train", lambda content: content["annotations"][0].update(bbox=[-5, 8, 80, 16]))
    with pytest.warns(UserWarning, match="1 box sticks out of the image"):
        annotations = read(tiny_coco)
    assert annotations.objects(0)[0][0].tolist() == [0, 8, 64, 24]
    assert annotations.ground_truth()["annotations"][0]["bbox"] == [-5, 8, 80, 16]


@pytest.mark.parametrize("make_id", [lambda n: f"{n}.png", lambda n: 2**63 - n, lambda n: -n, lambda n: n % 101])
def test_image_ids_are_exact_and_may_be_text(tiny_coco: Path, edit_json: Edit, make_id: Callable[[int], Any]) -> None:
    def renumber(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image["id"] = make_id(image["id"])
        for annotation in content["annotations"]:
            annotation["image_id"] = make_id(annotation["image_id"])

    before = [read(tiny_coco).objects(n)[0].tolist() for n in range(8)]
    path = edit_json("train", renumber)
    annotations = read(tiny_coco)
    assert [annotations.objects(n)[0].tolist() for n in range(8)] == before
    content, truth = json.loads(path.read_text()), annotations.ground_truth()
    assert [image["id"] for image in truth["images"]] == [image["id"] for image in content["images"]]
    assert [a["image_id"] for a in truth["annotations"]] == [a["image_id"] for a in content["annotations"]]
    data = EvalDataset(ImageReader(annotations, "raise"), (64, 64))
    assert [data[n].target["image_id"] for n in range(8)] == [image["id"] for image in content["images"]]


def test_text_ids_that_are_used_twice_are_one_fault(tiny_coco: Path, edit_json: Edit) -> None:
    def spoil(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image["id"] = "a" if image["id"] < 103 else f"{image['id']}"

    path = edit_json("train", spoil)
    with pytest.raises(ValueError, match=rf"{path}: 1 image id is used twice, e\.g\. \['a'\]"):
        read(tiny_coco)


def test_wrong_ids_are_not_counted_as_used_twice(tiny_coco: Path, edit_json: Edit) -> None:
    edit_json("train", lambda content: [image.update(id=None) for image in content["images"][:3]])
    with pytest.raises(ValueError, match=r"train\.json: entry 0 of 'images' has id None; .*\(and 2 more like it\)$"):
        read(tiny_coco)


def test_annotation_ids_may_be_text(tiny_coco: Path, edit_json: Edit) -> None:
    edit_json("train", lambda content: [a.update(id=f"a{a['id']}") for a in content["annotations"]])
    annotations = read(tiny_coco)
    assert annotations.ids.tolist() == list(range(1, 14))
    assert [remark.text[:24] for remark in annotations.remarks] == ["annotation ids are text;"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"annotations":', '"annotations": [], "annotations":', "the key 'annotations' is given 2 times"),
        (
            '"bbox": [10, 8',
            '"bbox": [1, 1, 9, 9], "bbox": [10, 8',
            "the key 'bbox' is given 2 times in the entry with id 1010",
        ),
        ('{"id": 101,', '{"id": 101, "id": 109,', "the key 'id' is given 2 times"),
    ],
)
def test_a_key_given_twice_is_refused(tiny_coco: Path, old: str, new: str, message: str) -> None:
    path = tiny_coco / "annotations/train.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"train\.json: {message}"):
        read(tiny_coco)


def test_words_like_keys_are_no_repeated_keys(tiny_coco: Path, edit_json: Edit) -> None:
    edit_json("train", lambda content: content.update(info={"annotations": "bbox"}, licenses=[{"id": 1, "name": "images"}]))
    assert len(read(tiny_coco)) == 8


def test_hidden_files_without_objects_are_left_out(tiny_coco: Path, edit_json: Edit) -> None:
    """A converter that listed a folder from a Mac has them. With objects they are images that the user wants."""

    def add(content: dict[str, Any]) -> None:
        names = ["._image_0.png", "__MACOSX/._image_1.png", "Thumbs.db", ".hidden/x.png"]
        content["images"][:0] = [{"id": n, "file_name": name, "height": 8, "width": 8} for n, name in enumerate(names)]
        content["images"][3]["file_name"] = "image_0.png"

    before = read(tiny_coco).ground_truth()["annotations"]
    edit_json("train", add)
    with pytest.warns(UserWarning, match=r"3 images left out: hidden files .*\(\._image_0\.png; __MACOSX/\._image_1\.png; "):
        annotations = read(tiny_coco)
    assert len(annotations) == 9
    assert annotations.ground_truth()["annotations"] == before
    assert annotations.file_name(0) == "image_0.png"


def test_annotation_id_zero_is_renumbered_for_pycocotools(tiny_coco: Path, edit_json: Edit) -> None:
    edit_json("val", lambda content: content["annotations"][0].update(id=0))
    with pytest.warns(UserWarning, match="annotation id 0"):
        ids = [a["id"] for a in read(tiny_coco, "val").ground_truth()["annotations"]]
    assert sorted(ids) == list(range(1, len(ids) + 1))


def test_no_annotations_at_all_is_reported(tiny_coco: Path, edit_json: Edit) -> None:
    edit_json("train", lambda content: content.update(annotations=[]))
    with pytest.warns(UserWarning, match="no objects at all"):
        assert len(read(tiny_coco)) == 8


def test_a_sound_file_gives_no_warning(tiny_coco: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(tiny_coco)


FAULTS = {
    "nan in a bbox": (lambda c: c["annotations"][2].update(bbox=[1, 2, math.nan, 4]), "annotation 1012 has the bbox"),
    "three numbers": (lambda c: c["annotations"][2].update(bbox=[1, 2, 3]), "annotation 1012 has the bbox"),
    "text in a bbox": (lambda c: c["annotations"][2].update(bbox=["1", 2, 3, 4]), "annotation 1012 has the bbox"),
    "no bbox": (lambda c: c["annotations"][2].pop("bbox"), "annotation 1012 has the bbox None"),
    "nan area": (lambda c: c["annotations"][2].update(area=math.nan), "annotation 1012 has the area nan"),
    "bad iscrowd": (lambda c: c["annotations"][2].update(iscrowd="no"), "annotation 1012 has iscrowd 'no'"),
    "no annotation id": (lambda c: c["annotations"][2].pop("id"), "entry 2 of 'annotations' has id None"),
    "no image id": (lambda c: c["images"][2].pop("id"), "entry 2 of 'images' has id None"),
    "area beyond floats": (lambda c: c["annotations"][2].update(area=10**400), "annotation 1012 has the area 1000"),
    "bbox beyond floats": (lambda c: c["annotations"][2].update(bbox=[10**400, 2, 3, 4]), "annotation 1012 has the bbox"),
    "id too large": (lambda c: c["annotations"][2].update(id=2**70), "whole number of at most 63 bits"),
    "id between whole numbers": (lambda c: c["annotations"][2].update(id=1.5), r"has id 1\.5; expected a whole number"),
    "boolean id": (lambda c: c["images"][2].update(id=True), "image True has id True; expected a whole number"),
    "rounded id": (lambda c: c["images"][2].update(id=2.0**60), r"has id 1\.15\S+; expected .* without a decimal point"),
    "category ids as text": (
        lambda c: [entry.update(id=str(entry["id"])) for entry in c["categories"]],
        r"the category ids are text, e\.g\. '7'; number them, in 'categories' and in each category_id",
    ),
    "one image id as text": (lambda c: c["images"][2].update(id="b"), r"image b has id 'b'; expected a whole number"),
    "reference as text": (
        lambda c: c["annotations"][2].update(image_id="102"),
        "annotation 1012 has image_id '102', which is text, but ids in 'images' are numbers",
    ),
    "reference as number": (
        lambda c: [image.update(id=str(image["id"])) for image in c["images"]],
        r"annotation 1010 has image_id 101, which is no text, but ids in 'images' are text \(and 12 more like it\)",
    ),
    "rotated box": (lambda c: c["annotations"][2].update(bbox=[1, 2, 3, 4, 30]), "five look like a rotated box"),
    "polygon": (lambda c: c["annotations"][2].update(bbox=[1, 2, 3, 2, 3, 4, 1, 4]), "8 look like corners of a polygon"),
    "segmentation only": (lambda c: c["annotations"][2].pop("bbox"), "compute the box from them first"),
    "unknown image": (lambda c: c["annotations"][2].update(image_id=999), "annotation 1012 refers to image_id 999"),
    "unknown category": (lambda c: c["annotations"][2].update(category_id=8), "annotation 1012 .*category_id 8"),
    "annotation id twice": (lambda c: c["annotations"][2].update(id=1010), r"1 annotation id is used twice.* \[1010\]"),
    "image id twice": (lambda c: c["images"][2].update(id=101), r"1 image id is used twice, e\.g\. \[101\]"),
    "no width": (lambda c: c["images"][2].pop("width"), "image 103 has width None"),
    "zero height": (lambda c: c["images"][2].update(height=0), "image 103 has the height and width"),
    "no file name": (lambda c: c["images"][2].pop("file_name"), "image 103 has the file_name None"),
    "category id twice": (lambda c: c["categories"][1].update(id=7), "category id 7 is used twice"),
    "category name twice": (lambda c: c["categories"][1].update(name="red"), "category name 'red'"),
    "category without name": (lambda c: c["categories"][1].pop("name"), "category 22 has the name None"),
    "no categories": (lambda c: c["categories"].clear(), "lists no categories"),
    "no images": (lambda c: c["images"].clear(), "lists no images"),
    "key images": (lambda c: c.pop("images"), "misses the key 'images'"),
    "key annotations": (lambda c: c.pop("annotations"), "misses the key 'annotations'"),
    "key categories": (lambda c: c.pop("categories"), "misses the key 'categories'"),
    "wrong kind": (lambda c: c.update(images={"a": 1}), "no list of objects under the key 'images'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_refused_naming_file_and_entry(tiny_coco: Path, edit_json: Edit, fault: str) -> None:
    change, message = FAULTS[fault]
    path = edit_json("train", change)
    with pytest.raises(ValueError, match=message) as caught:
        read(tiny_coco)
    assert str(path) in str(caught.value)


def test_all_faults_are_named_at_once(tiny_coco: Path, edit_json: Edit) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content["annotations"][0].update(category_id=8)
        content["annotations"][3].update(image_id=999)
        content["annotations"][4].update(image_id=999)
        content["annotations"][2].update(bbox=[1, 2, 3])

    path = edit_json("train", spoil)
    os.remove(tiny_coco / "images/train/image_5.png")
    with pytest.raises(ValueError, match="has 4 faults") as caught:
        read(tiny_coco)
    for part in (str(path), "category_id 8", "image_id 999", "and 1 more like it", "[1, 2, 3]", "image_5.png"):
        assert part in str(caught.value)


def test_numbers_of_more_than_64_bits_are_numbers(tiny_coco: Path, edit_json: Edit) -> None:
    edit_json("train", lambda c: c["annotations"][2].update(bbox=[1, 2, 10**30, 4]))
    with pytest.warns(UserWarning, match=r"1 box sticks out .*1012"):
        read(tiny_coco)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{not json", "is not JSON"),
        ("version https://git-lfs.github.com/spec/v1\n", r"is a Git LFS pointer instead of the file; run git lfs pull"),
        ("[1, 2]", "misses the key 'images'"),
        ("[" * 100_000, "is not JSON"),
        ('{"images": ' + "9" * 5000 + "}", "is not JSON"),
    ],
)
def test_other_files_are_refused(tiny_coco: Path, text: str, message: str) -> None:
    (tiny_coco / "annotations/train.json").write_text(text)
    with pytest.raises(ValueError, match=rf"train\.json: {message}|train\.json: .* {message}"):
        read(tiny_coco)


def test_missing_images_are_counted_and_three_named(tiny_coco: Path) -> None:
    for number in (0, 2, 3, 5):
        os.remove(tiny_coco / f"images/train/image_{number}.png")
    with pytest.raises(ValueError, match=r"4 of 8 images .*image_0\.png, image_2\.png, image_3\.png;"):
        read(tiny_coco)


def test_file_names_with_folders(tiny_coco: Path, edit_json: Edit) -> None:
    (tiny_coco / "images/train/süd").mkdir()
    os.rename(tiny_coco / "images/train/image_0.png", tiny_coco / "images/train/süd/a.png")
    edit_json("train", lambda content: content["images"][0].update(file_name="süd/a.png"))
    assert read(tiny_coco).image_path(0).is_file()


def test_missing_folders_and_files_are_named(tiny_arguments: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no annotation file .*annotations/other\.json"):
        CocoDataModule(**tiny_arguments | {"val_annotations": "annotations/other.json"})
    with pytest.raises(ValueError, match=r"no image folder .*images/other"):
        CocoDataModule(**tiny_arguments | {"train_images": "images/other"})
    with pytest.raises(ValueError, match=r"no folder .*nowhere") as caught:
        CocoDataModule(**tiny_arguments | {"root": str(tmp_path / "nowhere")})
    assert "cocodataset.org" not in str(caught.value)


def test_missing_coco_comes_with_the_commands_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder") as caught:
        CocoDataModule(str(tmp_path / "datasets/coco"))
    for part in ("train2017.zip", "val2017.zip", "annotations/annotations_trainval2017.zip", "images.cocodataset.org"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["categories"][1].update(name="verdant"), r"id 22: green \| verdant"),
        (lambda c: c["categories"].append({"id": 5, "name": "new"}), r"id 5: \(none\) \| new"),
    ],
)
def test_class_lists_that_differ_are_shown(
    tiny_arguments: dict[str, Any], edit_json: Edit, change: Callable, message: str
) -> None:
    edit_json("val", change)
    with pytest.raises(ValueError, match=message):
        CocoDataModule(**tiny_arguments)


def test_a_validation_file_without_a_category_is_refused(tiny_arguments: dict[str, Any], edit_json: Edit) -> None:
    def remove(content: dict[str, Any]) -> None:
        del content["categories"][2]
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] != 90]

    edit_json("val", remove)
    with pytest.raises(ValueError, match=r"id 90: blue \| \(none\)"):
        CocoDataModule(**tiny_arguments)


def test_no_python_objects_per_annotation(tiny_coco: Path) -> None:
    """Every worker would copy the entries of lists of dicts that it touches."""
    annotations = read(tiny_coco)
    small = ("name", "folder", "category_ids", "class_names", "upright", "remarks", "sixteen_bit_range", "held_out")
    arrays = {name: value for name, value in vars(annotations).items() if name not in small}
    assert all(isinstance(value, np.ndarray) and value.dtype != object for value in arrays.values())
