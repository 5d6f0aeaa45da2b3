"""Mean and variation of kernels against golden numbers, and against one kernel built for each image."""

import math

import pytest
import torch
from torch import Tensor

from detector.dynamic import kernels as kernels_module
from detector.dynamic.conv2d import DynamicConv2d
from detector.dynamic.kernels import KernelStatistics
from tests.golden_values import hashed, load

GOLDEN = load("dynamic_diagnostics")["kernels"]


def golden_layer(config: dict) -> tuple[DynamicConv2d, Tensor]:
    """Return the layer of a golden case in float64, in evaluation, and its input."""
    router = {"kind": config["kind"], "gates": config["gates"], "router_norm": config["norm"]}
    router["gates"] = [gate for gate in config["gates"] if gate != "expert"]
    routing = config.get("routing", "softmax")
    shape = (config["c_in"], config["c_out"], config["k"], config["stride"], config["k"] // 2, 1, config["groups"])
    layer = DynamicConv2d(*shape, config.get("bias", True), config["experts"], routing, **router).double().eval()
    layer.router.temperature = layer.router.gate_temperature = config.get("temperature", 1.0)
    fan, hidden = config["c_in"] // config["groups"] * config["k"] ** 2, layer.router.fc.out_features
    scales = {"weight": 2 * (6 / fan) ** 0.5, "delta": (6 / fan) ** 0.5, "bias": 0.2}
    scales |= {"router.fc.weight": 2 * (6 / config["c_in"]) ** 0.5, "router.fc.bias": 0.2}
    for key, value in layer.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        u = hashed(f"{config['name']}.{key}", list(value.shape)).double()
        head = 2 * (6 / hidden) ** 0.5 if key.endswith("weight") else 1.0
        scale = 0.4 if key.endswith("running_var") else 0.2 if "norm." in key else scales.get(key, head)
        value.copy_(scale * u + (1.0 if key.endswith(("norm.weight", "running_var")) else 0.0))
    x = 2 * hashed(f"{config['name']}.input", [config["batch"], config["c_in"], *config["size"]]).double()
    return layer, x + 2 * hashed(f"{config['name']}.offset", [config["batch"], config["c_in"], 1, 1]).double()


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["config"]["name"])
def test_mean_and_variation_of_kernels_equal_golden_numbers_and_a_loop(case: dict) -> None:
    layer, x = golden_layer(case["config"])
    statistics = KernelStatistics(layer)
    routing_weights = layer.routing_weights(x)
    statistics.add(routing_weights[:2])
    statistics.add(routing_weights[2:])
    assert statistics.num_images == len(x)
    torch.testing.assert_close(statistics.mean_routing, routing_weights.mean(dim=0).detach())
    got = statistics.mean_kernel().flatten()[case["mean_kernel"]["index"]]
    assert got.tolist() == pytest.approx(case["mean_kernel"]["value"], abs=1e-10)
    assert statistics.variation() == pytest.approx(case["kernel_variation"], rel=1e-9)
    each = [layer.full_kernels(row[None])[0].flatten().tolist() for row in routing_weights]
    mean = [sum(values) / len(each) for values in zip(*each)]
    between = sum(math.dist(kernel, mean) ** 2 for kernel in each)
    assert statistics.variation() == pytest.approx(between / sum(math.hypot(*kernel) ** 2 for kernel in each), rel=1e-9)


@pytest.mark.parametrize("kind", ["mixture", "omni", "residual"])
def test_sums_of_parts_add_up_and_do_not_grow(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of several batches and processes, and of chunks of images; in float32 small variations are seen, too."""
    torch.manual_seed(0)
    layer = DynamicConv2d(4, 6, 3, kind=kind)
    routing_weights = 1 + 1e-3 * torch.randn(20, sum(layer.units.values()))
    if layer.delta is not None:
        layer.delta.data.normal_()
    parts = [KernelStatistics(layer) for _ in range(3)]
    size = parts[0].sums.shape
    monkeypatch.setattr(kernels_module, "CHUNK", 6 * 4 * 9 * 3)
    for part, rows in zip(parts, routing_weights.split(8)):
        part.add(rows)
    assert all(part.sums.shape == size for part in parts)
    whole = KernelStatistics(layer)
    whole.sums = sum(part.sums for part in parts)
    each = layer.double().full_kernels(routing_weights.double()).flatten(1)
    expected = float((each - each.mean(dim=0)).square().sum() / each.square().sum())
    assert whole.variation() == pytest.approx(expected, rel=1e-4)
    assert 1e-9 < expected < 1e-3
    torch.testing.assert_close(whole.mean_kernel().flatten().double(), each.mean(dim=0), rtol=1e-5, atol=1e-6)
    assert math.isnan(KernelStatistics(layer).variation())


@pytest.mark.parametrize("kind", ["mixture", "omni", "residual"])
def test_the_weights_at_the_first_images_count(kind: str) -> None:
    """Averaged weights are in place during a validation only, and their statistics are read after it."""
    torch.manual_seed(0)
    layer = DynamicConv2d(4, 6, 3, kind=kind)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    statistics = KernelStatistics(layer)
    statistics.add(torch.randn(5, sum(layer.units.values())))
    before = statistics.variation()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=3.0)
    assert statistics.variation() == before > 0
