"""The trunk of a ghost network (GhostNet v1 to v3, RepGhost, ParameterNet)."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class GhostTrunk(nn.Module):
    """The stem and the groups of blocks of a ghost network of timm, up to its last stride; weights keep their names.

    The map of a stride is that of its last group. (timm's ``features_only`` returns that of the first group, and drops the
    others: more than half of the weights.)

    Shape: (B, 3, H, W), normalized -> list of (B, channels[i], H / strides[i], W / strides[i]), finest first.
    """

    def __init__(self, network: Any, strides: Sequence[int]) -> None:
        super().__init__()
        levels = ghost_levels(network)
        self.taps = [levels[stride][0] for stride in strides]
        self.channels = [levels[stride][1] for stride in strides]
        self.conv_stem, self.bn1, self.act1 = network.conv_stem, network.bn1, network.act1
        self.blocks = network.blocks[: max(self.taps) + 1]

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.act1(self.bn1(self.conv_stem(x)))
        maps = {}
        for group, blocks in enumerate(self.blocks):
            maps[group] = x = blocks(x)
        return [maps[tap] for tap in self.taps]


def ghost_levels(network: Any) -> dict[int, tuple[int, int]]:
    """Return, for each stride of a ghost network, its last group and the channels of that group's map."""
    levels, stride = {}, 2  # that of the stem
    for group, blocks in enumerate(network.blocks):
        if hasattr(blocks[-1], "ghost2"):  # not so in the last group, a 1x1 convolution that belongs to the classifier
            stride *= math.prod(block.stride for block in blocks)
            levels[stride] = (group, blocks[-1].ghost2.out_chs)
    return levels
