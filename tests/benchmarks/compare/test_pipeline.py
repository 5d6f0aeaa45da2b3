"""A whole study on the tiny set, with a trainer that makes results up."""

import argparse
import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from benchmarks.compare import __main__ as compare_command
from benchmarks.compare import networks, pipeline
from benchmarks.compare.__main__ import main, parse_options, study_of
from benchmarks.compare.costs import count
from benchmarks.compare.networks import BuiltArm, arguments_of, build_arm, given_settings, settings_differ
from benchmarks.compare.pipeline import Plan, compare, costs_of, show_results
from benchmarks.compare.study import Part, Study, make_study
from data import CocoDataModule
from detector import build_detector
from detector.evaluation.coco_files import load_ground_truth
from detector.evaluation.constant_box import evaluate_constant_box, mean_boxes_of
from tests.benchmarks.compare.made_up import MadeUpTrainer
from tests.resuming import TINY

FILES = ("report.html", "tables.md", "tables.tex", "study.json", "figures/differences_val_one2one_AP.svg")


@pytest.fixture
def content(tiny_arguments: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The content of a study file on the tiny set, in the working directory."""
    trainer = {"max_epochs": 2, "accelerator": "cpu"}
    config = {"data": tiny_arguments, "trainer": trainer, "model": {"variant": "yolo26_n", "overrides": TINY}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    arms = {"plain": None, "mine": {"settings": {"model.lr": 0.02}}}
    return {"arms": arms, "configs": "tiny.yaml", "seeds": [0, 1], "out": tmp_path / "out"}


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Restore the handlers of signals that ``main`` replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build only the data of an arm, and no network."""

    def build(name: str, arguments: list[str]) -> BuiltArm:
        words = [word.removeprefix("--").split("=", 1) for word in arguments]
        (config,) = [yaml.safe_load(Path(value).read_text()) for option, value in words if option == "config"]
        own = {option.removeprefix("data."): yaml.safe_load(value) for option, value in words if option.startswith("data.")}
        module = SimpleNamespace(hparams=SimpleNamespace(block_files=None))
        return BuiltArm(name, module, CocoDataModule(**config["data"] | own), {}, 2, torch.device("cpu"), "32-true")

    monkeypatch.setattr(pipeline, "build_arm", build)


@pytest.fixture
def study(content: dict[str, Any], tmp_path: Path) -> Study:
    return make_study(content, "tiny", tmp_path)


@pytest.mark.usefixtures("quick")
def test_a_study_writes_all_files_and_a_second_start_gives_the_same_without_training(study: Study) -> None:
    trainer = MadeUpTrainer()
    results = compare(study, costs=False, trainer=trainer)
    assert sorted(trainer.trained) == ["mine_s0", "mine_s1", "plain_s0", "plain_s1"]
    written = {name: (study.out / name).read_text() for name in FILES}
    assert "mine" in written["report.html"]
    files = [load_ground_truth(study.out.parent / f"tiny/annotations/{split}.json") for split in ("train", "val")]
    constant_box = evaluate_constant_box(files[1], mean_boxes_of(files[0]))
    assert constant_box is not None
    assert results.floors[""]["val one2one AP"] == constant_box.metrics["AP"] > 0
    again = MadeUpTrainer()
    compare(study, costs=False, trainer=again)
    assert not again.trained
    assert {name: (study.out / name).read_text() for name in FILES} == written
    shown = show_results(study, study.out / "study.json")
    assert shown.difference("mine", "", study.deciding) == results.difference("mine", "", study.deciding)
    with pytest.raises(ValueError, match=r"plain_s0\.json: has no results; give the study\.json"):
        show_results(study, study.out / "results/plain_s0.json")


@pytest.mark.usefixtures("quick")
def test_settings_that_change_after_runs_are_refused_before_training(study: Study, content: dict[str, Any]) -> None:
    compare(study, costs=False, trainer=MadeUpTrainer())
    changed = make_study(content | {"settings": {"data.batch_size": 2}}, "tiny", study.folder)
    trainer = MadeUpTrainer()
    with pytest.raises(ValueError, match=r"data\.batch_size: 4 -> 2"):
        compare(changed, costs=False, trainer=trainer)
    annotations = Path(given_settings(study.part("plain", ""))["data.root"]) / "annotations/val.json"
    edited = json.loads(annotations.read_text())
    edited["annotations"][0]["bbox"][2] -= 1
    annotations.write_text(json.dumps(edited))
    with pytest.raises(ValueError, match="content of val"):
        compare(study, costs=False, trainer=trainer)
    assert not trainer.trained


@pytest.mark.usefixtures("quick")
def test_results_belong_to_the_files_of_own_blocks_and_costs_to_the_settings_of_all_arms(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = pipeline.build_arm("plain", arguments_of(study.part("plain", "")))
    built.module.hparams.block_files = {"my_blocks": {"path": "/a/my_blocks.py", "sha256": "0123456789abcdef" * 4}}
    assert pipeline.fingerprints(built, []).keys() == {"content of train", "content of my_blocks"}
    assert pipeline.fingerprints(built, [])["content of my_blocks"] == "0123456789abcdef"
    measured = []
    monkeypatch.setattr(
        pipeline, "measure_costs", lambda arms, reference: measured.append(list(arms)) or {"n": len(measured)}
    )
    study.out.mkdir()
    costs = [costs_of(Plan(study, [], {"plain": {"model.lr": lr}}, {}, [])) for lr in (0.1, 0.1, 0.2)]
    assert costs == [{"n": 1}, {"n": 1}, {"n": 2}]
    assert measured == [["plain", "mine"]] * 2


@pytest.mark.usefixtures("quick")
def test_folds_make_a_run_of_each_arm_and_fold(
    content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "floor", lambda study, built: {study.deciding: len(built.data.annotations["val"]) / 100})
    study = make_study(content | {"folds": 2, "seeds": [3]}, "tiny", tmp_path)
    trainer = MadeUpTrainer()
    results = compare(study, costs=False, trainer=trainer)
    assert sorted(trainer.trained) == ["mine_fold0_s3", "mine_fold1_s3", "plain_fold0_s3", "plain_fold1_s3"]
    assert len(results.differences("mine", "", study.deciding)) == 2
    assert results.floors[""][study.deciding] == pytest.approx(0.13 / 2)  # the mean over folds, which hold out all 13 images


@pytest.mark.usefixtures("quick")
def test_arms_that_are_evaluated_on_different_images_are_refused(content: dict[str, Any], tmp_path: Path) -> None:
    trainer, settings = (
        MadeUpTrainer(),
        {"data.val_annotations": "annotations/train.json", "data.val_images": "images/train"},
    )
    content["arms"]["mine"] = {"settings": settings}
    with pytest.raises(ValueError, match="arm 'mine' has other val images or objects than 'plain'"):
        compare(make_study(content, "tiny", tmp_path), costs=False, trainer=trainer)
    assert not trainer.trained


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.larning_rate": 1}, "arm 'mine': unknown option --model.larning_rate"),
        ({"model.variant": "yolo27"}, "arm 'mine': unknown variant 'yolo27'"),
        ({"trainer.max_epochs": -1}, "arm 'mine': .*give trainer.max_epochs"),
        ({"trainer.limit_val_batches": 1}, "arm 'mine': leave out trainer.limit_val_batches 1"),
    ],
)
def test_mistakes_of_an_arm_are_those_of_train_py(settings: dict[str, Any], message: str, study: Study) -> None:
    part = study.part("mine", "") + Part((), {name: str(value) for name, value in settings.items()})
    with pytest.raises(ValueError, match=message):
        build_arm("mine", arguments_of(part))


