"""``python -m data check`` and ``show``: exit status, output, mistakes."""

import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import cv2
import pytest

from data.__main__ import main
from tests.data.check.test_findings import Edit
from tests.data.voc_files import write_lists, write_voc


def test_a_sound_set_has_no_errors(check: Callable) -> None:
    status, report = check()
    assert status == 0
    assert report.splitlines()[-2] == "0 errors, 1 warning: training can start"
    assert "train: 3 classes have fewer than 10 objects (red: 4; green: 4; blue: 4)" in report
    assert "8 images, 1 without objects; 13 objects, 1 crowd among them; 1.6 an image, at most 3" in report
    assert "class balance: 4 x" in report


def test_errors_of_all_splits_are_reported_and_stop(check: Callable, edit_json: Edit, tiny_coco: Path) -> None:
    edit_json("train", lambda content: content["annotations"][0].update(category_id=8))
    os.remove(tiny_coco / "images/val/image_2.png")
    status, report = check()
    assert status == 1
    assert "annotation 1010 refers to category_id 8" in report
    assert "1 of 5 images is not in" in report
    assert report.splitlines()[-2] == "2 errors, 0 warnings"


def test_mistakes_of_the_split_are_reported_with_the_rest(
    config: list[str], tiny_coco: Path, capsys: pytest.CaptureFixture
) -> None:
    """A COCO set with a validation set and data.val_split; a folder without annotations; an empty list of Pascal VOC."""
    assert main(["check", *config, "--quick", "--data.val_split", "0.2"]) == 1
    printed = capsys.readouterr().out
    assert "all: data.val_split is 0.2, but the data have a validation set" in printed
    assert "train: 3 classes have fewer than 10 objects" in printed
    Path("nothing").mkdir()
    assert main(["check", "--quick", "--data.root", "nothing"]) == 1
    printed = capsys.readouterr().out
    assert "train: data.root: nothing has no annotations" in printed
    assert printed.splitlines()[-2] == "1 error, 0 warnings"
    write_lists(write_voc(Path("voc")), train="")
    assert main(["check", "--quick", "--data.root", "voc"]) == 1
    assert "train.txt: the list is empty" in capsys.readouterr().out


def test_ctrl_c_gives_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("data.__main__.parse", Mock(side_effect=KeyboardInterrupt))
    assert main(["check"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("option", ["--images", "--pictures"])  # the second is an old spelling
def test_show_writes_sheets_of_every_split(config: list[str], option: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["show", *config, "--out", "sheets", option, "6", "--data.augment.mixup=1"]) == 0
    assert capsys.readouterr().out.splitlines() == ["look at sheets/train.jpg", "look at sheets/val.jpg"]
    train, val = (cv2.imread(f"sheets/{split}.jpg") for split in ("train", "val"))
    assert train.shape == val.shape
    assert train.std() > 20


def test_the_help_shows_no_old_spellings(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "--images" in text
    assert "--pictures" not in text


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--data.rot", "x"], "rot"),
        (["--quck"], "unknown option --quck; did you mean --quick?\nthere are --config, --out, "),
        (["--config", "lost.yaml"], "--config lost.yaml: no such file (looked from "),
        (["--data", "lost"], "data is a group of settings and takes no 'lost'; did you mean --data.root?"),
        (["--data.batch_size", "8.5"], "data.batch_size is '8.5'; expected a whole number"),
        (["--data.root", "lost"], "lost"),
        (["--config", "broken.yaml"], "broken.yaml: is not YAML"),
        (["--config", "twice.yaml"], "twice.yaml: the key 'root' is given twice, in line 1; keep one"),
        (["--data.augment", "{mosaic: 1, mosaic: 0}"], "the key 'mosaic' is given twice"),
        (["--out", "broken.yaml"], "--out broken.yaml is a file"),
        (["--images", "0"], "--images is 0; expected 1 or more"),
        (["--quick"], "--quick is of the command check: python -m data check, not show"),
        (["--clean", "new"], "--clean is of the command check"),
        (["--overlap", "0.2"], "--overlap is of the command tile: python -m data tile, not show"),
        (["--min_visible", "0.5"], "--min_visible is of the command tile"),
    ],
)
def test_mistakes_are_named(config: list[str], extra: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    Path("broken.yaml").write_text("data: [")
    Path("twice.yaml").write_text("data: {root: a, root: b}")
    assert main(["show", *config, *extra]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["check", "--confg", "a.yaml"], "unknown option --confg; did you mean --config?\n"),
        (
            ["check", "--data.image_sise", "64"],
            "unknown option --data.image_sise; did you mean --data.image_size?\ndata has root, ",
        ),
        (["check", "--imgsz", "64"], "unknown option --imgsz; did you mean --data.image_size?\n"),
        (["check", "--data.image_size", "64", "96"], "--data.image_size takes one value, and is given 2: 64 96; a list is"),
        (["check", "set.yaml"], "unknown argument 'set.yaml'; a configuration file is given as --config set.yaml"),
        (["chek"], "unknown command 'chek'; did you mean check?"),
        (["shapes"], "unknown command 'shapes'; did you mean python -m data.shapes?"),
    ],
)
def test_misspelled_options_and_commands(args: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    try:
        status = main(args)
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2
    assert error.startswith("error: ")
    assert message in error
    assert "usage" not in error
