"""DynamicConv2d against slow loops and against other libraries."""

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from timm.layers import CondConv2d, Conv2dSame
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detector.dynamic.conv2d import DynamicConv2d
from detector.dynamic.experts import ExpertsConv2d
from detector.dynamic.to_plain import plain_convolution
from detector.network.blocks import ConvNormAct
from tests.detector.dynamic.test_experts import KINDS, layer_of

CASES = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 1, "groups": 4},
    {"kernel_size": 3, "padding": 1, "stride": 2},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "bias": False},
    {"kernel_size": 1},
    {"kernel_size": 1, "bias": False},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 1, "groups": 4},
    {"kernel_size": (1, 3), "padding": (0, 1), "groups": 2},
]


@pytest.mark.parametrize("routing", ["sigmoid", "softmax"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_one_convolution_per_image(case: dict, batch: int, routing: str) -> None:
    torch.manual_seed(0)
    conv = DynamicConv2d(8, 12, num_experts=3, routing=routing, **case).double()
    x = torch.randn(batch, 8, 6, 7, dtype=torch.float64, requires_grad=True)
    plain = nn.Conv2d(8, 12, **case).double()
    expected = []
    for image, weights in zip(x, conv.routing_weights(x)):
        kernel = sum(weight * expert for weight, expert in zip(weights, conv.weight)).view(plain.weight.shape)
        bias = None if conv.bias is None else sum(weight * b for weight, b in zip(weights, conv.bias))
        expected.append(F.conv2d(image[None], kernel, bias, plain.stride, plain.padding, plain.dilation, plain.groups))
    expected = torch.cat(expected)
    got = conv(x)
    assert got.shape == plain(x).shape
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    direction = torch.randn_like(expected)
    inputs = [x, *conv.parameters()]
    for a, b in zip(torch.autograd.grad(got, inputs, direction), torch.autograd.grad(expected, inputs, direction)):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("groups", [1, 4])
def test_equals_timm(groups: int) -> None:
    torch.manual_seed(0)
    ours = DynamicConv2d(8, 12, 3, padding=1, groups=groups, num_experts=3)
    theirs = CondConv2d(8, 12, 3, padding=1, groups=groups, bias=True, num_experts=3)
    theirs.load_state_dict({"weight": ours.weight, "bias": ours.bias})
    x = torch.randn(4, 8, 6, 6)
    torch.testing.assert_close(ours(x), theirs(x, ours.routing_weights(x)), rtol=0, atol=1e-5)


def test_routings() -> None:
    x = torch.randn(5, 8, 4, 4)
    sigmoid, softmax = (DynamicConv2d(8, 8, 3, num_experts=4, routing=r).routing_weights(x) for r in ("sigmoid", "softmax"))
    torch.testing.assert_close(softmax.sum(dim=1), torch.ones(5))
    assert ((sigmoid > 0) & (sigmoid < 1)).all()
    with pytest.raises(ValueError, match="unknown routing 'top1'"):
        DynamicConv2d(8, 8, 3, routing="top1")
    with pytest.raises(ValueError, match="num_experts is 0"):
        DynamicConv2d(8, 8, 3, num_experts=0)


def test_wrong_groups_and_paddings_are_refused() -> None:
    x = torch.randn(2, 8, 5, 5)
    assert DynamicConv2d(8, 8, 3, padding="valid")(x).shape == (2, 8, 3, 3)
    with pytest.raises(ValueError, match="unknown padding 'full'; choose 'same', 'valid' or a number of zeros"):
        DynamicConv2d(8, 8, 3, padding="full")
    for groups in (0, 3):
        with pytest.raises(ValueError, match=f"8 input and 8 output channels must be divisible by groups={groups}"):
            DynamicConv2d(8, 8, 3, groups=groups)


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_a_batch_without_images_changes_nothing(settings: dict) -> None:
    """As in the head of a detector without proposals: gradients are 0, and statistics stay."""
    layer = layer_of(settings).train()
    before = {name: value.clone() for name, value in layer.named_buffers()}
    y = layer(torch.ones(0, 8, 5, 6))
    assert y.shape == (0, 12, 5, 6)
    y.sum().backward()
    assert not any(p.grad is None or p.grad.any() for p in layer.parameters())
    assert all(torch.equal(value, before[name]) for name, value in layer.named_buffers())


@pytest.mark.parametrize("gates", [["input", "filter"], ["input"], ["filter"]], ids=str)
def test_a_graph_of_channel_gates_is_for_any_batch(gates: list[str]) -> None:
    """Whatever the batch of the example is, as in torch.onnx.export."""
    layer = layer_of({"kind": "omni", "gates": gates})
    traced, images = torch.jit.trace(layer, torch.randn(1, 8, 5, 6)), torch.randn(3, 8, 5, 6)
    torch.testing.assert_close(traced(images), layer(images))


def test_gates_that_change_nothing_are_left_out() -> None:
    gates = {"kind": "omni", "gates": ["input", "filter", "position"]}
    assert DynamicConv2d(4, 4, 3, groups=4, **gates).units == {"input": 4, "position": 9}
    assert DynamicConv2d(4, 8, 3, groups=4, **gates).units == {"input": 4, "filter": 8, "position": 9}
    assert DynamicConv2d(4, 4, 1, **gates).units == {"input": 4, "filter": 4}


def test_experts_start_like_plain_convolutions_and_differ() -> None:
    torch.manual_seed(0)
    conv, plain = DynamicConv2d(16, 32, 3, num_experts=4), nn.Conv2d(16, 32, 3)
    for expert in conv.weight:
        assert expert.std().item() == pytest.approx(plain.weight.std().item(), rel=0.05)
        assert expert.abs().max() <= (16 * 9) ** -0.5
    assert not torch.equal(conv.weight[0], conv.weight[1])


def test_a_bottleneck_starts_with_gates_of_one_and_unequal_experts() -> None:
    torch.manual_seed(0)
    router = DynamicConv2d(256, 8, 3, kind="omni", num_experts=256).router
    for layer in (router.fc, router.expert):  # by 16 units: fan-out of the first layer, fan-in of the last
        assert layer.weight.std().item() == pytest.approx((2 / 16) ** 0.5, rel=0.05)
    assert not any(p.any() for head in (router.input, router.filter) for p in head.parameters())
    assert not router.expert.bias.any()


def test_layout_and_precision_are_kept() -> None:
    conv = DynamicConv2d(8, 8, 3, padding=1)
    x = torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    assert conv(x).is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
        assert conv.routing_weights(x.bfloat16()).dtype == torch.float32
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), conv(x), rtol=0, atol=0.05)


