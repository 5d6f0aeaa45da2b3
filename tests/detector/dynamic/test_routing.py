"""Statistics of routing weights against values worked out by hand; recording."""

import pytest
import torch
from torch import nn

from detector.dynamic.conv2d import DynamicConv2d
from detector.dynamic.diagnostics import expert_distance
from detector.dynamic.routing import (
    RoutingStatistics,
    alike_experts,
    idle_expert_warnings,
    mean_of_runs,
    record_router_inputs,
    record_routing,
    replaced_routing,
)


def target(*labels: int) -> dict[str, torch.Tensor]:
    return {"boxes": torch.zeros(len(labels), 4), "labels": torch.tensor(labels, dtype=torch.int64)}


def test_statistics_equal_values_worked_out_by_hand() -> None:
    statistics = RoutingStatistics({"a": 2, "b": 1}, num_classes=3)
    assert statistics.results() == {}
    statistics.add({"a": torch.tensor([[0.2, 0.8], [0.4, 0.6]]), "b": torch.ones(2, 1)}, [target(0, 0), target(0, 2)])
    statistics.add({"a": torch.tensor([[0.6, 0.4]]), "b": torch.ones(1, 1)}, [target()])
    a, b = statistics.results().values()
    torch.testing.assert_close(a.mean, torch.tensor([0.4, 0.6]))
    torch.testing.assert_close(a.std, torch.full((2,), (0.08 / 3) ** 0.5))
    nan = float("nan")
    torch.testing.assert_close(a.by_class, torch.tensor([[0.3, 0.7], [nan, nan], [0.4, 0.6]]), equal_nan=True)
    assert a.entropy == pytest.approx(0.97095, abs=1e-5)
    assert (b.entropy, b.variation) == (1.0, 0.0)


def test_idle_experts_are_warned_of() -> None:
    statistics = RoutingStatistics({"fine": 2, "idle": 4, "single": 1}, num_classes=1)
    routing_weights = {
        "fine": torch.tensor([[0.5, 0.1]]),
        "idle": torch.tensor([[0.01, 0.9, 0.01, 0.01]]),
        "single": torch.ones(1, 1),
    }
    statistics.add(routing_weights, [target(0)])
    warning = "idle: expert 1 has 97% of the routing weight; the other experts are idle"
    assert idle_expert_warnings(statistics.results()) == {"idle": warning}


def test_distance_of_experts() -> None:
    assert expert_distance(torch.ones(3, 8)) == 0
    assert expert_distance(torch.eye(4)) == pytest.approx(2**0.5)
    assert expert_distance(torch.ones(1, 8)) == float("inf")


def test_routing_weights_are_recorded_only_within_the_context() -> None:
    net = nn.Sequential(DynamicConv2d(3, 8, 3), DynamicConv2d(8, 8, 1, routing="softmax"))
    x = torch.randn(2, 3, 6, 6)
    with record_routing(net) as records:
        net(x)
        net(x[:1])
    net(x)
    assert {name: [len(part) for part in parts] for name, parts in records.items()} == {"0": [2, 1], "1": [2, 1]}
    torch.testing.assert_close(records["0"][0], net[0].routing_weights(x))


def test_experts_of_every_kind_are_rows() -> None:
    layers = [
        DynamicConv2d(2, 3, 3, kind="mixture"),
        DynamicConv2d(2, 3, 3, kind="residual"),
        DynamicConv2d(2, 3, 3, kind="omni"),
    ]
    assert [layer.experts.shape for layer in layers] == [(4, 54), (4, 54), (1, 54)]
    assert layers[1].experts.data_ptr() == layers[1].delta.data_ptr()
    assert expert_distance(layers[2].experts) == float("inf")


def gated_network() -> nn.Sequential:
    """Return a network with layers of all kinds whose routing varies; the first layer runs twice."""
    torch.manual_seed(0)
    first = DynamicConv2d(4, 4, 3, padding=1, kind="residual", gates=["input"])
    net = nn.Sequential(first, nn.ReLU(), first, DynamicConv2d(4, 6, 3, kind="omni"), DynamicConv2d(6, 2, 1))
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5)
    return net.double().eval()


