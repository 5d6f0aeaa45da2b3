"""The neck: combines the levels of the backbone, first from coarse to fine, then back (PANet, arXiv:1803.01534)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.network.blocks import ConvNormAct, CSPStage
from detector.network.config import DetectorConfig


class Neck(nn.Module):
    """Path aggregation network.

    Shape: list of (B, in_channels[i], H_i, W_i), finest level first -> list of (B, channels[i], H_i, W_i).
    """

    def __init__(self, in_channels: list[int], config: DetectorConfig) -> None:
        super().__init__()
        levels = list(range(config.min_level, config.max_level + 1))
        nominal = {2: 128, 3: 256, 4: 512, 5: 1024 if config.max_level == 5 else 768, 6: 1024}
        self.channels = [config.channels(nominal[level]) for level in levels]
        num_blocks = config.repeats(2)
        coarsest = len(levels) - 1
        # Channels of each level's map after the first pass; the coarsest is still that of the backbone.
        after_top_down = [*self.channels[:-1], in_channels[-1]]
        self.top_down = nn.ModuleList(  # [i] computes level i, finest first
            CSPStage(after_top_down[i + 1] + in_channels[i], self.channels[i], num_blocks) for i in range(coarsest)
        )
        self.down = nn.ModuleList(ConvNormAct(c, c, 3, stride=2) for c in self.channels[:-1])
        self.bottom_up = nn.ModuleList(  # [i] computes level i + 1
            CSPStage(
                fine + after_top_down[i + 1],
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
