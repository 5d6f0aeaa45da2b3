"""Class folders: labels, what is left out, which layouts are read and which are refused."""

import os
import shutil
from pathlib import Path

import pytest

from data.classification.class_folders import read_class_folders
from data.classification.class_splits import ClassSplits
from tests.data.classification.conftest import CLASSES, write_class, write_image


def read(root: Path, train: str = "train", val: str | None = "val", share: float = 0.25, skip: bool = False) -> ClassSplits:
    return read_class_folders(root, train, val, share, "skip" if skip else "raise")


def labeled_names(splits: ClassSplits, split: str) -> list[tuple[str, int]]:
    index = splits.splits[split]
    return [(index.name(n), index.label(n)) for n in range(len(index))]


def test_images_at_any_depth_belong_to_the_class_of_the_top_folder(class_folders: Path) -> None:
    splits = read(class_folders)
    assert splits.class_names == list(CLASSES)
    assert splits.category_ids == [0, 1, 2]
    names = ["0.png", "1.png", "3.png", "series/of 2024/2.png"]
    assert labeled_names(splits, "train") == [(f"{name}/{n}", label) for label, name in enumerate(CLASSES) for n in names]
    assert [label for _, label in labeled_names(splits, "val")] == [0, 0, 1, 1, 2, 2]
    assert splits.splits["train"].path(0) == class_folders / "train/blue/0.png"


def test_labels_of_val_are_those_of_train(class_copy: Path) -> None:
    write_class(class_copy / "val", "red", 1)
    assert labeled_names(read(class_copy), "val") == [("red/0.png", 2)]


@pytest.mark.parametrize("layout", ["train", "flat", "dot"])
def test_the_held_out_share_is_the_same_in_every_layout(class_copy: Path, layout: str) -> None:
    expected = read(class_copy)
    held_out = labeled_names(expected, "val")
    everything = held_out + labeled_names(expected, "train")
    assert 0 < len(held_out) < len(everything) == len(set(everything)) == 12
    shutil.move(class_copy, moved := class_copy.with_name("moved"))
    splits = read(moved) if layout == "train" else read(moved / "train", "." if layout == "dot" else "train")
    assert labeled_names(splits, "val") == held_out
    assert "0.25 of " in splits.sources["val"]


def test_images_keep_their_split_when_others_are_added(class_copy: Path) -> None:
    before = read(class_copy)
    write_class(class_copy / "train", "red", 30)
    write_class(class_copy / "train", "amber", 3)
    after = read(class_copy)
    for split in ("train", "val"):
        names = {name for name, _ in labeled_names(after, split)}
        assert {name for name, _ in labeled_names(before, split)} <= names


