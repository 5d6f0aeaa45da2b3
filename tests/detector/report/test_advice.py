"""Every rule gives its numbers, and no sentence where it does not apply."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from detector import DetectorModule
from detector.__main__ import build_parser, main
from detector.commands.report import analyze_branches
from detector.evaluation.coco_files import write_predictions
from detector.report.advice import advice, next_commands
from detector.report.input_size import sides_in_input
from detector.report.run_folder import read_run
from detector.weights.files import save_weights
from detector.weights.info import WeightsInfo
from tests.detector.report.cases import Row, rows, truth
from tests.detector.report.runs import write_run
from tests.resuming import TINY

IMAGES = tuple(range(1, 11))
CATS = [(image, 1, [0, 0, 20, 20]) for image in IMAGES]
ONCE = [(image, 1, [0, 0, 20, 20], 0.9) for image in IMAGES]
AGAIN = [(image, 1, [1, 0, 20, 20], 0.9) for image in IMAGES]  # IoU 380 / 420
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a run with detections of one branch or two; its images are 100 x 100."""

    def write(main_branch: list[Row], other: list[Row] | None = None, replace: tuple[str, str] = ("", "")) -> Path:
        run = write_run(tmp_path / "run", truth(*CATS, images=IMAGES), rows(*main_branch), None)
        if other is not None:
            write_predictions(run / "predictions_one2many.json", rows(*other))
        config = (run / "config.yaml").read_text()
        assert replace[0] in config
        (run / "config.yaml").write_text(config.replace(*replace))
        (run / "best.ckpt").touch()
        return run

    return write


def sentences(folder: Path, word: str) -> list[str]:
    run = read_run(folder)
    return [sentence for sentence in advice(run, analyze_branches(run)[0]) if word in sentence]


def commands(folder: Path) -> list[str]:
    run = read_run(folder)
    return next_commands(run, analyze_branches(run)[0])


def test_duplicates_of_one_branch(write: Write) -> None:
    (sentence,) = sentences(write(ONCE + AGAIN[:5]), "duplicates")
    assert "5 of the 15 detections of one2one (33.3%) are duplicates" in sentence
    assert "evaluation.branch: both" in sentence


def test_few_duplicates_are_not_mentioned(write: Write) -> None:
    assert sentences(write(ONCE + AGAIN[:4]), "duplicates") == []


@pytest.mark.parametrize(
    ("other", "end"),
    [
        (
            ONCE,
            "has 0 of 10 from the score 0.899 on: predict with --branch one2many if they are in the way, or train longer.",
        ),
        (ONCE + AGAIN[:5], "has 5 of 15 from the score 0.899 on, not much less: train longer."),
    ],
)
def test_duplicates_of_both_branches(write: Write, other: list[Row], end: str) -> None:
    (sentence,) = sentences(write(ONCE + AGAIN, other), "duplicates")
    assert "10 of the 20 detections of one2one (50.0%)" in sentence
    assert sentence.endswith(f"one2many, with NMS, {end}")


def test_duplicates_in_spite_of_nms(write: Write) -> None:
    (sentence,) = sentences(write(ONCE + AGAIN, replace=("branch: both", "branch: one2many")), "duplicates")
    assert "10 of the 20 detections of one2many" in sentence
    assert "--iou_threshold" in sentence


@pytest.mark.parametrize(
    ("replace", "expected"),
    [
        (
            ("", ""),
            [
                "input of 64 px: half of them have sides below 12.8 px, and 0% below 8 px",
                "for example 128 px, or on tiles, if the images are larger",
                "{min_level: 2}",
            ],
        ),
        (("variant: dyn_n", "variant: yolo26_n"), ["or with the variant yolo26_n-p2, whose cells are 4 px"]),
        (("variant: dyn_n", "variant: yolo26_n-p2"), []),  # 12.8 px are three of its cells
        (("image_size: 64", "image_size: 80"), []),
        (("image_size: 64", "image_size: [32, 128]"), ["32 x 128 px (height x width)", "below 6.4 px, and 100% below 8 px"]),
        (
            ("variant: dyn_n}\ndata: {root: somewhere, image_size: 64", "variant: yolo26_n-p2}\ndata: {image_size: 32"),
            ["4 px"],
        ),
        (("image_size: 64, ", ""), []),
    ],
)
def test_objects_that_are_small_in_the_input(write: Write, replace: tuple[str, str], expected: list[str]) -> None:
    matches = sentences(write(ONCE, replace=replace), "network input")
    assert len(matches) == bool(expected)
    for part in expected:
        assert part in matches[0]


