"""A validation split is made for data without one: stable, with copies together, for every format."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data import CocoDataModule
from data.annotations import Annotations
from data.splits import COCO_FILES, COCO_VAL, read_splits
from data.val_split import content_hashes
from tests.data.voc_files import voc_xml, write_image, write_voc

COCO_WITHOUT_VAL = {**COCO_FILES, "train": ("annotations/train.json", "images/train")}


def val_names(splits: dict[str, Annotations]) -> set[str]:
    val = splits["val"]
    return {Path(val.file_name(n)).name for n in range(len(val))}


def test_an_image_keeps_its_split_and_copies_stay_together(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_voc(tmp_path / "set", 12)
    splits = read_splits(tmp_path / "set", COCO_FILES, 0.4)
    paths = sorted((tmp_path / "set/JPEGImages").iterdir())
    expected = {path.name for path, number in zip(paths, content_hashes(paths)) if number < 0.4}
    assert val_names(splits) == expected
    assert 2 <= len(expected) <= 9
    assert len(splits["train"]) + len(splits["val"]) == 12
    assert f"data.val_split holds out about 0.4 of the images: {len(expected)} for validation" in caplog.text
    assert splits["val"].held_out == 0.4
    # Moved, with other images, and with copies of two images.
    write_voc(tmp_path / "set", 8, first=12)
    for path in (paths[0], next(path for path in paths if path.name in expected)):
        shutil.copy(path, path.with_stem(f"copy_{path.stem}"))
        (tmp_path / f"set/Annotations/copy_{path.stem}.xml").write_text(voc_xml(("cat", 1, 1, 5, 5)))
    shutil.move(tmp_path / "set", tmp_path / "elsewhere")
    names = val_names(read_splits(tmp_path / "elsewhere", COCO_FILES, 0.4))
    assert {name for name in names if name in {path.name for path in paths}} == expected
    assert all((f"copy_{name}" in names) == (name in names) for name in expected | {paths[0].name} if
               (tmp_path / "elsewhere/JPEGImages" / f"copy_{name}").exists())  # fmt: skip


def test_objects_stay_with_their_images(tmp_path: Path) -> None:
    splits = read_splits(write_voc(tmp_path, 12), COCO_FILES)
    for part in splits.values():
        for n in range(len(part)):
            (box,) = part.bboxes[part.object_slice(n)].tolist()
            assert box[2] == 10 + int(Path(part.file_name(n)).stem)


@pytest.mark.parametrize("val", [COCO_FILES["val"], (None, None)])
def test_coco_files_without_validation(tiny_coco: Path, val: tuple) -> None:
    (tiny_coco / "annotations/val.json").unlink()
    splits = read_splits(tiny_coco, {**COCO_WITHOUT_VAL, "val": val})
    assert len(splits["train"]) + len(splits["val"]) == 8
    assert len(splits["train"].ids) + len(splits["val"].ids) == 13
    assert splits["val"].held_out == 0.2


def test_a_validation_file_that_was_forgotten_is_named(tiny_coco: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.val_annotations: it is not given; .* In .* are .*annotations/val\.json"):
        read_splits(tiny_coco, COCO_WITHOUT_VAL)
    assert read_splits(tiny_coco, COCO_WITHOUT_VAL, 0.3)["val"].held_out == 0.3  # the user says that it is none


def test_yolo_labels_without_validation(tiny_yolo: Path, edit_yaml: Callable[..., Path]) -> None:
    for name in ("images/val", "labels/val"):
        shutil.rmtree(tiny_yolo.parent / name)
    splits = read_splits(edit_yaml(val=None, test="images/train"), COCO_FILES)
    assert list(splits) == ["train", "val", "test"]
    assert len(splits["train"]) + len(splits["val"]) == 8


def test_wrong_shares_and_a_second_validation_set_are_refused(tiny_coco: Path, tiny_yolo: Path, tmp_path: Path) -> None:
    both = {**COCO_WITHOUT_VAL, "val": ("annotations/val.json", "images/val")}
    for root, files in ((tiny_coco, both), (tiny_yolo, COCO_FILES)):
        with pytest.raises(
            ValueError, match=r"data\.val_split is 0\.2, but the data have a validation set, .*; leave out one"
        ):
            read_splits(root, files, 0.2)
    for share in (1, -0.2, "many"):
        with pytest.raises(ValueError, match=r"data\.val_split is .*; expected a number from 0 to 0\.9"):
            read_splits(tiny_coco, both, share)
    with pytest.raises(ValueError, match=r"val_split is 0, but the data have a validation set, .*limit_val_batches 0"):
        read_splits(tiny_coco, both, 0)
    for name in ("a", "b"):
        write_image(tmp_path / f"same/{name}.png")
        (tmp_path / f"same/{name}.xml").write_text(voc_xml(("cat", 1, 1, 5, 5)))
    with pytest.raises(ValueError, match=r"no validation set, and none can be made of 2 images with one content"):
        read_splits(tmp_path / "same", COCO_FILES)


def test_a_share_of_zero_trains_without_validation(tiny_coco: Path, tiny_arguments: dict[str, Any]) -> None:
    data = CocoDataModule(**tiny_arguments | {"val_annotations": None, "val_images": None}, val_split=0.0)
    assert list(data.annotations) == ["train"]
    assert data.val_split == 0
    assert len(data.train_dataloader().dataset) == 8
    with pytest.raises(ValueError, match=r"no validation set, and data.val_split is 0: set .*limit_val_batches to 0"):
        data.val_dataloader()
    with pytest.raises(ValueError, match=r"data\.rect is 'no'; expected True or False"):
        CocoDataModule(**tiny_arguments, rect="no")


def test_each_split_gets_an_image(tmp_path: Path) -> None:
    root = write_voc(tmp_path, 3)
    for share in (1e-6, 0.9):
        assert {len(part) for part in read_splits(root, COCO_FILES, share).values()} == {1, 2}
    assert COCO_VAL  # the default is not looked for in a VOC set
