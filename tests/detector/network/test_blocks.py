"""Folding of normalizations into what is before them, also into blocks of the user."""

import pytest
import torch
from torch import Tensor, nn

from detector.dynamic import DynamicConv2d
from detector.network.blocks import ConvNormAct
from detector.network.model import to_channels_last
from tests.detector.network.replace.blocks import Fresh, SqueezeExcitation


class Doubled(nn.Conv2d):
    """A convolution with another forward."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Foldable(Doubled):
    """The same, which can take in a normalization; a module named ``fold`` would not count."""

    def fold(self, scale: Tensor, shift: Tensor) -> None:
        self.weight.mul_(scale.view(-1, 1, 1, 1))
        self.bias = nn.Parameter(shift / 2)


class WithLayerNamedFold(Doubled):
    def __init__(self, *args: int, **settings: bool) -> None:
        super().__init__(*args, **settings)
        self.fold = nn.Identity()


@pytest.mark.parametrize(
    ("conv", "norm", "is_folded"),
    [
        (nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), True),
        (nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4, affine=False), True),
        (DynamicConv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4, affine=False), True),
        (Foldable(3, 4, 1, bias=False), nn.BatchNorm2d(4), True),
        (Doubled(3, 4, 1, bias=False), nn.BatchNorm2d(4), False),
        (WithLayerNamedFold(3, 4, 1, bias=False), nn.BatchNorm2d(4), False),
        (SqueezeExcitation(nn.Conv2d(3, 4, 1, bias=False)), nn.BatchNorm2d(4), False),
        (nn.Conv2d(3, 4, 1, bias=False), nn.GroupNorm(2, 4), False),
        (nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4, track_running_stats=False), False),
        (nn.Conv2d(3, 4, 1, bias=False), nn.Identity(), False),
    ],
)
def test_a_normalization_is_folded_only_where_the_output_stays(conv: nn.Module, norm: nn.Module, is_folded: bool) -> None:
    block = ConvNormAct(3, 4)
    block.conv, block.norm = conv, norm
    with torch.no_grad():
        for tensor in (*norm.parameters(), *norm.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 2)
    block.eval()
    x = torch.randn(2, 3, 5, 5)
    before = block(x)
    block.fuse()
    torch.testing.assert_close(block(x), before)
    assert isinstance(block.norm, nn.Identity) == (is_folded or isinstance(norm, nn.Identity))
    block.fuse()
    torch.testing.assert_close(block(x), before)


def test_channels_last_leaves_tensors_of_other_dimensions_as_they_are() -> None:
    block = to_channels_last(Fresh(4, 8, 1, 3))
    assert block.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert block.experts.ndim == 5
    torch.testing.assert_close(block(torch.ones(1, 4, 3, 3)).shape, torch.Size([1, 8, 3, 3]))