@pytest.mark.parametrize(("tile", "expected"), [(50, 25.6), ([80, 50], 16.0), (200, 12.8)])
def test_objects_in_tiles(write: Write, tile: int | list[int], expected: float) -> None:
    """The input of 64 px shows a tile; tiles of 200 px hold a whole image of 100 px. The command has what was evaluated."""
    run = write(ONCE)
    (run / "evaluation.yaml").write_text(
        f"eval: {run}/best.ckpt\ntile: {tile}\noverlap: 0.25\n"
        "data: {image_size: 64}\nevaluation: {flip_test: true}\nmodel: {variant: dyn_n}\n"
    )
    assert sides_in_input(read_run(run), analyze_branches(read_run(run))[0][0]) == pytest.approx(expected)
    small = "small in the network input of 64 px, also in tiles: half of them have sides below 12.8 px. Train on smaller"
    assert [small in text for text in sentences(run, "in the network input")] == [True] * (tile == 200), sentences(run, "")
    given = build_parser().parse_args(shlex.split(commands(run)[0])[3:])
    assert (given.tile, given.overlap, given.flip_test) == (tile if isinstance(tile, list) else [tile], 0.25, True)


def test_boxes_without_area_are_no_small_objects(tmp_path: Path) -> None:
    """They are in the ground truth, most of the objects here."""
    flat = [(image, 1, [5, 5, 0, 20]) for image in (*IMAGES, *IMAGES)]
    run = write_run(tmp_path / "run", truth(*CATS, *flat, images=IMAGES), rows(*ONCE), None)
    assert sides_in_input(read_run(run), analyze_branches(read_run(run))[0][0]) == pytest.approx(12.8)
    sentences(run, "network input")


def test_another_input_than_that_of_training(write: Write) -> None:
    run = write(ONCE)
    assert sentences(run, "Evaluated with") == []
    (run / "evaluation.yaml").write_text(
        f"eval: {run}/best.ckpt\ndata: {{image_size: [96, 128]}}\nmodel: {{variant: dyn_n}}\n"
    )
    (sentence,) = sentences(run, "Evaluated with")
    assert "input of 96 x 128 px (height x width), trained with 64 px" in sentence
    assert "unless you give --image_size 96 128." in sentence
    assert all(command.endswith(" --image_size 96 128") for command in commands(run))


def test_the_input_of_the_training_is_that_in_the_checkpoint(write: Write) -> None:
    """The configuration of a run that was resumed, or of an evaluation of other weights, may have another."""
    run = write(ONCE)
    module = DetectorModule("dyn_n", ["cat", "dog"], overrides=TINY, image_size=[96, 128])
    save_weights(run / "w.safetensors", module.model.state_dict(), WeightsInfo("dyn_n", TINY, image_size=(96, 128)))
    (run / "evaluation.yaml").write_text(f"eval: {run}/w.safetensors\ndata: {{image_size: 64}}\n")
    (sentence,) = sentences(run, "Evaluated with")
    assert "input of 64 px, trained with 96 x 128 px" in sentence
    assert "compare with --data.image_size [96, 128]." in sentence


def test_numbers_of_the_last_epoch_come_with_its_checkpoint(write: Write) -> None:
    """The threshold is that of these predictions, not of the best epoch's."""
    run = write(ONCE)
    (run / "last.ckpt").touch()
    (run / "metrics.csv").write_text("epoch,val/AP\n0,0.5\n1,0.4\n")
    assert all(f"{run}/last.ckpt" in command for command in commands(run))
    (run / "metrics.csv").write_text("epoch,val/AP\n0,0.4\n1,0.5\n")
    assert all(f"{run}/best.ckpt" in command for command in commands(run))


def test_the_next_command(write: Write) -> None:
    run = write(ONCE)
    predict, export = commands(run)
    assert predict == f"python -m detector predict {run}/best.ckpt IMAGES --score_threshold 0.899"
    assert export == f"python -m detector export {run}/best.ckpt"
    main(["report", str(run), "--no_speed", "--score_threshold", "0.5"])
    todo = re.search(r"<h2>What to do</h2>(.*?)</div>", (run / "report.html").read_text(), re.DOTALL)[1]
    todo = re.sub("</?span[^>]*>", "", todo)
    assert f"<pre>{predict}</pre>" in todo
    assert todo.strip().endswith(f"<code>{export}</code></p>")


def test_the_next_commands_are_ones_that_there_are(write: Write) -> None:
    run = write(ONCE, replace=("branch: both", "branch: one2many"))
    (run / "evaluation.yaml").write_text(
        f"eval: {run}/best.ckpt\ndata: {{image_size: 96}}\nevaluation: {{branch: one2many}}\n"
    )
    predict, export = (build_parser().parse_args(shlex.split(command)[3:]) for command in commands(run))
    assert (predict.branch, predict.score_threshold, predict.image_size) == ("one2many", 0.899, [96])
    assert (export.branch, export.output, export.image_size) == ("one2many", "raw", [96])


def test_nothing_to_use_yet(write: Write) -> None:
    run = write([(1, 1, [70, 70, 20, 20], 0.9)])  # nothing is right
    assert commands(run) == []
    (run / "best.ckpt").unlink()
    write_predictions(run / "predictions.json", rows(*ONCE))
    assert commands(run) == []
