"""The study of recipes, without training: its stages, resuming, decisions, and the number for many classes."""

import inspect
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.recipe import averages, study, tables
from benchmarks.recipe.averages import Averages
from benchmarks.recipe.choice import Cells, cells_of, finalists, ranking, spread, winner
from benchmarks.recipe.numbers import any_class_ap50
from benchmarks.recipe.plan import STAGES, expected_minutes, stage_runs
from benchmarks.recipe.settings import ARMS, FULL, SETS, Run, arm_settings, changes_of, run_settings
from detector.callbacks import non_finite_guard

TWO = replace(FULL, sets=("cards", "bccd"))  # without the third set
# NMS-free AP on cards and blood cells; the spread is 0.01
CARDS = {"musgd_0.01": 0.50, "adamw_0.001": 0.52, "base": 0.30, "reference": 0.35, "adamw_0.002": 0.55}
BCCD = {"musgd_0.01": 0.40, "adamw_0.001": 0.41, "base": 0.20, "reference": 0.25, "adamw_0.002": 0.30}


def cells(cards: dict[str, float], bccd: dict[str, float], seeds: int = 3, arms: tuple[str, ...] = ()) -> Cells:
    """Return the numbers from scratch: of ``arms`` with ``seeds`` seeds, 0.01 apart; of the others with one."""
    return {
        ("scratch", data, arm, 30): {n: number + 0.01 * (n - 1) for n in range(1, 1 + (seeds if arm in arms else 1))}
        for data, numbers in (("cards", cards), ("bccd", bccd))
        for arm, number in numbers.items()
    }


def test_the_page_has_the_minutes_of_each_stage() -> None:
    page = (Path(study.__file__).parents[2] / "docs" / "recipe-study.md").read_text()
    expected = expected_minutes(FULL)
    assert list(expected) == list(STAGES)
    for stage, (count, minutes) in expected.items():
        assert f"| `{stage}` | {count} | {minutes:.0f} |" in page
    assert f"| all | {sum(n for n, _ in expected.values())} | {sum(m for _, m in expected.values()):.0f} |" in page


def test_arms_are_compared_at_equal_epochs_and_the_most_valuable_first() -> None:
    runs = stage_runs("screen", {}, FULL)
    assert [(run.start, run.arm) for run in runs[:3]] == [("scratch", "musgd_0.01")] * 3
    assert [run.arm for run in runs if run.data == "bccd"][:5] == (
        ["musgd_0.01", "finetune", "finetune_backbone", "adamw_0.001", "adamw_0.0005"]
    )
    assert {run.epochs for run in runs if run.start == "scratch"} == {30}
    assert {run.data for run in runs if run.start == "backbone"} == {"cards", "bccd"}
    every = {(run.start, run.arm) for stage in ("screen", "rates") for run in stage_runs(stage, {}, FULL)}
    assert every == {(start, arm) for start, arms in ARMS.items() for arm, values in arms.items() if values is not None}


def test_the_best_arm_has_the_smallest_of_its_largest_losses() -> None:
    table = cells(CARDS, BCCD)  # adamw_0.002 is best on cards, and loses a quarter on blood cells
    assert ranking("scratch", table, TWO)[:3] == ["adamw_0.001", "musgd_0.01", "adamw_0.002"]
    assert finalists("scratch", table, TWO) == [
        "adamw_0.001",
        "musgd_0.01",
    ]  # the best, also with AdamW; by hand, also without
    del table["scratch", "bccd", "adamw_0.001", 30]
    assert ranking("scratch", table, TWO)[0] == "musgd_0.01"  # an arm that is not on all sets has no place
    seeds = {(run.arm, run.data, run.seed) for run in stage_runs("seeds", cells(CARDS, BCCD), TWO) if run.start == "scratch"}
    assert seeds == {(a, d, s) for a in ("adamw_0.001", "musgd_0.01") for d in ("cards", "bccd") for s in (1, 2, 3)}


