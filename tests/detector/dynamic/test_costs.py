"""The costs of dynamic layers in closed form: parameters and multiply-adds of every kind, alone and in yolo26_n."""

from itertools import combinations
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import costs
from detector import build_detector
from detector.dynamic import DynamicConv2d
from tests.golden_values import load

GATES = ("input", "filter", "position")
SOME_GATES = [gates for number in range(4) for gates in combinations(GATES, number)]
SETTINGS = [{"kind": "mixture", "num_experts": m, "routing": r} for m in (1, 4) for r in ("sigmoid", "softmax")]
SETTINGS += [{"kind": "omni", "num_experts": m, "gates": gates} for m in (1, 4) for gates in SOME_GATES if m > 1 or gates]
SETTINGS += [
    {"kind": "residual", "num_experts": m, "gates": gates, "routing": routing, "router_norm": norm}
    for m, routing, norm in ((4, "centred", "batch"), (2, "softmax", "layer"), (1, "sigmoid", "none"))
    for gates in SOME_GATES
]
PLACE = load("dynamic_layers")["yolo26n_backbone_bottlenecks"]
IN_YOLO = {
    "omni filter": {"kind": "omni", "gates": ["filter"]},
    "omni input filter": {"kind": "omni"},
    "omni input filter position": {"kind": "omni", "gates": GATES},
    "omni all, M=4": {"kind": "omni", "gates": GATES, "num_experts": 4},
    "mixture sigmoid, M=4": {"kind": "mixture"},
    "mixture softmax, M=4": {"kind": "mixture", "routing": "softmax"},
    **{f"residual M={m}": {"kind": "residual", "routing": "softmax", "num_experts": m} for m in (1, 2, 4)},
}


def closed_form(layer: DynamicConv2d, area: int) -> tuple[int, int]:
    """Return parameters and multiply-adds of ``layer`` for one image, with ``area`` pixels of output."""
    settings, inputs, outputs, experts = layer.settings, layer.in_channels, layer.out_channels, layer.num_experts
    kernel, units = torch.Size(layer.kernel_shape).numel(), sum(layer.units.values())
    has_bias, is_mixture = layer.bias is not None, settings.kind == "mixture"
    hidden = max(inputs // 16, 16)
    if settings.router == "bottleneck":
        router, router_adds = hidden * (inputs + units) + units, hidden * (inputs + units)
        router += {"batch": 2 * hidden, "layer": 3 * hidden, "none": hidden}[settings.router_norm]
        router -= experts if settings.routing == "centred" else 0  # no bias
    elif settings.routing == "sigmoid":
        router, router_adds = experts * (inputs + 1), experts * inputs
    else:
        router, router_adds = inputs * (inputs + 1) + experts * (inputs + 1), inputs * (inputs + experts)
    num_kernels = experts + (settings.kind == "residual")
    mixing = experts * kernel if "expert" in layer.units else 0
    biases = outputs * has_bias * (experts if is_mixture else 1)
    return num_kernels * kernel + biases + router, kernel * area + mixing + router_adds + biases * is_mixture


def counted(layer: nn.Module, channels: int, side: int, batch: int = 1) -> tuple[int, int]:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer.to("meta").eval()(torch.empty(batch, channels, side, side, device="meta"))
    return sum(p.numel() for p in layer.parameters()), counter.get_total_flops() // 2


@pytest.mark.parametrize(("shape", "batch"), [({"stride": 2}, 1), ({"groups": 4, "bias": False}, 3)], ids=str)
def test_costs_of_a_layer(shape: dict[str, Any], batch: int) -> None:
    for settings in SETTINGS:
        layer = DynamicConv2d(16, 24, 3, padding=1, **shape, **settings)
        parameters, multiply_adds = closed_form(layer, area=(8 // layer.stride[0]) ** 2)
        assert counted(layer, 16, 8, batch) == (parameters, batch * multiply_adds), settings


@pytest.mark.parametrize("name", IN_YOLO)
def test_costs_of_the_layers_of_yolo26_n(name: str) -> None:
    """They are those of the specification."""
    total = [0, 0]
    for c_in, c_out, side in PLACE["layers"]:
        layer = DynamicConv2d(c_in, c_out, 3, padding=1, bias=False, **IN_YOLO[name])
        total = [a + b for a, b in zip(total, counted(layer, c_in, side))]
    plain = [PLACE["plain"]["parameters"], PLACE["plain"]["macs"]]
    assert [a - b for a, b in zip(total, plain)] == PLACE["added"][name]


def test_costs_of_a_deployed_detector() -> None:
    """The layers are those of the specification, and the normalization of their routers becomes a bias."""
    detector = build_detector("yolo26_n", 80, dynamic={"kind": "omni"}).deploy()
    assert not [m for m in detector.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    parameters, multiply_adds = PLACE["added"]["omni input filter"]
    folded = len(PLACE["layers"]) * 16  # weights and biases of 16 hidden units become biases
    assert costs(detector, 640) == (2_408_932 + parameters - folded, 2_740_153_600 + multiply_adds)
