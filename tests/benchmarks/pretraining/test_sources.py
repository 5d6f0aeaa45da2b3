"""The sets of the study of pre-training: which images, which split, and a folder that is whole or absent."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.pretraining import openclipart, sources
from benchmarks.pretraining.fractals import draw_fractal
from benchmarks.pretraining.settings import FULL, TOY
from benchmarks.pretraining.sources import Sample, clipart_samples, fractal_samples, split_of, write_set

RED = np.dstack([np.full((10, 20), value, np.uint8) for value in (0, 0, 255, 255)])  # BGR and alpha


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))


@pytest.fixture
def drawings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write folders of drawings; a topic needs 3 of them."""
    monkeypatch.setattr(openclipart, "MIN_DRAWINGS", 3)
    folder = tmp_path / "unpacked" / openclipart.DRAWINGS
    numbers = {"food": 3, "food/fruit": 4, "tools": 3, "unsorted": 3, "recreation/games/cards/white": 3, "music": 2}
    for topic, number in numbers.items():
        (folder / topic).mkdir(parents=True, exist_ok=True)
        for n in range(number):
            cv2.imwrite(str(folder / topic / f"{n}.png"), RED)
    (folder / "music" / "link.png").symlink_to(folder / "music" / "0.png")
    return folder


def test_topics_do_not_overlap_and_links_do_not_count(drawings: Path) -> None:
    topics = openclipart.topics(drawings)
    assert {name: len(paths) for name, paths in topics.items()} == {"food/fruit": 4, "tools": 3}
    assert sorted(path.name for path in topics["food/fruit"]) == ["0.png", "1.png", "2.png", "3.png"]


def test_every_third_drawing_is_for_validation(drawings: Path) -> None:
    samples = list(clipart_samples(drawings, classes=5, images=3, side=16))
    assert [(one.name, one.split) for one in samples] == [
        (name, split) for name in ("food-fruit", "tools") for split in ("train", "train", "val")
    ]
    assert [split_of(n) for n in range(6)].count("val") == 2


def test_drawings_are_on_white_in_the_middle_of_a_square(drawings: Path, tmp_path: Path) -> None:
    image = openclipart.read_drawing(drawings / "tools" / "0.png", 50)  # 92 % of 50 px wide, and half as high
    red = (image == (0, 0, 255)).all(axis=2)
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (13, 35, 2, 47)
    assert (image[~red] == 255).all()
    half = RED.copy()
    half[:, :, 3] = 128
    for name, stored, color in (
        ("half", half, [127, 127, 255]),  # 255 * 127 / 255
        ("gray", np.full((9, 9), 7, np.uint8), [7] * 3),
        ("deep", np.full((9, 9, 3), 257 * 9, np.uint16), [9] * 3),
    ):
        cv2.imwrite(str(tmp_path / f"{name}.png"), stored)
        assert openclipart.read_drawing(tmp_path / f"{name}.png", 32)[16, 16].tolist() == color


def test_strips_of_a_large_drawing_are_put_on_white_like_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 4), dtype=np.uint8)
    whole = openclipart._on_white(image)
    monkeypatch.setattr(openclipart, "STRIP", 3)
    np.testing.assert_array_equal(openclipart._on_white(image), whole)


def test_a_package_that_cannot_be_had_is_explained(tmp_path: Path) -> None:
    (tmp_path / "no.deb").touch()
    with pytest.raises(
        ValueError, match=r"cannot get openclipart-png: .*--package, or choose the labeled set single_shapes"
    ):
        openclipart.fetch(tmp_path / "unpacked", tmp_path / "no.deb")


def test_little_data_are_the_first_of_much() -> None:
    little, much = (list(fractal_samples(*size, val_images=1, side=16)) for size in ((2, 1), (3, 2)))
    by_place = {(one.split, one.name, one.number): one.image for one in much}
    assert len(little) == 4
    assert all((by_place[one.split, one.name, one.number] == one.image).all() for one in little)
    np.testing.assert_array_equal(by_place["train", "system_0002", 1], draw_fractal(0, 2, "train", 1, 16))


def test_both_amounts_see_the_same_number_of_images() -> None:
    for sizes in (FULL, TOY):
        numbers = [classes * images * sizes.epochs(name) for name, (classes, images) in
                   (("little", sizes.little), ("much", sizes.much))]  # fmt: skip
        assert numbers[0] == numbers[1]
        assert sizes.much[0] * sizes.much[1] == 16 * sizes.little[0] * sizes.little[1]


def test_a_set_is_written_once_and_whole(tmp_path: Path) -> None:
    def interrupted() -> list[Sample]:
        yield Sample("train", "a", 0, np.zeros((4, 4, 3), np.uint8))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_set(tmp_path / "set", {"numbers": (1, 2)}, interrupted)
    assert not (tmp_path / "set").exists()
    samples = [Sample(split, "b", 7, np.full((4, 4, 3), 9, np.uint8)) for split in ("train", "val")]
    manifest = write_set(tmp_path / "set", {"numbers": (1, 2)}, lambda: samples)
    assert manifest["images"] == {"train": 1, "val": 1}
    assert files(tmp_path / "set") == ["train/b/00007.png", "val/b/00007.png"]
    assert cv2.imread(str(tmp_path / "set/val/b/00007.png")).max() == 9
    assert write_set(tmp_path / "set", {"numbers": (1, 2)}, lambda: pytest.fail("written again")) == manifest
    with pytest.raises(ValueError, match="with other sizes"):
        write_set(tmp_path / "set", {"numbers": (1, 3)}, lambda: samples)


def test_the_command_writes_the_sets(drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["little", "openclipart", "single_shapes"]
    folders = ["--out", str(tmp_path / "out"), "--unpacked", str(tmp_path / "unpacked")]
    monkeypatch.setattr(sys, "argv", ["sources", "--toy", "--sets", *names, *folders])
    sources.main()
    manifests = {name: json.loads((tmp_path / "out" / name / "manifest.json").read_text()) for name in names}
    assert {name: one["images"] for name, one in manifests.items()} == {
        "little": {"train": 10, "val": 4},
        "openclipart": {"train": 5, "val": 2},
        "single_shapes": {"train": 28, "val": 12},
    }
    assert {name: one["license"] for name, one in manifests.items()} == {
        "little": "Apache-2.0", "openclipart": "public domain", "single_shapes": "Apache-2.0",
    }  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["sources", "--sets", "small"])
    with pytest.raises(SystemExit):
        sources.main()
