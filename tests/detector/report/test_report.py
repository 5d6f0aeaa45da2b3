"""The command on whole, broken and odd run folders."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from detector import DetectorModule
from detector.__main__ import main
from detector.evaluation.coco_eval import METRICS, evaluate
from detector.evaluation.coco_files import load_ground_truth, read_predictions
from detector.report.curves import class_curve
from detector.report.figures import training_plots
from detector.report.run_folder import read_run
from tests.detector.report.cases import evaluated, random_case, rows, truth
from tests.detector.report.runs import METRICS as METRICS_FILE
from tests.detector.report.runs import make_run, write_run
from tests.detector.report.test_routing import DIAGNOSIS


@pytest.fixture(autouse=True)
def saved_plots(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """Names and folders of the plots that would be written: writing takes most of the time."""
    saved: list[tuple[str, Path]] = []
    monkeypatch.setattr("detector.commands.report.save_plot", lambda plot, folder: saved.append((plot.name, folder)))
    return saved


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def report(run: Path, *options: str | Path) -> str:
    """The page, written beside the run's files."""
    main(["report", str(run), *map(str, options)])
    return (run / "report.html").read_text()


def test_a_whole_run(run: Path, capsys: pytest.CaptureFixture) -> None:
    (run / "routing.json").write_text(json.dumps(DIAGNOSIS))
    page = report(run)
    assert f"open {run / 'report.html'}" in capsys.readouterr().out
    assert not re.search(r"<script|https?://(?!www\.w3\.org)|src=\"(?!data:)", page)  # nothing from elsewhere
    result = evaluate(load_ground_truth(run / "ground_truth.json"), read_predictions(run / "predictions.json"))
    other = evaluate(load_ground_truth(run / "ground_truth.json"), read_predictions(run / "predictions_one2many.json"))
    for name in METRICS:
        shown = [f"{r.metrics[name]:.3f}" if r.metrics[name] >= 0 else "none" for r in (result, other)]
        assert re.search(rf">{name}</th><td>[^<]*</td><td>{shown[0]}</td><td>{shown[1]}</td>", page), name
    for name, value in result.per_class.items():
        assert re.search(rf">{name}</th><td>\d+</td><td>{value:.3f}</td>", page)
    for part in (
        "classes",
        "curves",
        "confusions",
        "images",
        "suspects",
        "sizes",
        "limits",
        "training",
        "routing",
        "speed",
        "config",
    ):
        assert f'id="{part}"' in page, part
    assert (
        'scope="row">shuffled</th><td>all</td><td>0.2500</td><td>0.0125</td><td>0.2500</td><td>0.1000 to 0.4000</td>' in page
    )
    assert "of best.ckpt on 87 images" in page
    assert "<td>&lt;cell&gt;</td>" in page
    suspects = json.loads((run / "suspect_labels.json").read_text())
    assert {entry["kind"] for entry in suspects} == {"no label", "other class", "no detection"}
    assert f"no label: {sum(entry['kind'] == 'no label' for entry in suspects)}, other class" in page
    assert page.count("data:image/jpeg;base64") == 24 + min(len(suspects), 12)
    assert "of 4 planned epochs" in page
    assert ">packages torch</th><td>2.14.0</td>" in page
    assert all('aria-label="' in svg for svg in re.findall(r"<svg[^>]*>", page))


def test_the_plots_of_the_page_are_files_too(run: Path, saved_plots: list[tuple[str, Path]]) -> None:
    page = report(run)
    names = [name for name, _ in saved_plots]
    assert len(names) == page.count("<svg") == len(set(names))
    assert {"confusion_matrix", "precision_recall", "score_thresholds", "ap", "learning_rate", "wrong_detections"} <= set(
        names
    )
    assert {folder for _, folder in saved_plots} == {run / "figures"}


def test_plots_of_an_earlier_report_are_named(run: Path, capsys: pytest.CaptureFixture) -> None:
    (run / "figures").mkdir()
    for name in ("old_plot", "ap"):
        (run / "figures" / f"{name}.svg").touch()
    report(run)
    assert "also has files of an earlier report, not of this one: old_plot." in capsys.readouterr().out


def test_two_reports_are_equal(run: Path) -> None:
    assert report(run) == report(run)


