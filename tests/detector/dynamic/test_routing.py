"""Statistics of routing weights against values worked out by hand; recording."""

import pytest
import torch
from torch import nn

from detector.dynamic.conv2d import DynamicConv2d
from detector.dynamic.routing import RoutingStatistics, expert_distance, idle_expert_warnings, record_routing


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
