"""Images of single shapes: the same every time, each shape wholly visible, in folders by class."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.shapes import single, write
from data.shapes.__main__ import main
from data.shapes.draw import SPLITS
from data.shapes.single import KINDS, draw_single
from data.shapes.write import draw_shapes, draw_singles


def test_an_image_depends_only_on_its_arguments() -> None:
    first = draw_single("star", 0, "train", 3, 48)
    np.random.seed(7)  # noqa: NPY002  the global state must not matter
    cv2.setRNGSeed(7)
    np.testing.assert_array_equal(draw_single("star", 0, "train", 3, 48), first)
    assert first.shape == (48, 48, 3)
    assert first.dtype == np.uint8
    others = [("star", 0, "train"), ("star", 1, "train"), ("star", 0, "val"), ("ring", 0, "train")]
    assert len({hashlib.sha256(draw_single(*other, 3, 48).tobytes()).hexdigest() for other in others}) == len(others)


@pytest.mark.parametrize("side", [16, 33, 64])
def test_a_shape_is_wholly_within_its_image(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def note_the_shapes(shapes: list, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        drawn.extend(shapes)
        return np.zeros((height, width, 3), np.uint8)

    monkeypatch.setattr(single, "paint_image", note_the_shapes)
    for kind in KINDS:
        for index in range(20):
            draw_single(kind, 0, "train", index, side)
    assert [shape.kind for shape in drawn] == list(np.repeat(KINDS, 20))
    for shape in drawn:
        whole = shape.coverage.sum() / shape.area
        assert whole == pytest.approx(1, abs=1e-3), shape.kind  # of its area, the share inside the image
        longer = max(shape.box[2] - shape.box[0], shape.box[3] - shape.box[1])
        assert 0.45 * side - 1 <= longer <= 0.9 * side + 1


def test_folders_by_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = ["--num_train", "7", "--num_val", "3", "--num_classes", "3", "--image_size", "32", "--seed", "5"]
    main([str(tmp_path / "set"), "--single", *numbers])
    assert capsys.readouterr().out.strip() == str(tmp_path / "set")
    files = {path.relative_to(tmp_path / "set").as_posix() for path in tmp_path.rglob("*.png")}
    train = {f"train/{KINDS[index % 3]}/{index + 1:06d}.png" for index in range(7)}
    assert files == train | {f"val/{KINDS[index]}/{index + 1:06d}.png" for index in range(3)}
    stored = cv2.imread(str(tmp_path / "set" / "val" / KINDS[2] / "000003.png"))
    np.testing.assert_array_equal(stored, draw_single(KINDS[2], 5, "val", 2, 32))


def test_the_default_is_the_set_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "draw_single", lambda kind, seed, split, index, side: np.zeros((side, side, 3), np.uint8))
    main([str(tmp_path / "set"), "--single"])
    numbers = {split: [len(list(folder.iterdir())) for folder in (tmp_path / "set" / split).iterdir()] for split in SPLITS}
    assert numbers == {"train": [40] * 4, "val": [10] * 4}
    assert cv2.imread(str(next(tmp_path.rglob("*.png")))).shape == (64, 64, 3)


def test_other_numbers_replace_the_set_and_equal_ones_keep_it(tmp_path: Path) -> None:
    settings = {"num_train": 2, "num_val": 2, "num_classes": 2, "image_size": 16}
    draw_singles(tmp_path, **settings)
    (tmp_path / "note").touch()
    draw_singles(tmp_path, **settings)
    assert (tmp_path / "note").exists()
    draw_singles(tmp_path, **settings | {"seed": 1})
    assert not (tmp_path / "note").exists()
    draw_shapes(tmp_path, num_train=1, num_val=1)
    assert not (tmp_path / "train" / "circle").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--single", "--num_classes", "13"], "only 12 kinds of shape"),
        (["--single", "--num_classes", "0"], "num_classes=0: expected at least 1"),
        (["--single", "--num_train", "3"], "num_train=3, num_val=40: expected at least 4"),
        (["--single", "--image_size", "15"], "image_size=15: expected at least 16"),
        (["--single", "--seed", "-1"], "seed=-1: expected at least 0"),
        (["--image_size", "64"], "--image_size is only for --single"),
        (["--num_classes", "4"], "--num_classes is only for --single"),
        (["--single", "--root", "a"], "not allowed with argument"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "set"), *arguments])
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