def test_a_threshold_of_ones_own(run: Path) -> None:
    best = re.compile(r"<b>([\d.]+)</b>score threshold of best F1")
    page, other = report(run), report(run, "--score_threshold", "0.9")
    assert best.search(page)[1] == best.search(other)[1] != "0.9"
    assert "<b>0.9</b>threshold of this page" in other
    assert "At the score 0.9 and" in other
    assert "threshold of this page" not in page


def test_a_complete_run_is_not_called_cut_short(run: Path) -> None:
    """Validated every third epoch, and finished."""
    with (run / "metrics.csv").open("a") as file:
        file.writelines(f"{epoch},{2 * epoch + 1},0.001,4.0,1.0,,,,,\n" for epoch in (2, 3))
    assert "cut short" not in report(run)


def test_a_resumed_run_shows_its_newest_configuration(run: Path) -> None:
    (run / "config-2.yaml").write_text((run / "config.yaml").read_text().replace("max_epochs: 4", "max_epochs: 7"))
    page = report(run)
    assert "of 7 planned epochs" in page
    assert "<summary>config-2.yaml</summary>" in page


def test_the_page_says_of_which_epoch_it_is(run: Path) -> None:
    assert "predictions of epoch 2, counted from 1, the last that was validated" in report(run)
    assert "predictions of epoch" not in report(evaluation_of(run))


def test_the_axis_of_ap_begins_at_0(run: Path) -> None:
    plots = {plot.name: plot for plot in training_plots(read_run(run).epochs)}
    assert plots["ap"].figure.axes[0].get_ylim()[0] == 0
    assert plots["total_loss"].figure.axes[0].get_ylim()[0] > 3


def test_a_run_of_one_epoch(run: Path) -> None:
    """A single value of each metric is a dot."""
    (run / "metrics.csv").write_text("".join(METRICS_FILE.splitlines(keepends=True)[:4]))
    page = report(run)
    assert "1 epoch" in page
    assert "finished 1 of 4 planned epochs" in page
    plot = re.search(r"<figcaption>AP on the validation set</figcaption>(<svg.*?</svg>)", page, re.DOTALL)[1]
    assert "AP: from 0.1 to 0.1, lowest 0.1, highest 0.1" in plot


def test_validations_without_objects_have_no_ap(run: Path) -> None:
    """pycocotools gives -1, which is no number of a curve."""
    (run / "metrics.csv").write_text(
        "epoch,step,train/total,val/AP,val/AP50,val/AP_class/cat\n0,1,2.0,-1,-1,-1\n1,3,1.0,0.5,-1,-1\n"
    )
    epochs = read_run(run).epochs
    assert epochs == {
        0: {"epoch": 0, "step": 1, "train/total": 2},
        1: {"epoch": 1, "step": 3, "train/total": 1, "val/AP": 0.5},
    }
    assert "lowest -1" not in report(run)


def test_half_a_checkpoint_does_not_cost_the_page(run: Path) -> None:
    (run / "last.ckpt").write_bytes(b"PK\x03\x04")
    assert "The network is not measured" in report(run)


def test_an_evaluation_is_known_from_within_its_folder(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "eval_val").mkdir()
    for path in run.glob("*.json"):
        path.rename(run / "eval_val" / path.name)
    monkeypatch.chdir(run / "eval_val")
    page = report(Path("."))
    assert "dyn_n: evaluation of a checkpoint on the val split: eval_val</title>" in page
    assert 'id="training"' in page  # of the run


def test_the_network_is_measured_where_there_is_a_checkpoint(run: Path) -> None:
    module = DetectorModule(variant="yolo26_n", class_names=["cat", "dog"], category_ids=[1, 5], image_size=64)
    saved = {
        "hyper_parameters": dict(module.hparams),
        "state_dict": module.state_dict(),
        "pytorch-lightning_version": "2.6.6",
    }
    torch.save(saved, run / "best.ckpt")
    parameters = sum(p.numel() for p in module.model.parameters())
    assert f"<td>{parameters:,}</td>" in report(run)
    assert "milliseconds" not in report(run, "--no_speed")


