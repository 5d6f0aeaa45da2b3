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
    """Gives what it is told to give; ``in_training`` in training mode. It counts its calls in that mode."""

    def __init__(self, output: Any, in_training: Any = None) -> None:
        super().__init__()
        self.outputs, self.drop, self.norm = {False: output, True: in_training}, nn.Dropout(), nn.BatchNorm1d(3)
        self.calls = 0

    def forward(self, xs: list[Tensor], scale: float) -> Any:
        assert float(self.norm(xs[0]).sum()) == pytest.approx(0.0 if self.training else 6.0, abs=1e-3)
        self.calls += self.training
        if isinstance(output := self.outputs[self.training], Exception):
            raise output
        return output


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
    block = Other([torch.zeros(2, 3)] * 2, (torch.zeros(2, 3),) * 2)
    block.drop.eval()
    check_contract(block, calls["both"], "the block")
    assert (block.training, block.drop.training) == (True, False)
    assert (block.calls, float(block.norm.running_mean.sum())) == (0, 0)  # training mode is tried on a copy


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


@pytest.mark.parametrize(
    ("in_training", "message"),
    [
        (
            [torch.zeros(2, 3), torch.zeros(2, 1)],
            r"gives in training mode \[\(2, 3\) float32, \(2, 1\) float32\] for the input",
        ),
        (RuntimeError("no noise"), r"fails in training mode for the input .*RuntimeError: no noise \(.*test_contract.py"),
        (torch.zeros(2, 3, requires_grad=True) * 2, "cannot be copied, as the averaged weights of a training need: "),
    ],
)
def test_a_block_must_give_the_same_in_training_and_must_have_copies(
    network: Network, in_training: Any, message: str
) -> None:
    call = record_calls(network, ["both"], torch.ones(2, 3))["both"]
    block = Other([torch.zeros(2, 3), torch.zeros(2, 3)], in_training)
    with pytest.raises(ValueError, match=f"^the block {message}"):
        check_contract(block, call, "the block")
    assert block.training


def test_errors_name_their_line_but_on_the_meta_device_they_are_no_verdict(network: Network) -> None:
    call = record_calls(network, ["both"], torch.ones(2, 3))["both"]
    with pytest.raises(ValueError, match=r"^the block fails for .*TypeError.*"):
        check_contract(nn.Identity(), call, "the block")
    call = record_calls(network.to("meta"), ["both"], torch.ones(2, 3, device="meta"))["both"]
    check_contract(nn.Identity(), call, "the block")
