"""Files of a YOLO set that do not belong together, or are not images: each kind is counted and named."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.annotations import Annotations
from data.check.findings import check_annotations
from data.yolo import read_yolo

BOX = "0 0.5 0.5 0.25 0.25\n"


def read(path: Path) -> Annotations:
    return read_yolo(path)["train"]


def lines(annotations: Annotations, level: str = "warning") -> list[str]:
    return [remark.line() for remark in annotations.remarks if remark.level == level]


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48)).save(path)


def test_a_sound_set_has_no_remarks(tiny_yolo: Path) -> None:
    splits = read_yolo(tiny_yolo)
    assert [splits[split].remarks for split in ("train", "val")] == [(), ()]


def test_labels_without_images_are_counted(tiny_yolo: Path) -> None:
    for n in (0, 2):
        (tiny_yolo.parent / f"images/train/image_{n}.png").unlink()
    (tiny_yolo.parent / "labels/train/deep").mkdir()
    (tiny_yolo.parent / "labels/train/deep/lost.txt").write_text(BOX)
    for name in ("classes.txt", "README.txt", "train.cache"):
        (tiny_yolo.parent / "labels/train" / name).write_text("red")
    with pytest.warns(UserWarning, match=r"\(train\): 3 label files have no image") as caught:
        splits = read_yolo(tiny_yolo)
    assert len(caught) == 1  # image 2 of val has no objects: the label in train is not taken for its own
    names = "labels/train/deep/lost.txt; labels/train/image_0.txt; labels/train/image_2.txt"
    assert lines(splits["train"]) == [f"3 label files have no image and cannot be used; restore the images ({names})"]
    assert len(splits["train"]) == 6
    assert splits["val"].remarks == ()


@pytest.mark.parametrize(
    "name",
    [
        "labels/train/image_0.TXT", "labels/train/IMAGE_0.txt", "labels/train/image_0.png.txt", "labels/train/image_0.xml",
        "images/train/image_0.json", "images/train/image_0.txt", "labels/image_0.txt", "images/labels/image_0.txt",
        "labels/train/train/image_0.txt", "annotations/image_0.xml", "train/labels/image_0.txt",
    ],
)  # fmt: skip
def test_labels_of_another_name_suffix_or_place_are_named(tiny_yolo: Path, name: str) -> None:
    """Without a warning, the image would be one without objects."""
    root = tiny_yolo.parent
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(root / "labels/train/image_0.txt", root / name)
    with pytest.warns(UserWarning, match="1 image has no label file at the expected place"):
        train = read(tiny_yolo)
    example = f"images/train/image_0.png: expected labels/train/image_0.txt, there is {name}"
    assert [line[line.index("(") + 1 : -1] for line in lines(train)] == [example]
    assert not len(train.objects(0)[0])


def test_labels_of_another_split_belong_to_its_images(tiny_yolo: Path) -> None:
    """Image 3 of train has no objects and no labels; image 3 of val has labels of the same name."""
    labels = tiny_yolo.parent / "labels"
    assert not (labels / "train/image_3.txt").exists()
    assert (labels / "val/image_3.txt").exists()
    assert read(tiny_yolo).remarks == ()


def test_misplaced_labels_of_all_images_are_named_in_the_error(tiny_yolo: Path) -> None:
    for path in sorted((tiny_yolo.parent / "labels/train").iterdir()):
        shutil.move(path, tiny_yolo.parent / "images/train")
    with pytest.raises(ValueError, match=r"(?s)no image has labels: .*there is images/train/image_0\.txt"):
        read(tiny_yolo)


def test_labeled_files_of_other_formats_are_named(tiny_yolo: Path) -> None:
    folder = tiny_yolo.parent / "images/train"
    for n, suffix in ((0, ".gif"), (2, ".heic"), (4, "")):
        os.rename(folder / f"image_{n}.png", folder / f"image_{n}{suffix}")
    for name in ("image_1.npy", "sheet.psd", "film.gif"):  # a cache beside its image, and files without labels
        (folder / name).touch()
    with pytest.warns(UserWarning, match="3 labeled files are left out"):
        train = read(tiny_yolo)
    (line,) = lines(train)
    assert "(suffix .gif, .heic, none); convert to PNG or JPEG" in line
    assert line.endswith("(images/train/image_0.gif; images/train/image_2.heic; images/train/image_4)")
    assert len(train) == 5
    (note,) = lines(train, "note")
    assert note.startswith("2 files without labels are left out, being of a format that is not read (suffix .gif, .psd)")


def test_a_folder_of_other_formats_is_named(tiny_yolo: Path, edit_yaml: Callable[..., Path]) -> None:
    (tiny_yolo.parent / "photos").mkdir()
    (tiny_yolo.parent / "photos/a.heic").touch()
    with pytest.raises(ValueError, match=r"has no images .*; of formats that are not read, it has 1 file \(suffix \.heic\)"):
        read(edit_yaml(train="photos"))


def test_hidden_files_are_left_out_and_counted(tiny_yolo: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tiny_yolo.parent / "images/train"
    for name in (
        "._image_0.png",
        ".hidden/a.png",
        "__MACOSX/b.png",
        "@eaDir/c.png",
        ".ipynb_checkpoints/image_0-checkpoint.png",
    ):
        write_image(folder / name)
    (folder / ".DS_Store").touch()
    (tiny_yolo.parent / "labels/train/._image_0.txt").write_bytes(b"\x00\x05\x16\x07")
    with caplog.at_level("INFO"):
        train = read(tiny_yolo)
    assert len(train) == 8
    (line,) = lines(train, "note")
    assert line.startswith(f"{folder}: 5 hidden image files are left out (._image_0.png; .hidden/a.png; ")
    assert line in caplog.text
    assert lines(train) == []
    findings = check_annotations({"train": train}, (64, 64))
    assert [finding.level for finding in findings if "hidden image files" in finding.text] == ["note"]


def test_each_real_file_comes_once(tiny_yolo: Path, edit_yaml: Callable[..., Path]) -> None:
    folder = tiny_yolo.parent / "images/train"
    (folder / "loop").symlink_to("..")
    (folder / "again").symlink_to(".")
    (folder / "image_0_link.png").symlink_to("image_0.png")
    train = read(tiny_yolo)
    assert len(train) == 8
    (line,) = lines(train, "note")
    assert line == f"{folder}: 3 links to what is there already are left out (again; image_0_link.png; loop)"
    (tiny_yolo.parent / "copy").symlink_to("images/train")
    with pytest.warns(UserWarning, match="8 images are listed more than once"):
        assert len(read(edit_yaml(train=["images/train", "copy"]))) == 8


def test_polygons_are_counted(tiny_yolo: Path) -> None:
    polygons = "1 0.25 0.5 0.75 0.25 0.5 1.0\n2 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n"
    (tiny_yolo.parent / "labels/train/image_0.txt").write_text(BOX + polygons)
    text = (
        "2 labels are polygons, of which the upright box around them is used; 1 of them has four points, as rotated boxes do"
    )
    assert lines(read(tiny_yolo), "note") == [text]


def test_boxes_as_corners_are_refused_with_file_and_numbers(tiny_yolo: Path) -> None:
    rng = np.random.default_rng(0)
    for path in (tiny_yolo.parent / "labels/train").iterdir():
        low = rng.uniform(0.3, 0.6, (4, 2))
        rows = np.hstack([low, low + 0.35])
        path.write_text("".join(f"0 {' '.join(map(str, row))}\n" for row in rows))
    with pytest.raises(ValueError, match=r"e\.g\. 0 0\.\d+ .* in .*/image_0\.txt; as x1 y1 x2 y2, all lie inside"):
        read(tiny_yolo)


@pytest.mark.parametrize(
    "line",
    [
        "{root}/images/train/image_1.png",
        "images\\train\\image_1.png",
        "./images/train/image_1.png",
        "tiny/images/train/image_1.png",
    ],
)
def test_paths_in_lists(tiny_yolo: Path, edit_yaml: Callable[..., Path], line: str) -> None:
    (tiny_yolo.parent / "some.txt").write_text(line.format(root=tiny_yolo.parent) + "\n")
    train = read(edit_yaml(train="some.txt"))
    assert [path.name for path in [train.image_path(0)]] == ["image_1.png"]
    assert train.image_path(0).is_file()


@pytest.mark.parametrize("value", ["images\\train", ["images\\train"], "images/train/image_1.png"])
def test_values_of_splits(tiny_yolo: Path, edit_yaml: Callable[..., Path], value: Any) -> None:
    assert read(edit_yaml(train=value)).file_name(-1) in ("images/train/image_7.png", "images/train/image_1.png")


@pytest.mark.parametrize("line", ["C:\\data\\a.jpg", "/content/data/a.jpg"])
def test_paths_of_another_computer_are_named(tiny_yolo: Path, edit_yaml: Callable[..., Path], line: str) -> None:
    (tiny_yolo.parent / "some.txt").write_text(f"images/train/image_1.png\n{line}\n")
    with pytest.raises(ValueError, match=r"1 of 2 images in the list .*some\.txt cannot be found, .* place or computer"):
        read(edit_yaml(train="some.txt"))
    with pytest.raises(ValueError, match=r"but there is no .*of another place or computer"):
        read(edit_yaml(train=line))