def test_an_arm_set_by_hand_stays_if_it_is_within_the_spread() -> None:
    final = ("adamw_0.001", "musgd_0.01")
    table = cells(CARDS, BCCD, arms=final)
    assert spread("scratch", "cards", table, TWO) == pytest.approx(0.01)
    assert winner("scratch", table, TWO) == "adamw_0.001"  # 0.02 better on cards: two spreads
    close = cells(CARDS | {"musgd_0.01": 0.511}, BCCD, arms=final)
    assert winner("scratch", close, TWO) == "musgd_0.01"  # 0.009 and 0.01 below
    assert tables.goal("scratch", close, TWO)["cards"] == "met: -0.0090, spread 0.0100"
    assert winner("scratch", cells(CARDS, BCCD), TWO) is None  # one seed decides nothing
    assert tables.goal("scratch", cells(CARDS, BCCD), TWO) == {"cards": "open", "bccd": "open"}


def test_the_goal_is_missed_if_no_arm_is_good_on_every_set() -> None:
    final = ("adamw_0.001", "musgd_0.01")
    table = cells(CARDS, BCCD | {"musgd_0.01": 0.45}, arms=final)
    assert winner("scratch", table, TWO) == "musgd_0.01"  # 2 spreads below on cards, AdamW 4 on blood cells
    assert tables.goal("scratch", table, TWO) == {
        "cards": "MISSED: -0.0200, spread 0.0100",
        "bccd": "met: +0.0000, spread 0.0100",
    }


def test_an_arm_that_failed_with_a_seed_hides_no_differences() -> None:
    table = cells(CARDS | {"musgd_0.01": 0.51}, BCCD, arms=("adamw_0.001", "musgd_0.01"))
    table["scratch", "cards", "musgd_0.01", 30][2] = 0.0  # diverged: the mean is 0.17 lower, the deviation of its seeds 0.3
    assert spread("scratch", "cards", table, TWO) == pytest.approx(0.01)
    assert winner("scratch", table, TWO) == "adamw_0.001"


def test_nothing_is_decided_while_a_rival_is_missing() -> None:
    """Without the arms set by hand, the goal would be met by any other."""
    table = cells(CARDS, BCCD, arms=("adamw_0.001", "adamw_0.002"))
    del table["scratch", "bccd", "musgd_0.01", 30]
    del table["scratch", "bccd", "base", 30]
    assert finalists("scratch", table, TWO) == ["adamw_0.001"]  # the rounds after it go on
    assert winner("scratch", table, TWO) is None
    assert tables.goal("scratch", table, TWO)["cards"] == "open"


def test_an_arm_with_all_seeds_is_compared_when_another_one_has_become_a_finalist() -> None:
    """A later arm may be the best with one seed, and worse with three."""
    table = cells(CARDS | {"adamw_0.002": 0.49}, BCCD, arms=("adamw_0.001", "musgd_0.01"))
    assert winner("scratch", table, TWO) == "adamw_0.001"
    for data, first in (("cards", 0.53), ("bccd", 0.42)):
        table["scratch", data, "adamw_0.0005", 30] = {1: first}
    assert (finalists("scratch", table, TWO), winner("scratch", table, TWO)) == (["adamw_0.0005", "musgd_0.01"], None)
    for data, seeds in (("cards", {1: 0.53, 2: 0.50, 3: 0.50}), ("bccd", {1: 0.42, 2: 0.38, 3: 0.38})):
        table["scratch", data, "adamw_0.0005", 30] = seeds
    assert winner("scratch", table, TWO) == "adamw_0.001"


def test_changes_of_an_arm_change_it() -> None:
    assert changes_of("detector", "finetune") == ["warmup3", "mosaic1"]
    assert changes_of("detector", "reference") == ["warmup1", "mosaic0.5"]
    assert arm_settings("detector", "finetune+mosaic1")["data.augment.close_mosaic"] == 5


def test_changes_need_more_than_the_spread_on_both_sets() -> None:
    table = cells(CARDS, BCCD, arms=("adamw_0.001", "musgd_0.01"))
    for data, gains in {"cards": (0.02, 0.02), "bccd": (0.02, 0.005)}.items():
        for change, gain in zip(("warmup1", "mosaic0.5"), gains):
            first = table["scratch", data, "adamw_0.001", 30][1]
            table["scratch", data, f"adamw_0.001+{change}", 30] = {1: first + gain}
    texts = tables.changes("scratch", table, TWO)
    assert list(texts) == ["warmup1", "mosaic0.5"]  # three epochs and mosaic 1 are what the winner has
    assert texts["warmup1"].startswith("adopted: cards +0.0200, bccd +0.0200")
    assert texts["mosaic0.5"].startswith("not adopted")
    del table["scratch", "cards", "adamw_0.001+warmup1", 30]
    assert tables.changes("scratch", table, TWO)["warmup1"].startswith("open")