def test_a_run_that_was_moved_asks_for_its_images(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "run"
    shutil.copytree(run, moved)
    (tmp_path / "pictures").rename(tmp_path / "moved")
    page = report(moved)
    assert "36 images could not be shown" in page
    assert str(tmp_path / "pictures") in page
    assert report(moved, "--images", tmp_path / "moved").count("data:image/jpeg") == 36


def test_an_interrupted_run_shows_what_it_has(run: Path) -> None:
    for path in run.glob("*.json"):
        path.unlink()
    (run / "metrics.csv").write_text(METRICS_FILE + "2,5,0.0")  # cut off in the middle of a line
    page = report(run)
    assert "no predictions" in page
    assert 'id="training"' in page


def test_a_run_of_before_ground_truth_was_recorded(run: Path, tmp_path: Path) -> None:
    (run / "ground_truth.json").rename(tmp_path / "val.json")
    assert "cannot be evaluated without ground truth" in report(run)
    assert 'id="classes"' in report(run, "--ground_truth", tmp_path / "val.json")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("root: somewhere", f"root: {tmp_path}"))
    assert 'id="classes"' in report(run)


def test_the_checkpoint_of_an_evaluation_is_the_one_that_was_evaluated(run: Path, tmp_path: Path) -> None:
    """Not another one that is called the same; a run that has been moved takes its own along."""
    inner, other = evaluation_of(run), tmp_path / "other" / "best.ckpt"
    other.parent.mkdir()
    for path in (other, run / "best.ckpt"):
        path.touch()
    (inner / "evaluation.yaml").write_text(f"eval: {other}\n")
    assert read_run(inner).checkpoint == other
    other.unlink()
    assert read_run(inner).checkpoint is None
    (inner / "evaluation.yaml").write_text(f"eval: /before/{run.name}/best.ckpt\n")
    assert read_run(inner).checkpoint == run.resolve() / "best.ckpt"


def evaluation_of(run: Path) -> Path:
    """Make the run's predictions those of an evaluation."""
    inner = run / "eval_val"
    inner.mkdir()
    for path in run.glob("*.json"):
        if path.name != "run.json":
            path.rename(inner / path.name)
    return inner


def test_an_evaluation_takes_what_it_lacks_from_its_run(run: Path) -> None:
    page = report(evaluation_of(run))
    assert "<h1>dyn_n: evaluation of a checkpoint on the val split</h1>" in page
    assert "which checkpoint was evaluated is not recorded" in page
    assert 'id="training"' in page
    assert 'id="classes"' in page


def test_an_evaluation_says_of_what_it_is(run: Path) -> None:
    inner = evaluation_of(run)
    (inner / "evaluation.yaml").write_text(
        "eval: somewhere/last.ckpt\nmodel: {variant: dyn_n}\ndata: {image_size: 96}\nevaluation: {branch: one2many}\n"
    )
    page = report(inner)
    assert "<h1>dyn_n: evaluation of last.ckpt on the val split</h1>" in page
    assert "not recorded" not in page
    assert "input 96 px" in page
    assert "branch one2many" in page  # so predictions.json is not that of one2one
    assert "branch one2one" not in page
    for path in inner.glob("*.json"):
        path.rename(inner / path.name.replace("predictions", "predictions_test").replace("truth", "truth_test"))
    (inner / "evaluation.yaml").rename(inner / "evaluation_test.yaml")
    assert "evaluation of last.ckpt on the test split" in report(inner)


@pytest.mark.parametrize(
    ("objects", "detections", "sentence"),
    [
        ((), ((1, 1, [0, 0, 5, 5], 0.5),), "have no objects"),
        (((1, 1, [0, 0, 5, 5]),), (), "no detection at all"),
        ((), (), "have no objects"),
        (((1, 1, [0, 0, 50, 50], 1),), ((1, 1, [0, 0, 5, 5], 0.5),), "have no objects"),
    ],
)
def test_no_objects_or_no_right_detection(tmp_path: Path, objects: tuple, detections: tuple, sentence: str) -> None:
    page = report(write_run(tmp_path / "run", truth(*objects), rows(*detections), None))
    assert sentence in page
    assert 'id="confusions"' in page