def test_whatever_is_left_out_is_counted_and_named(class_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = class_copy / "train"
    for path in ("blue/notes.txt", "blue/a.heic", "blue/b.HEIC", "red/.hidden.png", "stray.png", "empty/sub/x.csv"):
        (train / path).parent.mkdir(parents=True, exist_ok=True)
        (train / path).write_text("x")
    (train / "none").mkdir()
    os.symlink(train / "red", train / "alias")
    os.symlink(train, train / "red/up")
    with pytest.warns(UserWarning, match="left out|no images") as caught:
        splits = read(class_copy)
    assert splits.class_names == list(CLASSES)
    text = caplog.text + "\n".join(str(one.message) for one in caught)
    for line in (
        "2 images are left out, being of a format that is not read; convert to PNG or JPEG (blue/a.heic; blue/b.HEIC)",
        "1 image is left out, lying beside the class folders and not in one (stray.png)",
        "2 folders are left out, being a link to one that is read elsewhere (alias; red/up)",
        "1 hidden file or folder is left out (red/.hidden.png)",
        "2 files that are not images are left out (",
        "2 folders have no images, and no class is made of it: empty, none",
    ):
        assert line in text


def test_links_out_of_the_set_are_followed_once(class_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = tmp_path_factory.mktemp("store")
    write_image(store / "images/a.png", (1, 2, 3))
    os.symlink(store, store / "images/loop")
    os.symlink(store / "images", class_copy / "train/linked")
    os.symlink(store / "images/a.png", class_copy / "train/blue/link.png")
    with pytest.warns(UserWarning, match=r"1 folder is left out, .* \(linked/loop/images\)"):
        splits = read(class_copy, share=0.01)
    names = [name for name, _ in labeled_names(splits, "train")]
    assert {"linked/a.png", "blue/link.png"} <= set(names)
    assert len(names) == 14


@pytest.mark.parametrize("name", ["loop", "loop.png"])
def test_a_link_to_itself_is_a_file_that_is_left_out(class_copy: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    os.symlink(name, class_copy / "train/red" / name)
    if name.endswith(".png"):
        with pytest.raises(ValueError, match=r"1 link to an image that does not exist, e\.g\. red/loop\.png"):
            read(class_copy)
    else:
        read(class_copy)
        assert "1 file that is not an image is left out (red/loop)" in caplog.text


def test_a_link_to_nothing_is_an_error_unless_bad_images_are_skipped(class_copy: Path) -> None:
    os.symlink(class_copy / "nowhere.png", class_copy / "train/red/gone.png")
    with pytest.raises(ValueError, match=r"1 link to an image that does not exist, e\.g\. red/gone\.png; restore"):
        read(class_copy)
    with pytest.warns(UserWarning, match=r"red/gone\.png; left out"):
        assert sum(map(len, read(class_copy, skip=True).splits.values())) == 12


def test_names_may_have_any_bytes(class_copy: Path) -> None:
    folder = os.fsencode(class_copy / "train") + b"/\xff\xfe"
    write_image(folder + b"/\xe9 1.png", (1, 2, 3))
    splits = read(class_copy, share=0.01)
    assert splits.class_names[0] == r"\xff\xfe"  # text, which every file format can hold
    assert splits.splits["train"].path(0).read_bytes().startswith(b"\x89PNG")


def test_accents_in_another_form_are_the_same_class(class_copy: Path) -> None:
    shutil.copytree(class_copy / "train/gréen", class_copy / "val" / "gre\u0301en")
    assert {label for _, label in labeled_names(read(class_copy), "val")} == {1}
    shutil.copytree(class_copy / "train/gréen", class_copy / "train" / "gre\u0301en")
    with pytest.raises(ValueError, match="two folders are called 'gréen', with accents in different forms"):
        read(class_copy)


def test_a_class_of_val_that_train_lacks_is_refused(class_copy: Path) -> None:
    write_class(class_copy / "val", "Red", 1)
    write_class(class_copy / "val", "blue", 1)
    (class_copy / "val/unused").mkdir()  # without images: no fault
    with pytest.raises(ValueError, match=r"val has 1 class that train does not have, .*: Red \('red' is in train\)"):
        read(class_copy)


def test_val_images_without_class_folders_are_refused(class_copy: Path) -> None:
    write_image(class_copy / "val/1.png", (1, 2, 3))
    with pytest.raises(ValueError, match="val has 1 image and no class folders with images; move each image"):
        read(class_copy)


@pytest.mark.parametrize(
    ("folders", "arguments", "message"),
    [
        ((), {"train": "tran"}, r"data\.train: there is no folder .*tran; .* has train"),
        (("train/a", "valid"), {}, r"data\.val: there is no folder .*val, but .*valid; set data\.val to valid, or to null"),
        ((), {"val": "test"}, r"data\.val: there is no folder .*test; set it to null"),
        ((), {"train": ".", "val": "train"}, r"data\.val: .* is in the training folder"),
        (("train/a", "val"), {"train": "train", "val": "train/a"}, r"is in the training folder"),
    ],
)
def test_splits_that_do_not_exist_are_refused(tmp_path: Path, folders: tuple, arguments: dict, message: str) -> None:
    for folder in folders or ("train/a",):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ValueError, match=message):
        read(tmp_path, **arguments)


def test_other_names_of_splits_and_a_class_called_train_are_pointed_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.root: .*gone does not exist \(looked .*; expected a folder with train/"):
        read(tmp_path / "gone")
    write_class(tmp_path / "a/training", "red", 1)
    with pytest.raises(ValueError, match=r"there is no folder .*train, but training; set data\.train and data\.val"):
        read(tmp_path / "a")
    for name in ("car", "bus"):
        write_class(tmp_path / "b", name, 4)
    write_image(tmp_path / "b/train/1.png", (1, 2, 3))
    with pytest.raises(ValueError, match=r"if train is the name of a class, set data\.train to '\.' and data\.val to null"):
        read(tmp_path / "b")
    assert read(tmp_path / "b", ".", None).class_names == ["bus", "car", "train"]


def test_a_root_one_level_too_high_or_too_low_is_pointed_out(class_folders: Path, class_copy: Path) -> None:
    for name in ("pets", "plants"):
        shutil.copytree(class_folders, class_copy / "sets" / name)
    with pytest.raises(
        ValueError, match=r"sets/pets has folders for splits \(train, val\); if it is a set, give it as data"
    ):
        read(class_copy / "sets")
    shutil.move(class_copy / "train", class_copy / "one/animals/train")
    with pytest.raises(ValueError, match=r"one/animals has folders for splits \(train\); if it is a set"):
        read(class_copy / "one")
    with pytest.warns(UserWarning, match=rf"has val beside it, which is not used.*; give {class_folders} as data\.root"):
        read(class_folders / "train")


@pytest.mark.parametrize("arguments", [{"val": None}, {"train": "."}])
def test_a_split_that_is_given_as_such_is_no_mistake(
    class_folders: Path, class_copy: Path, arguments: dict, recwarn: pytest.WarningsRecorder
) -> None:
    """Nor is a class with folders for kinds of images, one of which has the name of a split."""
    read(class_folders / "train" if "val" in arguments else class_copy / "train", **arguments)
    for part in ("test", "car"):
        write_image(class_copy / "train/red" / part / "1.png", (1, 2, 3))
    read(class_copy / "train")
    assert not recwarn.list


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_read_is_named(class_copy: Path) -> None:
    (class_copy / "train/red").chmod(0)
    try:
        with pytest.raises(ValueError, match=r"train/red: the folder cannot be read \(Permission denied\)"):
            read(class_copy)
    finally:
        (class_copy / "train/red").chmod(0o755)