def test_the_fewest_epochs_within_the_spread_are_enough() -> None:
    table = cells(CARDS, BCCD, arms=("adamw_0.001", "musgd_0.01"))
    assert tables.enough_epochs("scratch", table, TWO) == ({7050: 0.52}, "open")
    table["scratch", "cards", "adamw_0.001", 60], table["scratch", "cards", "adamw_0.001", 120] = {1: 0.595}, {1: 0.60}
    seen, epochs = tables.enough_epochs("scratch", table, TWO)
    assert (seen, epochs) == ({7050: 0.52, 14100: 0.595, 28200: 0.60}, "60")
    table["scratch", "cards", "adamw_0.001", 120] = {1: 0.62}  # the most that were tried: more may be better
    assert tables.enough_epochs("scratch", table, TWO)[1] == "at least 120"


def test_the_longest_run_from_scratch_has_one_of_our_configurations_beside_it() -> None:
    """A high rate may be better in short runs only."""
    table = cells(CARDS, BCCD, arms=("adamw_0.001", "musgd_0.01"))
    runs = [(run.arm, run.data, run.epochs) for run in stage_runs("epochs", table, TWO, ["scratch"])]
    assert runs == [("adamw_0.001", "cards", 60), ("adamw_0.001", "cards", 120), ("musgd_0.01", "cards", 120)]
    table["scratch", "cards", "adamw_0.001", 120], table["scratch", "cards", "musgd_0.01", 120] = {1: 0.6}, {1: 0.7}
    assert tables.longest_runs("scratch", table, TWO) == {"adamw_0.001": 0.6, "musgd_0.01": 0.7}
    assert tables.longest_runs("backbone", table, TWO) == {}  # none is longer


def result_of(run: Run, number: float, gains: dict[str, float], **others: Any) -> dict[str, Any]:
    """Return a result.json of a run, and of averages that are better by ``gains``."""
    name = SETS[run.data].number
    by_share = {share: {"AP": number + gain, name: number + gain} for share, gain in gains.items()}
    numbers = {"AP": number, name: number}
    return {**run._asdict(), "numbers": numbers, "averages": {str(run.epochs): by_share}, "curve": [number], **others}


def test_a_longer_average_must_be_better_on_every_set() -> None:
    runs = [Run("seeds", "scratch", data, "base", seed, 30) for data in ("cards", "coco128") for seed in (1, 2)]
    results = [
        result_of(run, 0.4, {"0.02": 0.01, "0.1": 0.05 if run.data == "cards" else -0.01, "0.05": 0.02}) for run in runs
    ]
    gains = tables.averages("scratch", results, "base", FULL)
    assert {share: round(by_set["coco128"], 6) for share, by_set in gains.items()} == {
        "0.02": 0.01,
        "0.1": -0.01,
        "0.05": 0.02,
    }
    assert tables.best_average(gains) == "0.05"
    assert tables.best_average({"0.1": {"cards": 0.1, "bccd": 0.0}}) is None
    assert tables.best_average({}) is None


def test_jumps_are_changes_from_epoch_to_epoch() -> None:
    run = Run("curve", "detector", "cards", "finetune", 1, 3)
    by_epoch = {str(n): {s: {"AP": ap} for s in ("0.02", "0.05", "0.1")} for n, ap in enumerate((0.1, 0.3, 0.4), 1)}
    results = [{**run._asdict(), "averages": by_epoch, "curve": [0.1, 0.5, 0.2]}]
    table = tables.jumps(results)
    assert table["present"] == pytest.approx((0.35, 0.4))
    assert table["0.05"] == pytest.approx((0.15, 0.2))