@pytest.mark.parametrize("routing", ["sigmoid", "softmax"])
def test_kernels_are_mixed_in_float32_under_autocast(routing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The convolution itself is computed in bfloat16."""
    torch.manual_seed(0)
    layer, x = DynamicConv2d(6, 4, 3, padding=1, routing=routing), torch.randn(2, 6, 5, 5)
    mixed: list[torch.Tensor] = []
    mix = layer.mix_kernels, layer.mix_biases
    monkeypatch.setattr(layer, "mix_kernels", lambda weights: mixed.append(mix[0](weights)) or mixed[-1])
    monkeypatch.setattr(layer, "mix_biases", lambda weights: mixed.append(mix[1](weights)) or mixed[-1])
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        routing_weights = layer.routing_weights(x)
    assert torch.equal(routing_weights, layer.routing_weights(x))
    kernels, biases, kernels_under_autocast, biases_under_autocast = mixed
    assert torch.equal(kernels, kernels_under_autocast)
    assert torch.equal(biases, biases_under_autocast)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("bias", [True, False])
def test_folding_the_normalization_changes_nothing(bias: bool) -> None:
    torch.manual_seed(0)
    block = ConvNormAct(8, 12, 3).double()
    block.conv = DynamicConv2d(8, 12, 3, padding=1, bias=bias, routing="sigmoid").double()
    block.norm.weight.data.uniform_(0.5, 2)
    block.norm.bias.data.uniform_(-1, 1)
    for _ in range(3):
        block(torch.randn(4, 8, 6, 6, dtype=torch.float64))
    block.eval()
    x = torch.randn(3, 8, 6, 6, dtype=torch.float64)
    expected = block(x)
    block.fuse()
    block.fuse()  # a second call does nothing
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["mixture", "omni", "residual"])
def test_a_layer_in_channels_last_can_be_folded_and_upcycled(kind: str) -> None:
    torch.manual_seed(0)
    layer = DynamicConv2d(8, 12, 3, padding=1, kind=kind).eval().to(memory_format=torch.channels_last)
    x, scale, shift = torch.randn(3, 8, 6, 7), torch.rand(12) + 0.5, torch.randn(12)
    expected = layer(x) * scale[:, None, None] + shift[:, None, None]
    layer.fold(scale, shift)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-5)
    plain = nn.Conv2d(8, 12, 3, padding=1)
    layer.upcycle(plain.weight, plain.bias)
    torch.testing.assert_close(layer(x), plain(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_layout_changes_nothing(case: dict, layout: torch.memory_format) -> None:
    """Outputs and gradients are equal in both layouts, and the output has the layout of the input."""
    torch.manual_seed(0)
    conv = DynamicConv2d(8, 12, num_experts=3, **case)
    x = torch.randn(3, 8, 6, 7)
    expected = torch.cat([conv(image[None]) for image in x])  # batch 1: the plain convolution
    direction = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, list(conv.parameters()), direction)
    got = conv(x.contiguous(memory_format=layout))
    assert got.is_contiguous(memory_format=layout)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    for a, b in zip(torch.autograd.grad(got, list(conv.parameters()), direction), gradients):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_some_channels_keep_the_layout_too(case: dict, batch: int) -> None:
    """CSP stages pass on half of the channels, which are neither contiguous nor channels_last."""
    torch.manual_seed(0)
    conv = DynamicConv2d(8, 12, num_experts=3, **case)
    half = torch.randn(batch, 16, 6, 7).contiguous(memory_format=torch.channels_last).chunk(2, dim=1)[1]
    got = conv(half)
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got, conv(half.contiguous()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16, 3, 8, 8), (8, 32, 3, 5, 9), (32, 8, 1, 6, 6), (24, 40, 5, 7, 3)])
@pytest.mark.parametrize("num_experts", [1, 4, 6])
@pytest.mark.parametrize("batch", [1, 3])
def test_costs_are_those_of_the_paper(shape: tuple[int, ...], num_experts: int, batch: int) -> None:
    """Parameters and multiply-adds equal the formulas of ParameterNet, section 3.2, exactly, without biases."""
    c_in, c_out, k, height, width = shape
    plain = nn.Conv2d(c_in, c_out, k, padding=k // 2, bias=False)
    conv = DynamicConv2d(c_in, c_out, k, padding=k // 2, bias=False, num_experts=num_experts, routing="softmax")
    x = torch.randn(batch, c_in, height, width)

    def parameters(module: nn.Module) -> int:
        return sum(p.numel() for name, p in module.named_parameters() if not name.endswith("bias"))

    def multiply_adds(module: nn.Module) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(x)
        return counter.get_total_flops() // 2

    area = Fraction(height * width)
    expected = Fraction(c_in, c_out * k**2) + Fraction(num_experts, c_out * k**2) + num_experts
    assert Fraction(parameters(conv), parameters(plain)) == expected
    expected = (Fraction(c_in, c_out * k**2) + Fraction(num_experts, c_out * k**2) + num_experts) / area + 1
    assert Fraction(multiply_adds(conv), multiply_adds(plain)) == expected


@pytest.mark.parametrize("routing", ["sigmoid", "softmax"])
@pytest.mark.parametrize("num_experts", [1, 3, 4])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_upcycled_layer_computes_the_same(case: dict, num_experts: int, routing: str) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 12, **case)
    conv = DynamicConv2d.like(plain, num_experts, routing)
    conv.fold(torch.ones(12), torch.ones(12))  # upcycling must replace it
    conv.upcycle(plain.weight, plain.bias)
    x = torch.randn(3, 8, 6, 7)
    y = conv(x)
    torch.testing.assert_close(y, plain(x), rtol=0, atol=1e-5)
    (y * torch.randn_like(y)).sum().backward()
    if num_experts > 1:  # any two experts differ in their values or in their gradients
        assert torch.pdist(torch.cat((conv.weight, conv.weight.grad), dim=1)).min() > 1e-4


def test_upcycling_refuses_another_shape() -> None:
    conv = DynamicConv2d(8, 12, 3)
    with pytest.raises(ValueError, match=r"kernel \(12, 8, 1, 1\) with bias .* expected \(12, 8, 3, 3\) with bias"):
        conv.upcycle(torch.zeros(12, 8, 1, 1), torch.zeros(12))
    with pytest.raises(ValueError, match="without bias"):
        conv.upcycle(torch.zeros(12, 8, 3, 3))


def test_device_precision_mode_and_freezing_are_those_of_the_convolution() -> None:
    plain = nn.Conv2d(8, 12, 3, padding="same", dilation=2, bias=False).half().eval().requires_grad_(False)
    conv = DynamicConv2d.like(plain)
    assert (conv.padding, conv.weight.dtype, conv.bias, conv.training) == ((2, 2), torch.float16, None, False)
    assert not any(p.requires_grad for p in conv.parameters())
    assert DynamicConv2d.like(nn.Conv2d(8, 12, 3, padding="valid", device="meta")).weight.is_meta


class OtherConv(nn.Conv2d):
    """A subclass, whose forward may differ."""


@pytest.mark.parametrize(
    "conv", [nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), OtherConv(3, 8, 3)], ids=["reflect", "subclass"]
)
def test_other_convolutions_are_refused(conv: nn.Conv2d) -> None:
    with pytest.raises(ValueError, match=r"cannot be made dynamic: expected a plain nn\.Conv2d"):
        DynamicConv2d.like(conv)


@pytest.mark.parametrize("size", [(8, 12), (7, 9), (5, 4)])
@pytest.mark.parametrize(
    "conv",
    [Conv2dSame(4, 8, 3, 2), Conv2dSame(4, 8, 5, 2, groups=4), Conv2dSame(4, 8, 1, 2), nn.Conv2d(4, 8, 2, padding="same")],
    ids=["3x3", "5x5 groups", "1x1", "even kernel"],
)
def test_same_padding(conv: nn.Conv2d, size: tuple[int, int]) -> None:
    """Upcycled, exported and collapsed layers pad as timm's Conv2dSame does."""
    layer, x = DynamicConv2d.like(conv, num_experts=3), torch.randn(2, 4, *size)
    layer.upcycle(conv.weight, conv.bias)
    expected = conv(x)
    for other in (layer, ExpertsConv2d(layer), plain_convolution(layer, torch.full((3,), 0.5))):
        torch.testing.assert_close(other(x), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(layer(x[:1]), expected[:1], rtol=0, atol=1e-6)
    again = plain_convolution(layer, torch.full((3,), 0.5))
    assert DynamicConv2d.like(again).padding == "same"
