"""The contract of a replacement: the same outputs, in shape and type, for the same inputs."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detector.network.replace.contract import check_contract, record_calls


class Network(nn.Module):
    """Calls one module with a list and a keyword, one in place, and one not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.act, self.silent = Both(), nn.ReLU(inplace=True), nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.both([x, x + 1], scale=2.0)
        return self.norm(self.act(first.sub_(5)) + self.silent.weight.sum() + second)


class Both(nn.Module):
    def forward(self, xs: list[Tensor], scale: float) -> tuple[Tensor, Tensor]:
        return tuple(x * scale for x in xs)


class Other(nn.Module):
    """Gives what it is told to give."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output, self.drop = output, nn.Dropout()

    def forward(self, xs: list[Tensor], scale: float) -> Any:
        assert not self.training
        assert float(xs[0].sum()) == 6.0
        return self.output


@pytest.fixture
def network() -> Network:
    return Network()


def test_calls_are_recorded_as_they_were_and_nothing_changes(network: Network) -> None:
    network.norm.eval()
    calls = record_calls(network, ["both", "act", "silent"], torch.ones(2, 3))
    assert calls.keys() == {"both", "act"}
    assert calls["both"].kwargs == {"scale": 2.0}
    assert calls["both"].args[0][0].tolist() == [[1.0] * 3] * 2
    assert calls["act"].args[0].tolist() == [[-3.0] * 3] * 2  # not 0, as after the activation in place
    assert network.training
    assert not network.norm.training
    assert not network.both._forward_hooks
    assert float(network.norm.running_mean.sum()) == 0


def test_lists_and_tuples_count_as_the_same(network: Network) -> None:
    calls = record_calls(network, ["both"], torch.ones(2, 3))
    block = Other([torch.zeros(2, 3), torch.zeros(2, 3)])
    check_contract(block, calls["both"], "the block")
    assert block.training
    assert block.drop.training


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (torch.zeros(2, 3), r"\(2, 3\) float32"),
        ([torch.zeros(2, 3)], r"\[\(2, 3\) float32\]"),
        ([torch.zeros(2, 3), torch.zeros(2, 4)], r"\[\(2, 3\) float32, \(2, 4\) float32\]"),
        ([torch.zeros(2, 3), torch.zeros(2, 3).double()], r"\[\(2, 3\) float32, \(2, 3\) float64\]"),
        ([torch.zeros(2, 3), torch.zeros(2, 3, device="meta")], r"\[\(2, 3\) float32, \(2, 3\) float32 on meta\]"),
        ({"x": torch.zeros(2, 3)}, r"\{x: \(2, 3\) float32\}"),
        (None, "a NoneType"),
    ],
)
def test_other_outputs_are_refused_with_what_came_and_went(network: Network, output: Any, text: str) -> None:
    call = record_calls(network, ["both"], torch.ones(2, 3))["both"]
    two = r"\[\(2, 3\) float32, \(2, 3\) float32\]"
    with pytest.raises(ValueError, match=f"^the block gives {text} for the input {two}, scale=a float; expected {two}"):
        check_contract(Other(output), call, "the block")


def test_errors_name_their_line_but_on_the_meta_device_they_are_no_verdict(network: Network) -> None:
    call = record_calls(network, ["both"], torch.ones(2, 3))["both"]
    with pytest.raises(ValueError, match=r"^the block fails for .*TypeError.*"):
        check_contract(nn.Identity(), call, "the block")
    call = record_calls(network.to("meta"), ["both"], torch.ones(2, 3, device="meta"))["both"]
    check_contract(nn.Identity(), call, "the block")