def test_recorded_routing_weights_that_are_fed_back_give_the_same_output() -> None:
    net, x = gated_network(), torch.randn(3, 4, 8, 8, dtype=torch.float64)
    with torch.no_grad(), record_routing(net) as records, record_router_inputs(net) as inputs:
        expected = net(x)
    assert {name: [tuple(run.shape) for run in runs] for name, runs in records.items()} == {
        "0": [(3, 8), (3, 8)],
        "3": [(3, 10)],
        "4": [(3, 4)],
    }
    torch.testing.assert_close(inputs["0"][0], x.mean(dim=(2, 3)))
    order = [2, 0, 1]
    with torch.no_grad(), replaced_routing(net, records):
        torch.testing.assert_close(net(x), expected)
    with torch.no_grad(), replaced_routing(net, {name: [run[order] for run in runs] for name, runs in records.items()}):
        shuffled = net(x)
        by_hand = x
        for layer, (name, run) in zip((net[0], net[0], net[3], net[4]), [("0", 0), ("0", 1), ("3", 0), ("4", 0)]):
            by_hand = layer.convolve(by_hand, records[name][run][order])
            by_hand = by_hand.relu() if (name, run) == ("0", 0) else by_hand
    torch.testing.assert_close(shuffled, by_hand)
    assert (shuffled - expected).abs().max() > 1e-3
    torch.testing.assert_close(net(x), expected)


def test_one_row_of_routing_weights_is_for_all_images_and_runs() -> None:
    net, x = gated_network(), torch.randn(2, 4, 8, 8, dtype=torch.float64)
    row = torch.rand(8, dtype=torch.float64)
    with torch.no_grad(), replaced_routing(net, {"0": row}), record_routing(net) as records:
        got = net[:3](x)
    expected = net[0].convolve(net[0].convolve(x, row.expand(2, -1)).relu(), row.expand(2, -1))
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(records["0"][1], row.expand(2, -1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"9": torch.ones(4)}, "'9' is no dynamic layer of the network; these are 0, 3, 4"),
        ({"4": torch.ones(3, 4)}, r"for 4 have the shape \(3, 4\); expected \(2, 4\), or \(4,\) for all images"),
        ({"0": [torch.ones(2, 8)]}, "0 runs more often than there are routing weights for it"),
    ],
)
def test_wrong_routing_weights_are_refused(given: dict, message: str) -> None:
    net, x = gated_network(), torch.randn(2, 4, 8, 8, dtype=torch.float64)
    with pytest.raises(ValueError, match=message), replaced_routing(net, given):
        net(x)
    assert not any(layer.router._forward_hooks for layer in (net[0], net[3], net[4]))


def test_runs_on_images_have_a_mean_and_runs_on_regions_have_none() -> None:
    runs = [torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [6.0]])]
    assert mean_of_runs(runs, 2).tolist() == [[2.0], [4.0]]
    assert mean_of_runs(runs, 3) is None
    assert mean_of_runs([], 2) is None


def test_gates_are_summarized_each_and_experts_by_size() -> None:
    statistics = RoutingStatistics({"a": {"input": 1, "expert": 2}, "b": {"filter": 2}}, num_classes=0)
    a, b = torch.tensor([[1.0, -0.9, 0.1], [2.0, 0.9, 0.1]]), torch.tensor([[1.0, 1.0], [1.0, 3.0]])
    statistics.add({"a": a[:1], "b": b[:1]})
    statistics.add({"a": a[1:], "b": b[1:]})
    statistics.add({})
    first, second = statistics.results().values()
    assert first.gate("input").mean.tolist() == [1.5]
    assert first.gate("input").variation == pytest.approx(0.5)
    assert first.experts.mean_size.tolist() == pytest.approx([0.9, 0.1])
    assert first.experts.entropy == pytest.approx(0.469, abs=1e-3)
    assert second.experts is None
    assert second.gate("filter").image_share == pytest.approx(0.5 / (0.5 + 0.25))
    assert second.image_share == second.gate("filter").image_share
    assert list(idle_expert_warnings(statistics.results())) == []
    statistics.add({"a": torch.tensor([[0.0, 5.0, 0.0]])})
    assert "a: expert 0 has 97%" in idle_expert_warnings(statistics.results())["a"]


def test_alike_experts_of_every_kind() -> None:
    mixture, residual = DynamicConv2d(2, 3, 3), DynamicConv2d(2, 3, 3, kind="residual")
    assert alike_experts(mixture) == ""
    assert alike_experts(residual) == ""  # all changes are 0 before the first step
    assert alike_experts(DynamicConv2d(2, 3, 3, kind="omni")) == ""  # one kernel
    mixture.weight.data = mixture.weight[:1].expand(4, -1).clone()
    assert alike_experts(mixture) == "distance 0.000 of their size"
    residual.delta.data = torch.randn(1, 54) * torch.tensor([[1.0], [2.0], [0.5], [3.0]])
    assert alike_experts(residual) == "cosine 1.000"
    residual.delta.data = torch.randn(4, 54) + 1  # cosines of about 0.5
    assert alike_experts(residual) == ""
