"""ParameterNet against the golden numbers: counts, names of layers, and forward values."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detector import build_detector
from detector.dynamic import DynamicConv2d, dynamic_layers
from detector.network.classifier import build_classifier
from detector.network.foreign.ghost import GhostTrunk
from detector.network.foreign.parameternet import converted_names, official_names
from tests.golden_values import hashed, load

GOLDEN = load("parameternet")
NAMES = {
    "parameternet_600m": "parameternet_600m",
    "parameternet_300m": "parameternet_300m",
    "ghost_width_100": "parameternet_w100",
    "ghost_width_050": "parameternet_w050",
}


COUNTED = [("parameternet_300m", "8 softmax"), ("parameternet_600m", "4 sigmoid")]


@pytest.mark.parametrize(("name", "experts"), COUNTED)
def test_parameters_multiply_adds_and_layers(name: str, experts: str) -> None:
    golden, (number, routing) = GOLDEN["models"][name], experts.split()
    dynamic = {"num_experts": int(number), "routing": routing, "where": "backbone"}
    with torch.device("meta"):
        network = build_classifier("yolo26_n", 1000, backbone=NAMES[name], dynamic=dynamic).eval().network
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, 224, 224, device="meta"))
    expected = golden["experts"][experts]
    assert sum(p.numel() for p in network.parameters()) == expected["parameters"]
    assert counter.get_total_flops() // 2 == expected["macs_224"]
    assert list(dynamic_layers(network)) == golden["dynamic_layers"]
    assert [name for name, m in network.named_modules() if isinstance(m, nn.Conv2d)] == golden["plain_convolutions"]


def golden_weight(network: nn.Module, name: str, value: Tensor) -> Tensor:
    """Return the weight of the formula in golden/parameternet.json."""
    if not value.is_floating_point():
        return value
    module_name, _, attribute = name.rpartition(".")
    module, u = network.get_submodule(module_name), hashed(name, value.shape, np.float64)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return {"weight": 1 + 0.2 * u, "running_var": 1 + 0.4 * u}.get(attribute, 0.2 * u)
    if attribute == "bias":
        return u * (2.0 if ".router" in name else 0.2 if name == "conv_head.bias" else 1.0)
    shape = module.kernel_shape if isinstance(module, DynamicConv2d) else value.shape
    return u * 2 * math.sqrt(3 / math.prod(shape[1:])) * (4 if ".router." in name and name[-8].isdigit() else 1)


@pytest.mark.parametrize("case", ["ghost_width_050 4 sigmoid", "ghost_width_050 plain", "parameternet_300m 4 softmax"])
def test_forward_values(case: str) -> None:
    golden, (name, *experts) = GOLDEN["forward"]["cases"][case], case.split()
    plain = experts == ["plain"]
    dynamic = None if plain else {"num_experts": int(experts[0]), "routing": experts[1], "where": "backbone"}
    network = (
        build_classifier("dyn_n", 10, backbone=NAMES[name] + ("_plain" if plain else ""), dynamic=dynamic).eval().network
    )
    weights = {key: golden_weight(network, key, value).float() for key, value in network.state_dict().items()}
    network.load_state_dict(weights)
    network.double()
    x = (hashed("input", [2, 3, 64, 96], np.float64) + 0.5).float().double()
    with torch.no_grad():
        logits = torch.tensor(golden["logits"], dtype=torch.float64)
        torch.testing.assert_close(network(x), logits, rtol=0, atol=1e-9 * logits.abs().mean().item())
        maps = GhostTrunk(network, [4, 8, 16, 32]).eval()(x)
    for got, expected in zip(maps, golden["taps"].values(), strict=True):
        assert list(got.shape) == expected["shape"]
        indices, values = zip(*expected["samples"])
        sample, values = got.flatten()[list(indices)], torch.tensor(values, dtype=torch.float64)
        torch.testing.assert_close(sample, values, rtol=0, atol=1e-9 * expected["mean_abs"])


@pytest.mark.parametrize("name", ["parameternet_600m", "ghost_width_050"])
def test_trunk_of_a_detector(name: str) -> None:
    golden = GOLDEN["models"][name]["trunk"]
    with torch.device("meta"):
        detector = build_detector("yolo26_n-p2", 2, backbone=NAMES[name])
        plain = build_detector("yolo26_n-p2", 2, backbone=f"{NAMES[name]}_plain")
    assert detector.backbone.trunk.channels == golden["channels"]
    for network, key in ((detector, "4 sigmoid"), (plain, "plain")):
        assert sum(p.numel() for p in network.backbone.trunk.parameters()) == golden[key]["parameters"]
    assert set(dynamic_layers(detector)) == {
        f"backbone.trunk.{name}" for name in GOLDEN["models"][name]["dynamic_layers"] if not name.startswith("blocks.9")
    }
    with torch.device("meta"):
        more = build_detector("dyn_n", 2, backbone=NAMES[name], dynamic={"num_experts": 2, "where": "neck-bottlenecks"})
    assert {layer.num_experts for layer in dynamic_layers(more).values()} == {2}
    assert len(dynamic_layers(more)) > len(dynamic_layers(detector))


def test_official_names() -> None:
    official = {"blocks.0.conv.cond_conv.weight": torch.zeros(1), "conv_stem.routing.bias": torch.ones(1)}
    ours = {"blocks.0.conv.weight": torch.zeros(1), "conv_stem.router.bias": torch.ones(1)}
    assert converted_names(official) == ours
    ours |= {"blocks.0.conv.router.bias": torch.ones(1), "bn1.weight": torch.ones(1)}
    names = ["blocks.0.conv.cond_conv.weight", "conv_stem.routing.bias", "blocks.0.conv.routing.bias", "bn1.weight"]
    assert list(official_names(ours)) == names
    assert converted_names(official_names(ours)) == ours
