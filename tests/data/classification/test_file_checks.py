"""Checks of the image files before training."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.classification import file_checks
from data.classification.class_folders import read_class_folders
from data.classification.file_checks import check_image_files, file_facts


def check(root: Path, mode: str = "auto", on_bad_image: str = "raise") -> None:
    check_image_files(read_class_folders(root, "train", "val", 0.25, "skip"), mode, on_bad_image)


def jpeg(side: int = 64) -> bytes:
    return cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))[1].tobytes()


def test_whole_images_pass_in_silence(class_folders: Path, recwarn: pytest.WarningsRecorder) -> None:
    check(class_folders)
    assert not recwarn.list


def test_every_bad_file_is_named_before_training(class_copy: Path) -> None:
    train = class_copy / "train"
    png = (train / "red/0.png").read_bytes()
    bad = {"blue/text.jpg": b"hello", "blue/none.jpg": b"", "red/cut.png": png[:-8], "red/cut.jpg": jpeg()[:-300]}
    webp = cv2.imencode(".webp", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[1].tobytes()
    (train / "red/whole.webp").write_bytes(webp)
    bad |= {"red/cut.webp": webp[:-2000], "red/zeros.webp": webp[:-5000] + bytes(5000)}
    bad["gréen/zeros.jpg"] = jpeg()[:2000] + bytes(3000)
    bad["gréen/lfs.png"] = b"version https://git-lfs.github.com/spec/v1\n"
    for name, content in bad.items():
        (train / name).write_bytes(content)
    (train / "red/with more behind.jpg").write_bytes(jpeg() + b"more")  # a whole image
    with pytest.raises(ValueError, match=r"8 images of 22 cannot be used") as caught:
        check(class_copy)
    for name in bad:
        assert str(train / name) in str(caught.value)
    assert "run git lfs pull" in str(caught.value)
    assert "set data.on_bad_image to skip" in str(caught.value)
    with pytest.warns(UserWarning, match=r"8 images of 22 cannot be used"):
        check(class_copy, on_bad_image="skip")
    check(class_copy, "none")


def test_long_lists_of_bad_files_are_shortened(class_copy: Path) -> None:
    for n in range(12):
        (class_copy / f"train/red/bad{n}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"12 images of 24 (?s:.*)and 2 more"):
        check(class_copy)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_bad(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "a.jpg").chmod(0)
    assert "Permission denied" in file_facts(tmp_path / "a.jpg").error


def test_of_a_large_set_a_stated_sample_is_checked(
    class_folders: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looked_at = []
    monkeypatch.setattr(file_checks, "MAX_CHECKED", 9)
    monkeypatch.setattr(file_checks, "CHUNK", 2)
    monkeypatch.setattr(file_checks, "file_facts", lambda path: looked_at.append(path) or file_facts(path))
    check(class_folders)
    assert "checked 9 image files, evenly chosen of 18; data.check: all checks all of them" in caplog.text
    assert len(set(looked_at)) == 9
    assert {path.parts[len(class_folders.parts)] for path in looked_at} == {"train", "val"}
    assert {"blue", "gréen", "red"} <= {part for path in looked_at for part in path.parts}
    looked_at.clear()
    check(class_folders, "all")
    assert len(set(looked_at)) == 18


def test_copies_in_val_and_in_other_classes_are_named(class_copy: Path) -> None:
    """By content: names, places and times do not matter. Files of the same size and beginning may still differ."""
    train, val = class_copy / "train", class_copy / "val"
    content = (train / "red/0.png").read_bytes()
    (val / "red").mkdir(parents=True)
    (val / "red/other.png").write_bytes(content)
    (train / "blue/wrong.png").write_bytes(content)
    long = jpeg(100)
    assert len(long) > file_checks.START
    (train / "red/long.jpg").write_bytes(long)
    (val / "red/long.jpg").write_bytes(long[:-3] + b"\1" + long[-2:])
    with pytest.warns(UserWarning, match="same content") as caught:
        check(class_copy)
    first, second = (str(one.message) for one in caught)
    assert "val: 1 image is also in train (the same content)" in first
    assert "red/other.png = blue/wrong.png" in first
    assert second.startswith("1 image is in several classes (the same content)")
    assert "blue/wrong.png = red/0.png = red/other.png" in second


def test_an_image_held_out_is_compared_with_the_others(class_copy: Path) -> None:
    index = read_class_folders(class_copy, "train", "val", 0.25, "raise").splits["val"]
    copy = index.path(0).with_name("copy of it.png")
    for number in range(20):  # until the hash of the copy's name puts it into train
        path = copy.with_stem(f"copy {number}")
        path.write_bytes(index.path(0).read_bytes())
    with pytest.warns(UserWarning, match="also in train"):
        check(class_copy)