def test_settings_of_an_arm_and_of_a_start(tmp_path: Path) -> None:
    run = Run("changes", "detector", "cards", "finetune+warmup3", 2, 30)
    settings = run_settings(run, FULL, tmp_path, tmp_path / "w.ckpt")
    assert settings["model.weights"] == f"{tmp_path}/w.ckpt"
    assert (settings["model.warmup_epochs"], settings["seed_everything"], settings["data.image_size"]) == (3.0, 2, 160)
    for epochs, interval in ((30, 15), (20, 10), (1, 1), (7, 7)):  # the last epoch is validated
        assert run_settings(run._replace(epochs=epochs), FULL, tmp_path, None)["trainer.check_val_every_n_epoch"] == interval
    assert run_settings(run._replace(stage="curve"), FULL, tmp_path, None)["trainer.check_val_every_n_epoch"] == 1
    assert arm_settings("backbone", "musgd_0.01")["model.weight_decay"] == 5e-4
    reference = arm_settings("scratch", "reference")
    assert (reference["model.optimizer"], reference["model.nominal_batch"]) == ("adamw", 64)
    assert "model.backbone_weights" in run_settings(
        run._replace(start="backbone", arm="reference"), FULL, tmp_path, tmp_path
    )


class FakeTraining:
    """Stands for train.py: notes its calls, and leaves numbers."""

    def __init__(self, failing: str = "no run", message: str = "failed", error: type[Exception] = RuntimeError) -> None:
        self.calls: list[str] = []
        self.failing, self.message, self.error = failing, message, error

    def __call__(self, arguments: list[str], run: Path, epochs: int, log: Path) -> None:
        self.calls.append(run.name)
        if self.failing in run.name:
            raise self.error(f"{run.name} {self.message}")
        run.mkdir(parents=True)
        by_share = {share: {"AP": 0.5, "AP50 of any class": 0.5} for share in ("0.02", "0.05", "0.1")}
        (run / "averages.json").write_text(json.dumps({str(epochs): by_share}))
        (run / "last.ckpt").touch()


def run_study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, training: FakeTraining, *arguments: str) -> int:
    """Run the command; return its exit status."""
    for name in SETS:
        (tmp_path / "sets" / name).mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(study, "train", training)
    numbers = {"AP": 0.4, "AP50": 0.6, "AP50 of any class": 0.3}
    monkeypatch.setattr(study, "numbers_of_run", lambda folder, data: numbers)
    monkeypatch.setattr(study, "read_run", lambda folder: SimpleNamespace(epochs={}))
    monkeypatch.setattr(study, "series", lambda epochs, name: ([], [0.4]))
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    paths = ["--datasets", str(tmp_path / "sets"), "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["study", *paths, *arguments])
    return study.main()


def test_a_stopped_study_goes_on_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    broken = FakeTraining(failing="scratch_bccd_reference", error=KeyError)
    assert run_study(monkeypatch, tmp_path, broken) == 1
    assert "recipe_scratch_bccd_reference_e30_s1 failed" in capsys.readouterr().out
    assert broken.calls.count("recipe_scratch_bccd_reference_e30_s1") == 2  # it was tried again
    assert broken.calls[:2] == ["recipe_scratch_bccd_musgd_0.01_e40_s100", "recipe_scratch_cards_musgd_0.01_e40_s100"]
    assert any("changes" in name or "+" in name for name in broken.calls)  # the stages after it went on
    kept = {path.parent.name for path in (tmp_path / "runs").glob("*/last.ckpt")}
    assert kept == set(broken.calls[:2])  # the weights that detectors start from
    whole = FakeTraining()
    assert run_study(monkeypatch, tmp_path, whole) == 0
    assert whole.calls == ["recipe_scratch_bccd_reference_e30_s1"]
    assert not any("backbone" in name for name in broken.calls)  # without --weights
    assert run_study(monkeypatch, tmp_path, again := FakeTraining(), "--hours", "1") == 0
    assert again.calls == []
    content = json.loads((tmp_path / "recipe_study.json").read_text())
    assert content["scratch"]["winner"] in ARMS["scratch"]
    assert not any("data.root" in one["settings"] for one in content["runs"])
    file = tmp_path / "runs" / whole.calls[0] / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"minutes": 61}))
    (tmp_path / "runs" / broken.calls[5] / "result.json").unlink()
    assert run_study(monkeypatch, tmp_path, late := FakeTraining(), "--hours", "1") == 1
    assert late.calls == []
    assert "not started, the time is over" in capsys.readouterr().out
    changed = json.loads(file.read_text())
    file.write_text(json.dumps(changed | {"settings": changed["settings"] | {"model.lr": 9}}))
    with pytest.raises(SystemExit):
        run_study(monkeypatch, tmp_path, FakeTraining())
    assert "trained with other settings (model.lr)" in capsys.readouterr().err


