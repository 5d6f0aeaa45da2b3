"""Several annotation files as one split."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import CocoDataModule
from data.coco import read_coco
from data.join import join_annotations

BOTH = {
    "train_annotations": ["annotations/train.json", "annotations/val.json"],
    "train_images": ["images/train", "images/val"],
}


def test_files_are_joined(tiny_arguments: dict[str, Any], tiny_coco: Path) -> None:
    parts = [read_coco(tiny_coco / f"annotations/{s}.json", tiny_coco / f"images/{s}") for s in ("train", "val")]
    data = CocoDataModule(**tiny_arguments | BOTH)
    joined = data.annotations["train"]
    assert len(joined) == 13
    assert joined.image_ids.tolist() == [*range(101, 109), *range(201, 206)]  # ids that differ stay
    for n in range(13):
        part, m = (parts[0], n) if n < 8 else (parts[1], n - 8)
        assert joined.image_path(n).samefile(part.image_path(m))
        for a, b in zip(joined.objects(n), part.objects(m)):
            np.testing.assert_array_equal(a, b)
    assert sum(len(batch["targets"]) for batch in data.train_dataloader()) == 13
    truth = data.ground_truth("train")
    assert len(truth["annotations"]) == sum(len(part.ids) for part in parts)


def test_absolute_file_names_stay_where_they_are(tiny_coco: Path, edit_json: Callable[..., Path]) -> None:
    folder = tiny_coco / "images/train"
    edit_json("train", lambda content: content["images"][0].update(file_name=str(folder / "image_0.png")))
    parts = [read_coco(tiny_coco / f"annotations/{s}.json", tiny_coco / f"images/{s}") for s in ("train", "val")]
    assert join_annotations(parts).image_path(0) == folder / "image_0.png"


def test_shared_ids_are_renumbered_and_categories_united(tiny_coco: Path, edit_json: Callable[..., Path]) -> None:
    parts = [read_coco(tiny_coco / "annotations/train.json", tiny_coco / "images/train")]

    def only_blue_and_new(content: dict[str, Any]) -> None:
        content["categories"] = [{"id": 90, "name": "blue"}, {"id": 8, "name": "new"}]
        content["annotations"] = [a | {"category_id": 90} for a in content["annotations"]]

    edit_json("train", only_blue_and_new)
    parts.append(read_coco(tiny_coco / "annotations/train.json", tiny_coco / "images/train"))
    joined = join_annotations(parts)
    assert joined.image_ids.tolist() == list(range(1, 17))
    assert joined.ids.tolist() == list(range(1, len(parts[0].ids) * 2 + 1))
    assert dict(zip(joined.category_ids, joined.class_names)) == {7: "red", 8: "new", 22: "green", 90: "blue"}
    assert joined.objects(0)[1].tolist() == [0, 2]
    assert joined.objects(8)[1].tolist() == [3, 3]
    assert joined.objects(8)[0].tolist() == joined.objects(0)[0].tolist()


@pytest.mark.parametrize("change", [{"name": "verdant"}, {"id": 23}])
def test_categories_that_contradict_each_other_are_refused(
    tiny_arguments: dict[str, Any], edit_json: Callable[..., Path], change: dict[str, Any]
) -> None:
    def contradict(content: dict[str, Any]) -> None:
        content["categories"][1].update(change)
        for annotation in content["annotations"]:
            annotation["category_id"] = {22: change.get("id", 22)}.get(annotation["category_id"], annotation["category_id"])

    edit_json("val", contradict)
    with pytest.raises(ValueError, match="cannot be joined"):
        CocoDataModule(**tiny_arguments | BOTH)


def test_one_folder_may_serve_all_files(tiny_arguments: dict[str, Any], tiny_coco: Path) -> None:
    for split in ("train", "val"):
        content = json.loads((tiny_coco / f"annotations/{split}.json").read_text())
        for image in content["images"]:
            image["file_name"] = f"{split}/{image['file_name']}"
        (tiny_coco / f"annotations/{split}2.json").write_text(json.dumps(content))
    files = {"train_annotations": ["annotations/train2.json", "annotations/val2.json"], "train_images": "images"}
    assert len(CocoDataModule(**tiny_arguments | files).annotations["train"]) == 13
    with pytest.raises(ValueError, match=r"has 2 files and data\.train_images 3 folders"):
        CocoDataModule(**tiny_arguments | files | {"train_images": ["a", "b", "c"]})


def test_a_yaml_root_and_coco_paths_exclude_each_other(tiny_arguments: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"leave out data\.train_annotations"):
        CocoDataModule(**tiny_arguments | {"root": str(tmp_path / "data.yaml")})


def test_text_ids_and_numbers_are_renumbered_and_remarks_kept(tiny_coco: Path, edit_json: Callable[..., Path]) -> None:
    def as_text(content: dict[str, Any]) -> None:
        for entry in (*content["images"], *content["annotations"]):
            key = "image_id" if "image_id" in entry else "id"
            entry[key] = f"a{entry[key]}"
        content["annotations"][0]["rotation"] = 90

    edit_json("val", as_text)
    parts = [read_coco(tiny_coco / f"annotations/{s}.json", tiny_coco / f"images/{s}") for s in ("train", "val")]
    joined = join_annotations(parts)
    assert joined.image_ids.tolist() == list(range(1, 14))
    assert ["annotation carries a rotation" in remark.text for remark in joined.remarks] == [True]
    assert joined.remarks[0].text.startswith(f"{parts[1].name}: 1 annotation")
    assert join_annotations([parts[1], parts[1]]).image_ids.tolist() == list(range(1, 11))
