"""DynamicConv2d against slow and foreign ways of computing the same."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers import CondConv2d
from torch import nn

from detector.blocks.conv import ConvNormAct
from detector.blocks.dynamic import DynamicConv2d, make_dynamic
from detector.config import DynamicConfig

CASES = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 1, "groups": 4},
    {"kernel_size": 3, "padding": 1, "stride": 2},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "bias": False},
    {"kernel_size": 1},
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
    for image, shares in zip(x, conv.mixture(x)):
        kernel = sum(share * flat for share, flat in zip(shares, conv.weight)).view(plain.weight.shape)
        bias = None if conv.bias is None else sum(share * b for share, b in zip(shares, conv.bias))
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
    torch.testing.assert_close(ours(x), theirs(x, ours.mixture(x)), rtol=0, atol=1e-5)


def test_routings() -> None:
    x = torch.randn(5, 8, 4, 4)
    sigmoid, softmax = (DynamicConv2d(8, 8, 3, num_experts=4, routing=r).mixture(x) for r in ("sigmoid", "softmax"))
    torch.testing.assert_close(softmax.sum(dim=1), torch.ones(5))
    assert ((sigmoid > 0) & (sigmoid < 1)).all()
    with pytest.raises(ValueError, match="unknown routing 'top1'"):
        DynamicConv2d(8, 8, 3, routing="top1")
    with pytest.raises(ValueError, match="num_experts is 0"):
        DynamicConv2d(8, 8, 3, num_experts=0)


def test_experts_start_like_plain_convolutions_and_differ() -> None:
    torch.manual_seed(0)
    conv, plain = DynamicConv2d(16, 32, 3, num_experts=4), nn.Conv2d(16, 32, 3)
    for expert in conv.weight:
        assert expert.std().item() == pytest.approx(plain.weight.std().item(), rel=0.05)
        assert expert.abs().max() <= (16 * 9) ** -0.5
    assert not torch.equal(conv.weight[0], conv.weight[1])


def test_layout_and_precision_are_kept() -> None:
    conv = DynamicConv2d(8, 8, 3, padding=1)
    x = torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    assert conv(x).is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
        assert conv.mixture(x.bfloat16()).dtype == torch.float32
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), conv(x), rtol=0, atol=0.05)


@pytest.mark.parametrize("bias", [True, False])
def test_folding_the_normalisation_changes_nothing(bias: bool) -> None:
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
    block.fuse()  # the second time does nothing
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-10)


def test_make_dynamic_exchanges_what_the_pattern_names() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8))
    shape = net(torch.zeros(2, 3, 16, 16)).shape
    assert make_dynamic(net, DynamicConfig(place=r"\d", num_experts=2)) == ["0", "2"]
    assert isinstance(net[0], DynamicConv2d)
    assert net[0].bias is None
    assert net[2].bias.shape == (2, 8)
    assert net(torch.zeros(2, 3, 16, 16)).shape == shape
    with pytest.raises(ValueError, match="'nothing' names no convolution of Sequential"):
        make_dynamic(net, DynamicConfig(place="nothing"))