def test_one_class(tmp_path: Path) -> None:
    content = truth((1, 1, [0, 0, 20, 20]), categories={1: "cell"})
    page = report(write_run(tmp_path / "run", content, rows((1, 1, [0, 0, 20, 20], 0.75)), None))
    assert "Show detections with scores from 0.749 on: 100% of them are right" in page
    assert "weakest class" not in page


def test_small_scores_keep_the_digits_that_their_f1_needs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """As of a network that has learned little: all scores are about 0.0124."""
    content, detections = random_case(0)
    detections[:, 5] = (0.012 + 0.0005 * detections[:, 5]).round(7)
    page = report(write_run(tmp_path / "run", content, detections, None))
    match = re.search(r"scores from (\S+) on: (\d+%) of them are right, and (\d+%) of the objects .*\(F1 (\S+)\)", page)
    threshold, shown = float(match[1]), match.groups()[1:]
    assert f"one2one: best F1 {match[4]} at the score {match[1]}\n" in capsys.readouterr().out
    for kept in (detections[:, 5] > threshold, detections[:, 5] >= threshold):
        curve = class_curve(evaluated(content, detections[kept])[2])
        assert shown == (f"{curve.precision[-1]:.0%}", f"{curve.recall[-1]:.0%}", f"{curve.f1[-1]:.3f}")
        assert curve.f1[-1] == class_curve(evaluated(content, detections)[2]).f1.max()
    for text in (
        "<b>{}</b>score threshold",
        "At the score {} and",
        "other detections with scores from {} on",
        "detected as, scores from {} on",
    ):
        assert text.format(match[1]) in page
    assert set(re.findall(r"(?:cat|dog) (0\.\d+): ", page)) == {"0.0122", "0.0124"}  # the wrong detections
    plot = page.split("<figcaption>All classes, by score threshold</figcaption>")[1]
    assert {"0.0121", "0.0124"} <= set(re.findall(r">([\d.]+)</text>", plot.split(">score</text>")[0]))


def test_eighty_classes(tmp_path: Path) -> None:
    categories = {n: f"a <class> with a long name {n}" for n in range(1, 81)}
    objects = [(1 + n % 2, n, [n % 9 * 10.0, n // 9 * 10.0, 9.0, 9.0]) for n in categories]
    found = rows(*[(image, category % 80 + 1 if category % 3 else category, box, 0.6) for image, category, box in objects])
    page = report(write_run(tmp_path / "run", truth(*objects, categories=categories), found, None))
    assert "<summary>80 classes</summary>" in page
    assert "<class>" not in page


def test_files_that_do_not_belong_together(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    other = tmp_path / "other.json"
    shutil.copy(
        write_run(tmp_path / "r", truth((50, 1, [0, 0, 5, 5]), images=(50,)), rows(), None) / "ground_truth.json", other
    )
    for arguments, message in (
        ([tmp_path / "nowhere"], "no such folder"),
        ([tmp_path / "empty"], r"neither predictions\.json nor metrics\.csv"),
        ([run, "--ground_truth", other], r"images are not in .*, e\.g\. ids \[1, 2, 3\]"),
        ([run, "--ground_truth", tmp_path / "lost.json"], r"--ground_truth .*lost\.json: no such file"),
        ([run, "--images", tmp_path / "nowhere"], "no such folder"),
        ([run, "--score_threshold", "2"], r"in 0\.\.1"),
        ([run, "--out", tmp_path / "nowhere" / "page.html"], "no such folder"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["report", *map(str, arguments)])
    (run / "predictions.json").write_text('[{"image_id": 1}]')
    with pytest.raises(SystemExit, match=r"expected a dict with image_id, category_id, bbox, score"):
        main(["report", str(run)])


def test_resumed_runs_are_joined(run: Path) -> None:
    for number, epoch, value in ((2, 1, 0.4), (10, 2, 0.5)):
        folder = run / f"resumed-{number}"
        folder.mkdir()
        (folder / "metrics.csv").write_text(f"epoch,step,val/AP\n{epoch},9,{value}\n{epoch},9,\n")
    epochs = read_run(run).epochs
    assert [values["val/AP"] for values in epochs.values()] == [0.1, 0.4, 0.5]
    assert epochs[1]["val/AP50"] == 0.5  # of the first file
    assert np.isfinite([value for values in epochs.values() for value in values.values()]).all()