def test_a_run_that_diverges_has_learned_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = f"failed: 3 steps in a row {study.DIVERGED}; in the last one"
    run_study(monkeypatch, tmp_path, FakeTraining("scratch_cards_musgd_0.01_e30_s1", message), "--starts", "scratch")
    content = json.loads((tmp_path / "recipe_study.json").read_text())
    assert content["scratch"]["numbers"]["musgd_0.01"]["cards"]["1"] == 0
    assert content["scratch"]["winner"] == "base"  # it is as good as the others, and set by hand
    assert study.DIVERGED in inspect.getsource(non_finite_guard)


def test_missing_data_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        run_study(monkeypatch, tmp_path, FakeTraining(), "--weights", str(tmp_path / "lost.safetensors"))
    assert "lost.safetensors: is missing" in capsys.readouterr().err


def test_ap50_of_any_class_takes_the_best_of_equal_boxes() -> None:
    """Two objects of two classes; both are found under the wrong class, one of them under two classes at the same box."""
    images = [{"id": 5, "width": 100, "height": 100}]
    boxes = ([10, 10, 20, 20], [60, 60, 20, 20])
    objects = [{"id": n, "image_id": 5, "category_id": c, "bbox": box} for n, (c, box) in enumerate(zip((3, 8), boxes), 1)]
    content = {"images": images, "annotations": objects, "categories": [{"id": 3, "name": "a"}, {"id": 8, "name": "b"}]}
    rows = np.array([[5, *boxes[0], 0.3, 8], [5, *boxes[0], 0.9, 8], [5, *boxes[1], 0.8, 3]])
    assert any_class_ap50(content, rows) == pytest.approx(1.0)
    assert any_class_ap50(content, rows[:2]) == pytest.approx(0.505, abs=1e-3)  # half of the recall levels


def test_averages_have_the_length_of_their_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, trainer = Mock(model=nn.Linear(1, 1, bias=False)), Mock(global_step=0, estimated_stepping_batches=100)
    trainer.configure_mock(default_root_dir=str(tmp_path), sanity_checking=False, current_epoch=0, max_epochs=2)
    callback = Averages([0.1, 0.5])
    with torch.no_grad():
        module.model.weight.fill_(0.0)
        callback.on_train_start(trainer, module)
        module.model.weight.fill_(1.0)
    for trainer.global_step in (1, 1, 2):  # the second batch made no step
        callback.on_train_batch_end(trainer, module)
    decays = [(1 - 1 / 10) * (1 - np.exp(-n / 10)) for n in (1, 2)]
    assert callback.averages[0.1][0].weight.item() == pytest.approx(1 - decays[0] * decays[1], rel=1e-5)
    assert callback.averages[0.5][1].tau == 50
    monkeypatch.setattr(Averages, "_evaluate", lambda self, network, *_: {"AP": network.weight.item()})
    callback.on_validation_end(trainer, module)
    assert not (tmp_path / averages.FILE).exists()  # not the last epoch
    trainer.current_epoch = 1
    callback.on_validation_end(trainer, module)
    assert set(json.loads((tmp_path / averages.FILE).read_text())["2"]) == {"0.1", "0.5"}
    with pytest.raises(ValueError, match="train it anew"):
        Averages([0.1]).on_train_start(trainer, module)


def test_numbers_of_sources_and_of_the_curve_decide_nothing() -> None:
    runs = [Run(stage, "scratch", "cards", "base", 1, 30) for stage in ("source", "curve", "screen")]
    assert cells_of([result_of(run, n, {}) for n, run in enumerate(runs)]) == {("scratch", "cards", "base", 30): {1: 2}}


@pytest.mark.parametrize(("data", "rate"), [("cards", 0.001), ("bccd", 0.001429), ("coco128", 0.000119)])
def test_the_rate_of_the_reference_depends_on_the_classes(data: str, rate: float) -> None:
    run = Run("screen", "scratch", data, "reference", 1, 30)
    assert run_settings(run, FULL, Path("set"), None)["model.lr"] == rate
    assert run_settings(run._replace(arm="adamw_0.002"), FULL, Path("set"), None)["model.lr"] == 0.002
