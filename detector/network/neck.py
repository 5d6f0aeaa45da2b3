"""The neck: mixes the backbone's levels, first from coarse to fine, then back (PANet, arXiv:1803.01534)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.network.blocks import ConvNormAct, CSPStage
from detector.network.config import DetectorConfig


class Neck(nn.Module):
    """Path aggregation. List of (B, C_i, H_i, W_i), finest first -> the same with ``channels[i]`` channels.

    ``in_channels`` are the backbone's, finest level first.
    """

    def __init__(self, in_channels: list[int], config: DetectorConfig) -> None:
        super().__init__()
        levels = list(range(config.min_level, config.max_level + 1))
        nominal = {2: 128, 3: 256, 4: 512, 5: 1024 if config.max_level == 5 else 768, 6: 1024}
        self.channels = [config.channels(nominal[level]) for level in levels]
        num_blocks = config.repeats(2)
        coarsest = len(levels) - 1
        # what arrives from below at each level on the way down to the finest: the backbone's top, then our own maps
        arriving = [*self.channels[:-1], in_channels[-1]]
        self.top_down = nn.ModuleList(  # [i] makes level i, finest first
            CSPStage(arriving[i + 1] + in_channels[i], self.channels[i], num_blocks) for i in range(coarsest)
        )
        self.down = nn.ModuleList(ConvNormAct(c, c, 3, stride=2) for c in self.channels[:-1])
        self.bottom_up = nn.ModuleList(  # [i] makes level i + 1
            CSPStage(
                fine + arriving[i + 1],
                coarse,
                num_blocks=1 if i + 1 == coarsest else num_blocks,
                inner="attention" if i + 1 == coarsest else "c3k",
            )
            for i, (fine, coarse) in enumerate(pairwise(self.channels))
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        maps = list(features)
        for i in reversed(range(len(maps) - 1)):
            up = F.interpolate(maps[i + 1], scale_factor=2.0, mode="nearest")
            maps[i] = self.top_down[i](torch.cat((up, maps[i]), dim=1))
        for i in range(len(maps) - 1):
            maps[i + 1] = self.bottom_up[i](torch.cat((self.down[i](maps[i]), maps[i + 1]), dim=1))
        return maps
