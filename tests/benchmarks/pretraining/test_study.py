"""The study of pre-training, without training: its runs, resuming, statistics, tables, figure and what it publishes."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pretraining import publish, study
from benchmarks.pretraining.figure import save_figure
from benchmarks.pretraining.settings import FULL, pretraining_settings
from benchmarks.pretraining.study import CHAINS, Run, chain
from benchmarks.pretraining.tables import claim, gain, interaction, publication

# top-1 by network and start; the interaction is 0.03, 0.05 and 0.04 for the seeds 1, 2 and 3
CELLS = {
    ("plain", "little"): {1: 0.30, 2: 0.30, 3: 0.30, 4: 0.9},
    ("plain", "much"): {1: 0.31, 2: 0.30, 3: 0.32},
    ("experts", "little"): {1: 0.30, 2: 0.31, 3: 0.29},
    ("experts", "much"): {1: 0.34, 2: 0.36, 3: 0.35},
}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Make the folders that the study looks for."""
    for name in ("little", "much", "openclipart"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "manifest.json").touch()
    for name in ("bccd", "cards"):
        (tmp_path / "sets" / name).mkdir(parents=True)
    return tmp_path


class FakeTraining:
    """Stands for pretrain.py and train.py: notes its calls, and leaves numbers that say where a run has started."""

    def __init__(self, failing: str = "no run") -> None:
        self.calls: list[tuple[str, str]] = []
        self.arguments: dict[str, list[str]] = {}
        self.failing = failing

    def __call__(self, arguments: list[str], run: Path, epochs: int, log: Path, program: str) -> None:
        self.calls.append((program, run.name))
        self.arguments[run.name] = arguments
        if self.failing in run.name:
            raise RuntimeError(f"{run.name} failed")
        run.mkdir(parents=True)
        (run / "classification.json").write_text(json.dumps({"top1": 0.25, "top5": 0.5}))

    def read(self, folder: Path) -> dict[str, float]:
        """Return the AP of a detector."""
        return {"one2one AP": 0.4 if "much" in folder.name else 0.3, "one2one AP50": 0.5}


def run_study(monkeypatch: pytest.MonkeyPatch, folders: Path, training: FakeTraining, *arguments: str) -> int:
    """Run the command; return its exit status."""
    monkeypatch.setattr(study, "train", training)
    monkeypatch.setattr(study, "written_ap", training.read)
    monkeypatch.setattr(study, "RESULTS", folders / "results")
    monkeypatch.setattr(study, "FIGURES", folders / "results")
    costs = {name: {"parameters": 1, "multiply_adds": n * 10**6} for n, name in enumerate(("plain", "experts"), 15)}
    monkeypatch.setattr(study, "network_costs", lambda size: costs)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # set by measure_all
    paths = ["--data", str(folders / "data"), "--datasets", str(folders / "sets"), "--runs", str(folders / "runs")]
    monkeypatch.setattr(sys, "argv", ["study", *paths, *arguments])
    (folders / "results").mkdir(exist_ok=True)
    return study.main()


@pytest.fixture
def _no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "save_figure", lambda content, path: None)


