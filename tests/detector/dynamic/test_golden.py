"""Dynamic layers against golden numbers, and against slow loops over images, channels and taps."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detector.dynamic import DynamicConv2d
from tests.golden_values import hashed, load

GOLDEN = load("dynamic_layers")
CASES = {case["config"]["name"]: case for case in GOLDEN["cases"]}
EVALUATED = [name for name, case in CASES.items() if "training" not in case["config"]]
STATISTICS = {"running_mean": (0.0, 0.2), "running_var": (1.0, 0.4)}


def double(name: str, shape: list[int]) -> Tensor:
    return hashed(name, shape).double()


def values(name: str, key: str, shape: list[int]) -> Tensor:
    """Return the parameter or buffer ``key`` of the golden case ``name``: an offset, plus a factor times hashed values."""
    fan_in = torch.Size(shape[2:] if len(shape) == 5 else shape[1:]).numel()
    factor = 2 * (6 / fan_in) ** 0.5  # of kernels and other matrices
    offset, last = 0.0, key.rpartition(".")[2]
    if last in STATISTICS:
        offset, factor = STATISTICS[last]
    elif key == "router.norm.weight":
        offset, factor = 1.0, 0.2
    elif last == "bias":
        factor = 0.2 if key in ("bias", "router.fc.bias", "router.norm.bias") else 1.0
    elif key == "delta":
        factor /= 2
    return offset + factor * double(f"{name}.{key}", shape)


def golden_layer(case: dict[str, Any]) -> DynamicConv2d:
    """Build the layer of a golden case, with its parameters and buffers."""
    config = case["config"]
    k, gates = config["k"], config["gates"]
    shape = (config["c_in"], config["c_out"], k, config["stride"], k // 2, 1, config["groups"], config.get("bias", True))
    routing = config.get("routing", "softmax")
    settings = {"kind": config["kind"], "gates": gates, "router_norm": config["norm"]}
    layer = DynamicConv2d(*shape, config["experts"], routing, **settings).double()
    state_dict = layer.state_dict()
    shapes = case["parameter_shapes"] | case["buffers"]
    assert {key for key in state_dict if not key.endswith("num_batches_tracked")} == shapes.keys()
    golden = {key: values(config["name"], key, shape).reshape(state_dict[key].shape) for key, shape in shapes.items()}
    layer.load_state_dict(state_dict | golden)
    layer.router.temperature = layer.router.gate_temperature = config.get("temperature", 1.0)
    return layer.train(config.get("training", False))


def golden_input(config: dict[str, Any]) -> Tensor:
    name, images, channels = config["name"], config["batch"], config["c_in"]
    x = 2 * double(f"{name}.input", [images, channels, *config["size"]])
    return x + 2 * double(f"{name}.offset", [images, channels, 1, 1])


def assert_golden(value: Tensor, golden: dict[str, Any] | list, tolerance: float = 1e-12) -> None:
    """Compare samples, relative to the mean absolute value of the golden tensor, or all values."""
    value = value.detach()
    if isinstance(golden, list):
        torch.testing.assert_close(value, torch.tensor(golden, dtype=torch.float64), rtol=0, atol=tolerance)
        return
    assert value.numel() == torch.Size(golden["shape"]).numel()
    expected = torch.tensor(golden["value"], dtype=torch.float64)
    torch.testing.assert_close(value.flatten()[golden["index"]], expected, rtol=0, atol=tolerance * golden["abs_mean"])


@pytest.mark.parametrize("name", CASES)
def test_output_and_gradients(name: str) -> None:
    case = CASES[name]
    layer, x = golden_layer(case), golden_input(case["config"]).requires_grad_()
    assert_golden(x, case["input"])
    y = layer(x)
    assert_golden(y, case["output"])
    (y * double(f"{name}.cotangent", list(y.shape))).sum().backward()
    gradients = {key: p.grad for key, p in layer.named_parameters()} | {"input": x.grad}
    assert gradients.keys() == case["gradient"].keys()
    for key, gradient in gradients.items():
        assert_golden(gradient, case["gradient"][key])
    for key, golden in case.get("buffers_after", {}).items():  # the running statistics after a step
        assert_golden(layer.state_dict()[key], golden)


@pytest.mark.parametrize("name", EVALUATED)
def test_gates_kernels_and_costs(name: str) -> None:
    case = CASES[name]
    layer, x = golden_layer(case), golden_input(case["config"])
    assert list(map(list, layer.units.items())) == case["heads"]
    routing_weights = layer.routing_weights(x)
    for gate, weights in layer.gate_weights(routing_weights).items():
        assert_golden(weights, case["gates"][gate])
    kernels = layer.full_kernels(routing_weights)
    assert_golden(kernels.mean(dim=0), case["mean_kernel"])
    variation = (kernels - kernels.mean(dim=0)).square().sum() / kernels.square().sum()
    assert variation.item() == pytest.approx(case["kernel_variation"], abs=1e-12)
    assert sum(p.numel() for p in layer.parameters()) == case["parameters"]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(x[:1])
    assert counter.get_total_flops() // 2 == case["macs"]


@pytest.mark.parametrize("name", EVALUATED)
def test_folded_norms_change_nothing_else(name: str) -> None:
    """A scale and a shift behind the layer, and the norms of the router."""
    case = CASES[name]
    layer, x = golden_layer(case), golden_input(case["config"])
    channels = [layer.out_channels]
    scale, shift = 1 + 0.2 * double(f"{name}.fold.scale", channels), 0.2 * double(f"{name}.fold.shift", channels)
    expected = layer(x) * scale[:, None, None] + shift[:, None, None]
    layer.fold(scale, shift)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)
    layer.router.fuse()
    assert not [m for m in layer.router.modules() if isinstance(m, nn.BatchNorm1d)]
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", GOLDEN["mixture"], ids=lambda case: case["name"])
def test_mixtures(case: dict[str, Any]) -> None:
    name, experts, groups = case["name"], case["experts"], case["groups"]
    layer = DynamicConv2d(8, 12, 3, 1, 1, groups=groups, num_experts=experts, routing=case["routing"]).double()
    shapes = {"weight": [experts, 12, 8 // groups, 3, 3], "bias": [experts, 12]}
    shapes |= {f"router.{key}": shape for key, shape in case["router"].items()}
    state_dict = layer.state_dict()
    assert state_dict.keys() == shapes.keys()
    golden = {key: values(name, key, shape).reshape(state_dict[key].shape) for key, shape in shapes.items()}
    layer.load_state_dict(golden)
    x = golden_input({"name": name, "batch": 3, "c_in": 8, "size": [7, 6]})
    assert_golden(layer.routing_weights(x), case["shares"])
    assert_golden(layer(x), case["output"])
    assert sum(p.numel() for p in layer.parameters()) == case["parameters"]


def slow(layer: DynamicConv2d, x: Tensor) -> Tensor:
    """Compute ``layer`` by its definition: a loop over images, output channels and taps. ``x`` is (B, I, H, W)."""
    gates = layer.gate_weights(layer.routing_weights(x))
    height, width = ((side - 1) // layer.stride[0] + 1 for side in x.shape[2:])
    padded = F.pad(x, 4 * [layer.padding[0]])
    y = torch.zeros(len(x), layer.out_channels, height, width, dtype=x.dtype)
    inputs, outputs = (channels // layer.groups for channels in (layer.in_channels, layer.out_channels))
    k, stride = layer.kernel_size[0], layer.stride[0]
    for b in range(len(x)):
        if layer.kind == "residual":
            kernel = layer.weight + sum(a * d.view(layer.kernel_shape) for a, d in zip(gates["expert"][b], layer.delta))
        elif "expert" in gates:
            kernel = sum(a * w.view(layer.kernel_shape) for a, w in zip(gates["expert"][b], layer.weight))
        else:
            kernel = layer.weight
        for o in range(layer.out_channels):
            for i in range(inputs):
                c = o // outputs * inputs + i
                for tap in range(k * k):
                    factor = kernel[o, i, tap // k, tap % k]
                    factor = factor * gates["position"][b, tap] if "position" in gates else factor
                    factor = factor * gates["input"][b, c] if "input" in gates else factor
                    rows, columns = slice(tap // k, tap // k + stride * height, stride), slice(tap % k, None, stride)
                    y[b, o] += factor * padded[b, c, rows, columns][:height, :width]
            y[b, o] *= gates["filter"][b, o] if "filter" in gates else 1
            if layer.bias is not None:
                y[b, o] += gates["expert"][b] @ layer.bias[:, o] if layer.kind == "mixture" else layer.bias[o]
    return y


ALL = ["input", "filter", "position"]
KINDS = {
    "mixture": {"num_experts": 3},
    "mixture bottleneck": {"num_experts": 3, "router": "bottleneck", "routing": "softmax"},
    "mixture bottleneck sigmoid": {"num_experts": 3, "router": "bottleneck"},
    "omni": {"kind": "omni", "router_norm": "layer"},
    "omni all": {"kind": "omni", "num_experts": 3, "gates": ALL, "router_norm": "none"},
    "residual": {"kind": "residual", "num_experts": 3},
    "residual all": {"kind": "residual", "num_experts": 2, "gates": ALL, "routing": "sigmoid"},
}


@pytest.mark.parametrize("shape", [{"groups": 1}, {"groups": 2, "stride": 2, "bias": False}], ids=str)
@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_equals_a_slow_loop(settings: dict[str, Any], shape: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = DynamicConv2d(4, 2, 3, padding=1, **shape, **settings).double()
    for parameter in layer.parameters():  # gates and changes of kernels start without effect
        nn.init.normal_(parameter)
    x = torch.randn(3, 4, 5, 4, dtype=torch.float64)
    layer.routing_weights(x)  # running statistics
    layer.eval()
    torch.testing.assert_close(layer(x), slow(layer, x), rtol=0, atol=1e-12)
    for image in x:  # a batch of one has its own way
        torch.testing.assert_close(layer(image[None]), slow(layer, image[None]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_gradients_are_those_of_finite_differences(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = DynamicConv2d(2, 2, 3, padding=1, **settings).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    names, parameters = zip(*layer.named_parameters())
    x = torch.randn(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)

    def output(x: Tensor, *tensors: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, tensors)), x)

    assert torch.autograd.gradcheck(output, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_a_converted_layer_computes_the_same_and_learns(settings: dict[str, Any], bias: bool) -> None:
    """Also in training, in mixed precision and in channels_last. Gates or experts, and then routers, get gradients."""
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=bias)
    layer = DynamicConv2d.like(plain, **settings)
    layer.upcycle(plain.weight, plain.bias)
    x = torch.randn(3, 4, 5, 6).contiguous(memory_format=torch.channels_last)
    y = layer(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, plain(x), rtol=0, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.routing_weights(x.bfloat16()), layer.routing_weights(x.bfloat16().float()))
        torch.testing.assert_close(layer(x), plain(x), rtol=0, atol=0.02)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    target = torch.randn_like(y)
    for _ in range(2):
        optimizer.zero_grad()
        (layer(x) * target).sum().backward()
        optimizer.step()
    without = [name for name, p in layer.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in without if not name.endswith("fc.bias")]


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_a_trained_layer_takes_over_plain_weights(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain, layer = nn.Conv2d(4, 6, 3).double(), DynamicConv2d(4, 6, 3, **settings).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    layer.upcycle(plain.weight, plain.bias)
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x), plain(x))
