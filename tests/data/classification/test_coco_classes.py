"""COCO files as labeled images."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.classification.class_splits import ClassSplits
from data.classification.coco_classes import read_coco_classes
from tests.data.classification.conftest import write_image

CATEGORIES = [{"id": 90, "name": "dog"}, {"id": 7, "name": "cat"}, {"id": 22, "name": "newt"}]
# Image 1: two cats. 2: a dog, without a box. 3: a cat and a dog. 4: nothing. 5: a dog, in a folder.
CLASSES_OF_IMAGES = {1: [7, 7], 2: [90], 3: [7, 90], 4: [], 5: [90]}


def write(root: Path, split: str, classes: dict[int, list[int]], categories: list[dict[str, Any]] = CATEGORIES) -> None:
    names = {n: f"sub/{n}.png" if n == 5 else f"{n}.png" for n in classes}
    content: dict[str, Any] = {"categories": categories, "images": [{"id": n, "file_name": names[n]} for n in classes]}
    labels = [(n, category) for n, categories in classes.items() for category in categories]
    content["annotations"] = [{"id": 10 + k, "image_id": n, "category_id": c} for k, (n, c) in enumerate(labels)]
    for name in names.values():
        write_image(root / split / name, (1, 2, 3))
    (root / f"{split}.json").write_text(json.dumps(content))


def read(root: Path, val: bool = True, share: float = 0.5) -> ClassSplits:
    return read_coco_classes(root, ("train.json", "train"), ("val.json", "val") if val else None, share)


def test_the_class_of_an_image_is_that_of_all_its_annotations(tmp_path: Path) -> None:
    write(tmp_path, "train", CLASSES_OF_IMAGES)
    write(tmp_path, "val", {1: [90]})
    with pytest.warns(UserWarning, match="left out|never be learned") as caught:
        splits = read(tmp_path)
    assert (splits.class_names, splits.category_ids) == (["cat", "newt", "dog"], [7, 22, 90])
    train, val = splits.splits["train"], splits.splits["val"]
    assert [(train.name(n), train.label(n)) for n in range(len(train))] == [
        ("train/1.png", 0), ("train/2.png", 2), ("train/sub/5.png", 2)
    ]  # fmt: skip
    assert [(val.name(n), val.label(n)) for n in range(len(val))] == [("val/1.png", 2)]
    text = "\n".join(str(one.message) for one in caught)
    assert "1 image left out: annotations of several classes, where a classifier needs one class an image (3.png)" in text
    assert "1 image left out: no annotation, so no class (4.png)" in text
    assert "1 category has no images, and will never be learned: newt" in text


@pytest.mark.filterwarnings("ignore:.*newt")
def test_a_share_is_held_out_by_the_file_name(tmp_path: Path) -> None:
    write(tmp_path, "train", {n: [7 if n % 2 else 90] for n in range(10, 30)})
    splits = read(tmp_path, val=False, share=0.3)
    names = {split: {index.name(n) for n in range(len(index))} for split, index in splits.splits.items()}
    assert len(names["train"] | names["val"]) == 20
    assert 1 <= len(names["val"]) <= 12
    write(tmp_path, "train", {n: [7 if n % 2 else 90] for n in range(5, 40)})
    index = read(tmp_path, val=False, share=0.3).splits["val"]
    assert names["val"] <= {index.name(n) for n in range(len(index))}


@pytest.mark.filterwarnings("ignore:.*never be learned")
def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "train", {1: [7], 2: [90]})
    write(tmp_path, "val", {1: [22]})
    with pytest.raises(ValueError, match=r"has 1 class that train does not have, .*: newt"):
        read(tmp_path)
    write(tmp_path, "val", {1: [7]}, [{"id": 7, "name": "dog"}, {"id": 90, "name": "cat"}])
    with pytest.raises(ValueError, match="list different categories, so labels would be mixed up"):
        read(tmp_path)
    write(tmp_path, "val", {1: [8]})
    with pytest.raises(ValueError, match=r"annotation 10 refers to category_id 8; listed are \[7, 22, 90\]"):
        read(tmp_path)
    write(tmp_path, "val", {1: [7]})
    (tmp_path / "val/1.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 1 images is not in .*val, e\.g\. 1\.png"):
        read(tmp_path)


@pytest.mark.filterwarnings("ignore:.*newt")
def test_several_files_make_one_split(tmp_path: Path) -> None:
    write(tmp_path, "a", {1: [7], 2: [90]})
    write(tmp_path, "b", {1: [7]})
    splits = read_coco_classes(tmp_path, (["a.json", "b.json"], ["a", "b"]), ("b.json", "b"), 0.1)
    index = splits.splits["train"]
    assert [index.name(n) for n in range(len(index))] == ["a/1.png", "b/1.png", "a/2.png"]
