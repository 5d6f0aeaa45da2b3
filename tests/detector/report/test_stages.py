"""The costs of stages: their sums are those of the network, and activations are those worked out by hand."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detector import build_detector
from detector.report import stages
from detector.report.stages import Summary, stage_modules, summarize
from tests.resuming import TINY

SIZE = (64, 96)


@pytest.fixture(scope="module")
def summary() -> Iterator[Summary]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "RUNS", 2)
        yield summarize(build_detector("dyn_n", 3, **TINY), SIZE)


def test_sums_over_the_stages_are_the_costs_of_the_network(summary: Summary) -> None:
    model = build_detector("dyn_n", 3, **TINY).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.rand(1, 3, *SIZE))
    assert summary.total.parameters == sum(p.numel() for p in model.parameters())
    assert summary.total.multiply_adds == counter.get_total_flops() // 2
    by_name = {stage.name: stage for stage in summary.stages}
    assert by_name["backbone.stem"].parameters == sum(p.numel() for p in model.backbone.stem.parameters())
    assert (by_name["other"].parameters, by_name["other"].multiply_adds) == (0, 0)


def test_activations_of_the_stem_are_those_worked_out_by_hand(summary: Summary) -> None:
    """Convolution, normalization, activation: all three keep their input, and the normalization its statistics."""
    stem = summary.stages[0]
    channels, (height, width) = 8, SIZE
    maps = channels * (height // 2) * (width // 2)
    statistics = 2 * channels / 2  # mean and deviation of a batch of two images
    assert stem.name == "backbone.stem"
    assert stem.activation_bytes == 4 * (3 * height * width + 2 * maps + statistics)


def test_time_is_that_of_the_deployed_branch(summary: Summary) -> None:
    times = {stage.name: stage.milliseconds for stage in summary.stages}
    assert times["head.one2many"] is None
    assert all(time > 0 for name, time in times.items() if name != "head.one2many")
    assert summary.table().rows[-1][0] == "total"
    assert "head.one2many" in summary.plot("name", "title").svg


def test_stages_of_a_trunk_are_its_own_and_those_in_its_sequences() -> None:
    """Networks of timm run the entries of ``blocks`` one by one, and never ``blocks`` itself."""
    model = build_detector("yolo26_n", 3, **TINY)
    blocks = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()))
    model.backbone.trunk = nn.ModuleDict({"stem": nn.Conv2d(3, 3, 1), "blocks": blocks})
    names = [name for name in stage_modules(model) if "trunk" in name]
    assert names == [f"backbone.trunk.{name}" for name in ("stem", "blocks.0", "blocks.1")]
