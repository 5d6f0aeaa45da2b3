"""Learning rate and momentum, worked out by hand."""

import pytest
import torch
from torch import nn

from detector.training.optimizer import build_optimizer, parameter_groups
from detector.training.schedule import Schedule


def test_decay_per_epoch() -> None:
    linear = Schedule(max_epochs=10, final_ratio=0.1)
    assert [linear.decay_factor(e) for e in (0, 5, 10)] == pytest.approx([1.0, 0.55, 0.1])
    cosine = Schedule(max_epochs=10, final_ratio=0.1, decay="cosine")
    assert [cosine.decay_factor(e) for e in (0, 5, 10)] == pytest.approx([1.0, 0.55, 0.1])
    assert cosine.decay_factor(2) > linear.decay_factor(2)
    assert Schedule(max_epochs=-1).decay_factor(1000) == 1.0


def test_warm_up_per_step() -> None:
    schedule = Schedule(max_epochs=10, warmup_epochs=2)
    assert [schedule.warmup_progress(e, b, 4) for e, b in ((0, 0), (0, 2), (1, 0), (2, 0), (5, 3))] == [0, 0.25, 0.5, 1, 1]
    assert Schedule(max_epochs=2, warmup_epochs=3).warmup_progress(1, 0, 4) == 1.0  # at most E - 1 epochs
    assert Schedule(max_epochs=1, warmup_epochs=3).warmup_progress(0, 0, 4) == 1.0
    assert Schedule(max_epochs=9, warmup_epochs=0).warmup_progress(0, 0, 4) == 1.0


@pytest.mark.parametrize("name", ["musgd", "sgd", "adamw"])
def test_rates_of_groups(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = build_optimizer(name, parameter_groups(model, 0.2, 0.0, name == "musgd"), 0.9)
    schedule = Schedule(max_epochs=10, final_ratio=0.0, warmup_epochs=2, warmup_bias_lr=0.1, warmup_momentum=0.8)

    def rates(epoch: int, batch: int) -> dict[str, float]:
        schedule.apply(optimizer, epoch, batch, num_batches=4)
        return {group["name"]: group["lr"] for group in optimizer.param_groups}

    def momentum() -> float:
        group = optimizer.param_groups[0]
        return group["betas"][0] if "betas" in group else group["momentum"]

    assert rates(0, 0) == pytest.approx({"kernels": 0.0, "norms": 0.0, "biases": 0.1})
    assert momentum() == pytest.approx(0.8)
    assert rates(1, 0) == pytest.approx({"kernels": 0.09, "norms": 0.09, "biases": 0.14})  # half way to 0.2 * 0.9
    assert momentum() == pytest.approx(0.85)
    assert rates(5, 3) == pytest.approx(dict.fromkeys(("kernels", "norms", "biases"), 0.1))
    assert momentum() == pytest.approx(0.9)


def test_schedule_is_a_function_of_epoch_and_batch_alone() -> None:
    p = nn.Parameter(torch.zeros(2))
    rates_and_momenta = []
    for history in ([(0, 0), (1, 2)], [(1, 2)]):
        optimizer = build_optimizer("sgd", parameter_groups(nn.ParameterList([p]), 0.2, 0.0, False), 0.9)
        for epoch, batch in history:
            Schedule(max_epochs=10).apply(optimizer, epoch, batch, 4)
        rates_and_momenta.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
    assert rates_and_momenta[0] == rates_and_momenta[1]
