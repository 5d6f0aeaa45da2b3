"""A report on a network that has learned nothing says so first, and one that has learned something does not."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from detector.__main__ import main
from detector.commands.report import analyze_branches
from detector.evaluation.coco_files import write_predictions
from detector.report.advice import advice, next_commands
from detector.report.nothing_learned import how_to_learn
from detector.report.run_folder import read_run
from tests.detector.report.cases import Row, rows, truth
from tests.detector.report.runs import write_run

IMAGES = tuple(range(1, 21))
PLACES = np.random.default_rng(0).uniform(0, 60, (20, 2)).round().tolist()  # of an object in every image, 40 x 40 px
OBJECTS = [(image, 1 if image % 2 else 5, [*place, 40, 40]) for image, place in zip(IMAGES, PLACES)]
LARGE = [(image, 1, [5 + image % 4, 5 + image % 3, 85, 85]) for image in IMAGES]  # a constant box has AP50 1
MOSTLY_LEFT = [(image, 1, [60 * (image > 16), 60 * (image > 16), 40, 40]) for image in IMAGES]  # the mean box fits none
CORNERS = [[0, 0, 30, 30], [60, 60, 30, 30]]
FIXED_CAMERA = [(image, 1, corner) for image in IMAGES for corner in CORNERS]
GRID = [[x, y, 38.0, 38.0] for x in (0, 30, 60) for y in (0, 30, 60)]


def same(score: float, *boxes: list[float], classes: tuple[int, ...] = (1, 5)) -> list[Row]:
    """The same ``boxes`` of every class on every image, moved by up to a pixel."""
    moves = np.random.default_rng(1).uniform(0, 1, len(IMAGES))
    return [
        (image, category, [box[0] + move, *box[1:]], score - move / 1e4)
        for image, move in zip(IMAGES, moves)
        for box in boxes
        for category in classes
    ]


def found(score: float, objects: list = OBJECTS) -> list[Row]:
    return [(image, category, box, score) for image, category, box in objects]


def write(folder: Path, detections: list[Row], objects: list = OBJECTS, other: list[Row] | None = None) -> Path:
    run = write_run(folder / "run", truth(*objects, images=IMAGES), rows(*detections), None)
    if other is not None:
        write_predictions(run / "predictions_one2many.json", rows(*other))
    (run / "best.ckpt").touch()
    return run


def sentences(folder: Path) -> list[str]:
    run = read_run(folder)
    return advice(run, analyze_branches(run)[0])


@pytest.mark.parametrize(
    ("detections", "objects", "evidence"),
    [
        (same(0.0131, [30, 30, 40, 40]), OBJECTS, ["same boxes on every image", "best score is 0.013"]),
        (same(0.8, *GRID), OBJECTS, ["same boxes on every image"]),  # the same N boxes, with high scores
        (same(0.0124, [0, 0, 80, 80], classes=(1,)), LARGE, ["same boxes on every image", "best score is 0.0123"]),
        (same(0.0124, [0, 0, 40, 40], classes=(1,)), MOSTLY_LEFT, ["same boxes on every image", "best score is 0.0123"]),
        (found(0.01, [(o[0], 6 - o[1], o[2]) for o in OBJECTS]), OBJECTS, ["AP50 of 0.000 is not above that of a constant"]),
        ([], OBJECTS, ["it gives no detection at all"]),
    ],
)
def test_networks_that_have_learned_nothing(tmp_path: Path, detections: list, objects: list, evidence: list[str]) -> None:
    run = write(tmp_path, detections, objects)
    first, *others = sentences(run)
    assert first.startswith("The network has learned nothing yet: ")
    assert all(part in first for part in evidence), first
    remedies = " ".join(others)
    assert all(part in remedies for part in ("Train longer", "--model.nominal_batch 16", "--model.weights", "--model.lr"))
    for misleading in ("Show detections", "annotations may be missing", "check the labels", "weakest class"):
        assert misleading not in remedies
    assert next_commands(read_run(run), analyze_branches(read_run(run))[0]) == []


@pytest.mark.parametrize(
    ("detections", "objects"),
    [
        (found(0.9), OBJECTS),
        (found(0.0124), OBJECTS),  # low scores alone mean little
        (found(0.9, LARGE), LARGE),  # all objects lie at one place
        (same(0.9, [6, 6, 85, 85], classes=(1,)), LARGE),  # and one box is an answer
        (same(0.9, [30, 0, 25, 25], CORNERS[0], classes=(1,)), FIXED_CAMERA),  # AP50 is below 0.5
        (found(0.01), []),  # nothing is known
        (found(0.9, LARGE), []),
    ],
)
def test_networks_that_have_learned_something(tmp_path: Path, detections: list, objects: list) -> None:
    said = " ".join(sentences(write(tmp_path, detections, objects)))
    assert "learned nothing" not in said
    assert "other classes" not in said


def test_one_branch_may_have_learned_before_the_other(tmp_path: Path) -> None:
    run = write(tmp_path, same(0.01, [30, 30, 40, 40]), other=found(0.9))
    first = sentences(run)[0]
    assert first.startswith("The branch one2one has learned nothing yet: ")
    assert "one2many has, with AP 1.000: predict with --branch one2many, or train longer." in first


def test_confident_detections_that_are_all_wrong_point_to_the_data(tmp_path: Path) -> None:
    wrong_classes = [(image, 6 - category, box, 0.9) for image, category, box in OBJECTS]
    (sentence,) = [s for s in sentences(write(tmp_path, wrong_classes)) if "constant box" in s]
    assert "though scores reach 0.9: check that classes, boxes and input size" in sentence


def test_another_input_size_may_be_the_reason(tmp_path: Path) -> None:
    run = write(tmp_path, same(0.01, [30, 30, 40, 40]))
    (run / "evaluation.yaml").write_text(f"eval: {run}/best.ckpt\ndata: {{image_size: 320}}\n")
    first, second, *others = sentences(run)
    assert first.startswith("These detections show nothing: it finds nearly the same boxes")
    assert second.startswith("Evaluated with an input of 320 px, trained with 64 px")
    assert not [sentence for sentence in others if "Evaluated with" in sentence or "Train longer" in sentence]


def test_what_an_earlier_epoch_had_learned_is_not_forgotten(tmp_path: Path) -> None:
    run = write(tmp_path, same(0.01, [30, 30, 40, 40]))
    (run / "metrics.csv").write_text("epoch,val/AP\n0,0.4\n1,0.001\n")
    first, second = sentences(run)[:2]
    assert first.startswith("The network has lost what it had learned: it finds nearly the same boxes")
    assert "epoch 0 was better (AP 0.400)" in second


def test_no_detection_above_a_high_score_threshold(tmp_path: Path) -> None:
    run = write(tmp_path, [])
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("{branch: both}", "{branch: both, score_threshold: 0.4}"))
    assert sentences(run)[0].startswith("No detection has a score of 0.4 or more (evaluation.score_threshold)")


def test_detections_of_one_class_only(tmp_path: Path) -> None:
    (sentence,) = [s for s in sentences(write(tmp_path, found(0.9, [(o[0], 1, o[2]) for o in OBJECTS]))) if "are cat" in s]
    assert sentence.startswith("All 20 shown detections are cat, but 10 of 20 objects are of other classes")
    assert "check the labels" not in " ".join(sentences(tmp_path / "run"))


def test_many_steps_without_learning_point_to_the_data_and_the_learning_rate(tmp_path: Path) -> None:
    run = write(tmp_path, same(0.01, [30, 30, 40, 40]))
    (run / "metrics.csv").write_text("epoch,step,val/AP\n0,2999,0.0\n1,5999,0.0\n")
    _, first, second, third = sentences(run)[:4]
    assert first.startswith("6000 optimizer steps are enough to learn something: look at what the network sees")
    assert "--model.lr" in second
    assert third.startswith("Train longer (so far 6000 optimizer steps in 2 epochs)")


def test_an_imagenet_backbone_is_proposed_unless_the_run_has_one() -> None:
    def proposed(**model: str) -> bool:
        run = SimpleNamespace(config={"model": model}, epochs={})
        return any("configs/backbone.yaml" in sentence for sentence in how_to_learn(run))

    assert proposed()
    assert proposed(backbone_weights="none")
    assert not proposed(backbone_weights="pretrained")
    assert not proposed(weights="yolo26n.pt")


def test_the_page_and_the_command_say_it_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write(tmp_path, same(0.0124, [0, 0, 80, 80], classes=(1,)), LARGE, same(0.02, [5, 5, 85, 85], classes=(1,)))
    main(["report", str(run), "--no_speed"])
    assert capsys.readouterr().out.startswith("The network has learned nothing yet")
    page = (run / "report.html").read_text()
    warning, numbers = page.index('<p class="warning wide">The network has learned nothing yet'), page.index("<h2>")
    assert warning < numbers
    assert ">constant box</th>" in page
    assert "A network whose AP is not above it shows nothing" in page
    row = page[page.index(">AP50</th>") :]
    assert row[: row.index("</tr>")].count("<td>") == 4  # its meaning, both branches and the constant box
    assert "<td>1.000</td></tr>" in row[:200]
