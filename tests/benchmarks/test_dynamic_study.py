"""The study of dynamic layers, without training: its runs, their settings, its tables."""

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import common, dynamic_diagnosis, dynamic_figure, dynamic_study, runs
from benchmarks.dynamic_tables import better_partner, compare, decision, pooled_sd, print_help, print_plan
from benchmarks.squeeze_excitation import SqueezeExcitedConv
from detector.network.config import DetectorConfig, detector_config

BOX, WRONG = [10.0, 10.0, 20.0, 20.0], [60.0, 60.0, 20.0, 20.0]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write validation annotations of two sources: two images with the class 1, and one with the classes 1 and 2."""
    content: dict[str, Any] = {"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}
    content["images"] = [{"id": n, "file_name": "", "width": 99, "height": 99, "source": s} for n, s in enumerate("ssd")]
    objects = [{"id": n, "image_id": n, "category_id": 1 + (n == 2), "bbox": BOX, "area": 400} for n in range(3)]
    objects += [{"id": 3, "image_id": 2, "category_id": 1, "bbox": WRONG, "area": 400}]
    path = tmp_path / "data/control/annotations/instances_val.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content | {"annotations": objects}))
    return tmp_path / "data"


def fake_train(arguments: list[str], run: Path, epochs: int, log: Path) -> None:
    """Write the predictions of a run: one of two objects of source s is found, by the branch one2many also that of d."""
    if any("omni" in argument for argument in arguments):
        raise RuntimeError("train.py failed")
    run.mkdir()
    rows = [{"image_id": 0, "category_id": 1, "bbox": BOX, "score": 0.9}]
    rows += [{"image_id": 1, "category_id": 1, "bbox": WRONG, "score": 0.8}]
    (run / "predictions.json").write_text(json.dumps(rows))
    rows += [{"image_id": 2, "category_id": 2, "bbox": BOX, "score": 0.7}]
    (run / "predictions_one2many.json").write_text(json.dumps(rows))


def study(monkeypatch: pytest.MonkeyPatch, data: Path, *arguments: str) -> int:
    """Run the command; return its exit status."""
    monkeypatch.setattr(dynamic_study, "train", fake_train)
    folders = ["--data", str(data), "--runs", str(data.parent)]
    monkeypatch.setattr(sys, "argv", ["dynamic_study", *folders, *arguments])
    return dynamic_study.main()


def test_a_run_leaves_its_aps_by_source(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert study(monkeypatch, data, "--stage", "control", "--arms", "plain", "omni_if") == 1
    assert "train.py failed" in capsys.readouterr().out
    assert study(monkeypatch, data, "--stage", "control", "--arms", "plain") == 0
    result = json.loads((data.parent / "dynamic_control_plain_s0/result.json").read_text())
    half, third = 51 / 101, 34 / 101  # precision 1 up to the recalls 1/2 and 1/3
    aps = {branch: {part: numbers["AP"] for part, numbers in parts.items()} for branch, parts in result["AP"].items()}
    assert aps["one2one"] == pytest.approx({"all": third / 2, "s": half, "d": 0, "macro": half / 2})
    assert aps["one2many"] == pytest.approx({"all": (third + 1) / 2, "s": half, "d": 0.5, "macro": (half + 0.5) / 2})
    with pytest.raises(
        ValueError, match=r"dynamic_control_plain_s0: was trained with other settings \(model.warmup_epochs, t"
    ):
        study(monkeypatch, data, "--stage", "control", "--arms", "plain", "--epochs", "3")


def diagnosis(low: float, rho: float) -> dict[str, Any]:
    """Return a routing.json in which shuffling costs 0.05 of macro AP, at least ``low``."""
    drop = {"value": 0.05, "low": low, "high": 0.09}
    layers = {"a": {"rho": rho}, "b": {"rho": 3 * rho}}
    drops = {"shuffled": {"all": drop | {"low": 0.04}, "macro": drop}}
    return {"layers": layers, "all_layers": {}, "ap": {"as is": {"all": 0.4, "macro": 0.3}}, "drops": drops}


def test_the_report_has_tables_numbers_and_a_figure(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(common, "RESULTS", data / "results")
    monkeypatch.setattr(dynamic_figure, "FIGURE", data / "results/dynamic_study.svg")
    assert study(monkeypatch, data, "--stage", "control", "--arms", "plain", "residual") == 0
    other = data.parent / "dynamic_control_residual_fast_s0/result.json"
    other.parent.mkdir()
    other.write_text(json.dumps({"stage": "control", "arm": "residual_fast", "seed": 0}))
    (data.parent / "dynamic_control_residual_s0/routing.json").write_text(json.dumps(diagnosis(0.02, 0.01)))
    assert study(monkeypatch, data, "--report", "--diagnose") == 0  # nothing is left to diagnose
    output = capsys.readouterr().out
    assert "left out, because the study has no such arm: residual_fast" in output
    rows = [line.split() for line in output.splitlines()]
    row = next(row for row in rows if row[:1] == ["residual,"])
    assert row[1:9] == ["seed", "0", "0.0200", "0.300", "0.050", "(0.020", "to", "0.090)"]
    content = json.loads((data / "results/dynamic_study.json").read_text())
    assert content["help"]["control"]["residual"]["minus"]["plain"]["mean"] == 0
    assert "data.root" not in content["runs"][0]["settings"]
    assert "macro AP lost by shuffling" in (data / "results/dynamic_study.svg").read_text()


def test_an_arm_is_dynamic_if_three_runs_are(tmp_path: Path) -> None:
    numbers = []
    for low, rho in ((0.02, 0.01), (0.005, 0.01), (0.02, 0.004)):
        (tmp_path / "routing.json").write_text(json.dumps(diagnosis(low, rho)))
        numbers.append(dynamic_diagnosis.read_diagnosis(tmp_path))
    yes, small_loss, small_rho = numbers
    assert [one["rho"] for one in numbers] == pytest.approx([0.02, 0.02, 0.008])
    assert dynamic_diagnosis.verdict([yes, yes, yes]) == "yes"
    assert dynamic_diagnosis.verdict([yes, yes]) == "in 2 of 2, needs 3"
    assert dynamic_diagnosis.verdict([yes, yes, small_loss]) == dynamic_diagnosis.verdict([yes, yes, small_rho]) == "no"
    assert dynamic_diagnosis.read_diagnosis(tmp_path / "absent") is None


def test_a_failed_diagnosis_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(dynamic_diagnosis.sys, "executable", "false")
    assert not dynamic_diagnosis.diagnose_runs([(tmp_path, tmp_path)], jobs=1)
    assert "failed" in capsys.readouterr().out


def test_mistakes_are_named(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for arguments, message in (
        (["--stage", "controll"], "--stage controll: unknown; choose from control, joint"),
        (["--stage", "joint", "--arms", "plane"], "--arms plane: unknown; choose from plain"),
        ([], "nothing to do"),
    ):
        with pytest.raises(SystemExit):
            study(monkeypatch, data, *arguments)
        assert message in capsys.readouterr().err


def test_every_arm_is_a_network_and_sizes_have_equal_steps() -> None:
    settings = [dynamic_study.network_settings(arm, ("backbone-pointwise",)) for arm in dynamic_study.ARMS]
    fields = [json.loads(one.get("model.overrides", "{}")) for one in settings]
    assert all(isinstance(detector_config("yolo26_n", **one), DetectorConfig) for one in fields)
    assert {tuple(one["dynamic"]["where"]) for one in fields if "dynamic" in one} == {("backbone-pointwise",)}
    (replaced,) = [json.loads(one["model.replace"]) for one in settings if "model.replace" in one]
    assert replaced[0]["where"] == ["backbone-pointwise"]
    assert len({str(one) for one in settings}) == len(settings)
    scales = [dynamic_study.STAGES[name] for name in dynamic_study.GROUPS["scale"]]
    assert all(int(a.data[7:]) * a.epochs == int(b.data[7:]) * b.epochs for a, b in pairwise(scales))


@pytest.mark.parametrize(("channels", "count"), [((16, 8), 1448), ((32, 16), 5168), ((32, 32), 10304), ((64, 64), 39008)])
def test_squeeze_excitation_starts_as_the_convolution(channels: tuple[int, int], count: int) -> None:
    layer = SqueezeExcitedConv(nn.Conv2d(*channels, 3, padding=1, bias=False))
    assert sum(p.numel() for p in layer.parameters()) == count
    x = torch.randn(2, channels[0], 4, 4)
    assert torch.equal(layer(x), layer.conv(x))
    with torch.no_grad():
        layer.router.filter.bias.fill_(1.0)
    torch.testing.assert_close(layer(x), layer.conv(x) * 2 * torch.sigmoid(torch.tensor(1.0)))


ARMS = {
    "plain": {1: 0.30, 2: 0.31, 3: 0.29},
    "wide": {1: 0.32, 2: 0.31, 3: 0.30},
    "residual": {1: 0.35, 2: 0.36, 3: 0.34},
    "omni_if": {1: 0.36},
}


def test_an_arm_is_compared_with_the_better_of_its_partners(capsys: pytest.CaptureFixture) -> None:
    assert better_partner(ARMS, "residual") == "wide"
    fewer = ARMS | {"wide": {1: 0.28, 2: 0.32, 4: 0.9}}  # over the seeds of all: plain 0.305, wide 0.30
    assert better_partner(fewer, "residual") == "plain"
    one = compare(ARMS, "residual", "wide", num_arms=2)
    assert (one.seeds, one.mean) == ([1, 2, 3], pytest.approx(0.04))
    assert one.half_width == pytest.approx(4.303 * 0.01 / 3**0.5, rel=1e-3)
    assert one.decision_half_width == pytest.approx(6.205 * 0.01 / 3**0.5, rel=1e-3)
    assert one.helps
    assert not compare(ARMS, "residual", "wide", num_arms=5).helps
    assert compare(ARMS, "residual", "se", 2) is None
    assert not compare(ARMS, "omni_if", "plain", 2).helps  # a single pair
    print_help("joint", ARMS, 2)
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert "yes, over wide" in rows["residual"]
    assert "open: needs plain and se" in rows["omni_if"]  # more than plain, but squeeze and excitation is missing
    assert decision(ARMS | {"se": {1: 0.30}}, "omni_if", 2) == "open: a single pair"


def test_the_plan_has_the_spread_of_plain_runs_and_of_pairs(capsys: pytest.CaptureFixture) -> None:
    # differences to plain: wide 0.02, 0, 0.01; residual 0.05 three times; omni_if is a single pair
    assert pooled_sd(ARMS) == pytest.approx(0.01 / 2**0.5)
    results = [
        {"stage": "joint", "arm": arm, "seed": seed, "AP": {"one2one": {"macro": {"AP": ap}}}}
        for arm, aps in ARMS.items()
        for seed, ap in aps.items()
    ]
    print_plan(results, 2)
    rows = capsys.readouterr().out.splitlines()
    assert rows[2].startswith("3 plain runs, mean 0.300, sd 0.0100, x 1.41, level 0.050   0.0141")
    assert rows[4].startswith("pairs of all arms, pooled, level 0.050")
    assert rows[4].split()[-5:] == [str(n) for n in (18, 7, 5, 4, 3)]


def test_a_failed_training_shows_the_end_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs.sys, "executable", "false")
    with pytest.raises(RuntimeError, match=r"train\.py --a=1 --run_dir .* failed"):
        runs.train(["--a=1"], tmp_path / "run", 1, tmp_path / "logs/run.log")
    assert (tmp_path / "logs/run.log").exists()