@pytest.mark.usefixtures("_no_figure")
def test_runs_of_a_seed_come_first_and_finished_ones_are_not_repeated(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    broken = FakeTraining(failing="finetune_experts_little_s1")
    assert run_study(monkeypatch, folders, broken, "--seeds", "1") == 1
    assert "finetune_experts_little_s1 failed" in capsys.readouterr().out
    assert len(broken.calls) == 22 - 2  # the two detectors that would come after it
    whole = FakeTraining()
    assert run_study(monkeypatch, folders, whole, "--seeds", "1", "2") == 0
    names = [name for _, name in whole.calls]
    missing = [f"pretraining_study_{stage}_experts_little_s1" for stage in ("finetune", "bccd", "cards")]
    assert names[:3] == missing
    assert [name[-2:] for name in names[3:]] == ["s2"] * 22
    assert [program for program, _ in whole.calls[:3]] == ["pretrain.py", "train.py", "train.py"]
    assert run_study(monkeypatch, folders, again := FakeTraining(), "--seeds", "1", "2") == 0
    assert again.calls == []
    content = json.loads((folders / "results" / "pretraining_study.json").read_text())
    assert len(content["runs"]) == 44
    assert content["stages"]["cards"]["networks"]["plain"]["gains"]["much - scratch"]["mean"] == pytest.approx(0.1)
    assert not any("weights" in name or name == "data.root" for name in content["runs"][-1]["settings"])


@pytest.mark.usefixtures("_no_figure")
def test_a_chain_starts_from_its_own_pre_training(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_study(monkeypatch, folders, training := FakeTraining(), "--seeds", "3")
    pretrained = f"{folders}/runs/pretraining_study_pretrain_experts_much_s3/last.ckpt"
    fine, detector = (training.arguments[f"pretraining_study_{stage}_experts_much_s3"] for stage in ("finetune", "cards"))
    assert f"--model.weights={pretrained}" in fine
    assert f"--data.root={folders}/data/openclipart" in fine
    assert f"--model.backbone_weights={pretrained}" in detector
    assert f"--data.root={folders}/sets/cards" in detector
    assert "--model.backbone_lr_ratio=1.0" in detector  # as from scratch, and not the default of pre-trained backbones
    scratch = training.arguments["pretraining_study_cards_experts_scratch_s3"]
    assert set(detector) - set(scratch) == {f"--model.backbone_weights={pretrained}"}
    plain = training.arguments["pretraining_study_cards_plain_scratch_s3"]
    assert [one.split("=")[0] for one in set(scratch) - set(plain)] == ["--model.overrides"]
    little = training.arguments["pretraining_study_pretrain_experts_little_s3"]
    assert {"--trainer.max_epochs=64", "--model.lr=0.016", "--model.warmup_epochs=3.2"} <= set(little)


@pytest.mark.usefixtures("_no_figure")
def test_other_settings_and_missing_data_are_refused(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run = folders / "runs" / "pretraining_study_pretrain_plain_little_s1"
    run.mkdir(parents=True)
    settings = pretraining_settings(FULL, folders, "plain", "little", 1) | {"model.lr": 9}
    content = {**Run("pretrain", "plain", "little", 1)._asdict(), "settings": settings, "minutes": 1, "numbers": {"top1": 0}}
    (run / "result.json").write_text(json.dumps(content))
    for remove, message in ((False, r"trained with other settings (model.lr)"), (True, "much: is missing")):
        if remove:
            (folders / "data" / "much" / "manifest.json").unlink()
        with pytest.raises(SystemExit):
            run_study(monkeypatch, folders, FakeTraining(), "--seeds", "1")
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run_study(monkeypatch, folders, FakeTraining(), "--labeled", "imagenet")


@pytest.mark.usefixtures("_no_figure")
def test_no_run_starts_when_the_time_is_over(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run = folders / "runs" / "pretraining_study_pretrain_plain_little_s1"
    run.mkdir(parents=True)
    settings = pretraining_settings(FULL, folders, "plain", "little", 1)
    content = {**Run("pretrain", "plain", "little", 1)._asdict(), "settings": settings, "numbers": {"top1": 0}}
    (run / "result.json").write_text(json.dumps(content | {"minutes": 61}))  # with two jobs: 0.51 hours
    assert run_study(monkeypatch, folders, late := FakeTraining(), "--seeds", "1", "--hours", "0.5", "--jobs", "2") == 1
    assert late.calls == []
    assert "finetune_plain_little_s1: not started, the time is over" in capsys.readouterr().out
    assert run_study(monkeypatch, folders, early := FakeTraining(), "--seeds", "1", "--hours", "0.6", "--jobs", "2") == 0
    assert len(early.calls) == 21


def test_the_figure_has_a_panel_for_each_number(tmp_path: Path) -> None:
    by_network = {name: {"by seed": {}} for name in ("plain", "experts")}
    for (network, start), values in CELLS.items():
        by_network[network]["by seed"][start] = values
    costs = {"plain": {"multiply_adds": 15_200_000}, "experts": {"multiply_adds": 16_000_000}}
    save_figure({"stages": {"finetune": {"networks": by_network}}, "costs": costs}, tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text()
    for part in ("top-1 after fine-tuning", "15.2 M", "16.0 M", "experts"):
        assert part in text


def test_the_networks_are_those_of_the_protocol() -> None:
    numbers = study.network_costs(32)  # also where the coarsest map has one pixel
    page = (Path(study.__file__).parents[2] / "docs" / "pretraining-study.md").read_text()
    assert numbers["experts"]["multiply_adds"] > numbers["plain"]["multiply_adds"]
    for network in ("plain", "experts"):
        assert f"| `{network}` | {numbers[network]['parameters']:,}" in page


def test_a_chain_has_no_pre_training_from_scratch() -> None:
    assert [run.stage for run in chain("plain", "much", 1)] == ["pretrain", "finetune", "bccd", "cards"]
    assert [run.stage for run in chain("plain", "scratch", 1)] == ["finetune", "bccd", "cards"]
    assert sum(len(chain(*one, 1)) for one in CHAINS.values()) == 22


def test_the_interaction_is_paired_by_seed() -> None:
    both = interaction(CELLS)
    assert both.seeds == [1, 2, 3]
    assert both.mean == pytest.approx(0.04)
    assert both.half_width == pytest.approx(4.303 * 0.01 / 3**0.5, rel=1e-3)
    assert claim(both) == "it shows: experts gain more from much data"
    one = gain(CELLS, "plain", "much", "little")
    assert (one.seeds, one.mean) == ([1, 2, 3], pytest.approx(0.01))
    assert gain(CELLS, "plain", "much", "scratch") is None


@pytest.mark.parametrize(
    ("shift", "seeds", "text"),
    [
        (-0.04, 3, "it does not show: the interval has 0"),
        (-0.08, 3, "the contrary shows: experts gain less from much data"),
        (0.0, 2, "open: 2 of at least 3 seeds"),
        (0.0, 1, "open: 1 of at least 3 seeds"),
        (0.0, 0, "open: 0 of at least 3 seeds"),
    ],
)
def test_a_claim_needs_three_seeds_and_an_interval_without_0(shift: float, seeds: int, text: str) -> None:
    cells = {cell: {seed: aps[seed] for seed in range(1, seeds + 1)} for cell, aps in CELLS.items()}
    cells["experts", "much"] = {seed: ap + shift for seed, ap in cells["experts", "much"].items()}
    assert claim(interaction(cells)) == text


def detectors(**gains: dict[str, tuple[float, ...]]) -> dict[str, Any]:
    """Return the APs of detectors by set, whose starts from much data gain ``gains[network][set]``, seed by seed."""
    table: dict[str, Any] = {}
    for network, by_set in gains.items():
        for name, values in by_set.items():
            cells = table.setdefault(name, {})
            cells[network, "scratch"] = dict.fromkeys(range(1, len(values) + 1), 0.3)
            cells[network, "much"] = {seed: 0.3 + value for seed, value in enumerate(values, 1)}
    return table


CLEAR, LARGER, UNSURE = (0.02, 0.021, 0.022), (0.05, 0.051, 0.052), (0.02, 0.03, 0.0)


def test_weights_are_published_only_if_both_sets_gain() -> None:
    one_set = {"bccd": LARGER, "cards": UNSURE}
    assert publication(detectors(plain=one_set, experts=one_set))["network"] is None
    decision = publication(detectors(plain={"bccd": CLEAR, "cards": CLEAR}, experts=one_set))
    assert decision["network"] == "plain"
    assert decision["reasons"]["experts"]["cards"].startswith("not better: +0.0167")
    both = {"bccd": CLEAR, "cards": LARGER}
    assert publication(detectors(plain={"bccd": CLEAR, "cards": CLEAR}, experts=both))["network"] == "experts"
    assert publication(detectors(plain={"bccd": CLEAR[:2], "cards": CLEAR}))["network"] is None  # two seeds
    # 0.02 +- 0.0194 at 95 %, but +- 0.0280 at 97.5 %
    close = (0.0122, 0.02, 0.0278)
    assert publication(detectors(plain={"bccd": close, "cards": LARGER}))["network"] is None


def publish_study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gains: tuple[float, ...], size: int) -> int:
    """Publish from results in which only the plain network has gains; the weights have ``size`` bytes."""
    for network, by_seed in (("plain", gains), ("experts", (0.0,) * len(gains))):
        for stage, start, seed in ((s, t, n) for s in ("bccd", "cards") for t in ("scratch", "much") for n in range(3)):
            run = Run(stage, network, start, seed + 1)
            numbers = {"one2one AP": 0.3 + (by_seed[seed] if start == "much" else 0)}
            (tmp_path / run.name).mkdir(exist_ok=True)
            result = {**run._asdict(), "settings": {}, "minutes": 1, "numbers": numbers}
            (tmp_path / run.name / "result.json").write_text(json.dumps(result))
    run = Run("pretrain", "plain", "much", 1)
    (tmp_path / run.name).mkdir(exist_ok=True)
    result = {**run._asdict(), "settings": {"model.lr": 0.016, "data.root": "x"}, "minutes": 1, "numbers": {"top1": 0.1}}
    (tmp_path / run.name / "result.json").write_text(json.dumps(result))

    def fake_weights(command: list[str], **_: Any) -> None:
        assert command[-4:-2] == [f"{tmp_path}/{run.name}/last.ckpt", f"{tmp_path}/weights/yolo26_n_fractals.safetensors"]
        assert command[-2:] == ["--license", "Apache-2.0"]
        Path(command[-3]).write_bytes(bytes(size))

    monkeypatch.setattr(publish.subprocess, "run", fake_weights)
    monkeypatch.setattr(sys, "argv", ["publish", "--runs", str(tmp_path), "--out", str(tmp_path / "weights")])
    return publish.main()


def test_the_weights_are_written_with_their_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert publish_study(monkeypatch, tmp_path, CLEAR, 15_000_000) == 0
    page = (tmp_path / "weights" / "README.md").read_text()
    for text in (
        "License: Apache-2.0",
        "fractals drawn by",
        "--model.lr 0.016",
        "--data.root datasets/pretraining/much",
        "bccd +0.0210 +-",
        "131,072 images seen",
    ):
        assert text in page
    assert "--data.root x" not in page


def test_nothing_is_written_if_the_rule_is_not_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert publish_study(monkeypatch, tmp_path, UNSURE, 9) == 1
    assert not (tmp_path / "weights").exists()
    with pytest.raises(ValueError, match="has 15000001 bytes, at most 15000000 are published"):
        publish_study(monkeypatch, tmp_path, CLEAR, 15_000_001)
    assert list((tmp_path / "weights").iterdir()) == []
