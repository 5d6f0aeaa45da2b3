"""Costs of arms: measured in turns, as multiples of the reference in the same round."""

from types import SimpleNamespace

import pytest
import torch

from benchmarks.compare import costs


def test_ratios_are_to_the_reference_in_the_same_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are made up: the machine slows down from round to round, and mine takes half as long again as plain."""
    monkeypatch.setattr(
        costs,
        "build_arm",
        lambda name, words: SimpleNamespace(
            name=name, device=torch.device("cpu"), size=(32, 64), data=SimpleNamespace(batch_size=2)
        ),
    )
    monkeypatch.setattr(costs, "in_new_process", lambda function, name, words: {"plain": 50.0, "mine": 60.0}[name])
    monkeypatch.setattr(costs, "count", lambda arm: (len(arm.name), 7))
    monkeypatch.setattr(costs, "inference", lambda arm: "inference")
    monkeypatch.setattr(costs, "training_step", lambda arm: "step")

    def turns(functions: dict, rounds: int, warm_up: int) -> dict[str, list[float]]:
        unit = {"inference": 1.0, "step": 10.0}[functions["plain"].args[0]]
        times = [unit * (1 + n) for n in range(rounds)]
        return {"mine": [1.5 * time for time in times], "plain": times}

    monkeypatch.setattr(costs, "take_turns", turns)
    measured = costs.measure_costs({"mine": ["a"], "plain": ["b"]}, "plain", rounds=7)
    mine, plain = measured["arms"]["mine"], measured["arms"]["plain"]
    assert (mine["parameters"], mine["multiply_adds"], mine["step_mb"]) == (4, 7, 60.0)
    assert (plain["step_ms"], mine["step_ms"], plain["inference_ms"]) == (40.0, 60.0, 11.0)  # medians of 7 and 21 rounds
    assert mine["step_ratio"] == mine["inference_ratio"] == pytest.approx([1.5] * 3)
    assert plain["step_ratio"] == pytest.approx([1.0] * 3)
    assert "64 x 32 px, steps of 2 images" in measured["conditions"]