def test_an_arm_that_goes_on_from_a_checkpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose configuration is the config-2.yaml of a run."""
    monkeypatch.setattr(networks, "TrainCLI", lambda *_: SimpleNamespace(config={"ckpt_path": "a/last.ckpt"}))
    with pytest.raises(ValueError, match=r"arm 'mine': leave out ckpt_path a/last\.ckpt"):
        build_arm("mine", [])


def test_an_arm_is_built_as_train_py_does(study: Study) -> None:
    arm = build_arm("mine", arguments_of(study.part("mine", "")))
    assert (arm.module.hparams.lr, arm.overrides, arm.epochs, arm.size) == (0.02, TINY, 2, (64, 64))
    parameters, multiply_adds = count(arm)
    assert parameters == sum(p.numel() for p in build_detector("yolo26_n", 3, **TINY).parameters())
    assert multiply_adds > parameters


@pytest.mark.usefixtures("quick")
def test_a_missing_split_and_a_missing_hook_are_errors_before_any_training(study: Study) -> None:
    with pytest.raises(ValueError, match="there is no split 'test'"):
        compare(replace(study, splits=("val", "test")), costs=False, trainer=MadeUpTrainer())
    with pytest.raises(ValueError, match="lost:function cannot be imported"):
        compare(replace(study, after="lost:function"), costs=False, trainer=MadeUpTrainer())


@pytest.mark.usefixtures("quick")
def test_an_arm_that_trains_on_other_images_is_named_in_the_tables(content: dict[str, Any], tmp_path: Path) -> None:
    settings = {"data.train_annotations": "annotations/val.json", "data.train_images": "images/val"}
    content["arms"]["mine"] = {"settings": settings}
    compare(make_study(content, "tiny", tmp_path), costs=False, trainer=MadeUpTrainer())
    assert "mine trains on other images or objects than plain." in (tmp_path / "out/report.html").read_text()


def test_the_options_describe_a_study(content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--arm", "plain=tiny.yaml", "--arm", "mine=tiny.yaml,tiny.yaml", "--seeds", "3", "4", "--set", "model.lr=0.5"]
    study = study_of(parse_options([*words, "--out", "there", "--config", "tiny.yaml"]))
    config = (tmp_path / "tiny.yaml").resolve()
    assert arguments_of(study.part("mine", "")) == [*[f"--config={config}"] * 3, "--model.lr=0.5"]
    assert (study.reference, study.seeds, study.out) == ("plain", (3, 4), Path("there"))


@pytest.mark.parametrize("words", [["--set", "a=1", "b=2"], ["--set", "a=1", "--set", "b=2"]])
def test_options_take_several_values_at_once_or_one_by_one(
    words: list[str], content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arms = ["--arm", "plain=tiny.yaml", "mine=tiny.yaml"]
    study = study_of(parse_options([*arms, "--config", "tiny.yaml", "tiny.yaml", *words]))
    assert list(study.arms) == ["plain", "mine"]
    assert (len(study.common.configs), study.common.settings) == (2, {"a": "1", "b": "2"})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a study file, before the options, or two or more --arm"),
        (["--set", "a=1", "study.yaml"], "--set study.yaml: expected --set NAME=VALUE"),
        (["--arm", "plain=tiny.yaml"], "two or more"),
        (["--arm", "plain"], "--arm plain: expected --arm NAME=VALUE"),
        (["--arm", "plain=tiny.yaml", "--arm", "plain=tiny.yaml"], "the name 'plain' is given twice"),
        (["--arm", "plain=tiny.yaml", "--arm", "mine=lost.yaml"], "there is no configuration file lost.yaml"),
        (["--arm", "plain=tiny.yaml", "--arm", "mine=tiny.yaml", "--seeds", "0"], "1 seed and no folds"),
        (["--arm", "plain=tiny.yaml", "--arm", "mine=tiny.yaml", "--reference", "x"], "unknown arm as reference"),
        (["study.yaml", "--arm", "plain=tiny.yaml"], "give a study file, or --arm"),
        (["lost.yaml"], "no such study file"),
        (["--arm", "plain=tiny.yaml", "--arm", "mine=tiny.yaml", "--jobs", "0"], "--jobs is 0"),
    ],
)
def test_mistakes_of_the_command_line_are_one_message(
    words: list[str], message: str, content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main(words)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_a_study_as_an_exception_does(
    signum: int,
    status: int,
    content: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """So that its trainings are stopped, too. The handler is called directly: a signal would end the tests without it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare_command, "compare", lambda *_: signal.getsignal(signum)(signum, None))
    with pytest.raises(SystemExit, match=str(status)):
        main(["--arm", "plain=tiny.yaml", "mine=tiny.yaml"])
    assert "the same command continues" in capsys.readouterr().err


def test_given_settings_are_those_of_files_and_options_alike(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: {lr: 0.02, overrides: {width: 0.5}}\n")
    in_file = Part((tmp_path / "a.yaml",))
    in_options = Part((), {"model.lr": "0.02", "model.overrides": '{"width": 0.5}'})
    assert given_settings(in_file) == given_settings(in_options) == {"model.lr": 0.02, "model.overrides.width": 0.5}
    replaced = Part((tmp_path / "a.yaml",), {"model.overrides": '{"depth": 1}'})
    assert settings_differ(given_settings(in_file), given_settings(replaced)) == [
        "model.overrides.depth: not given -> 1",
        "model.overrides.width: 0.5 -> not given",
    ]


def test_the_help_names_what_the_folder_gets(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        parse_options(["--help"])
    assert "tables.tex" in capsys.readouterr().out
    assert isinstance(parse_options([]), argparse.Namespace)
