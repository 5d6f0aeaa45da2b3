"""Cross-stage-partial blocks: part of the channels goes through inner blocks, part around them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.blocks.attention import PSABlock
from detector.blocks.conv import ConvNormAct


class Bottleneck(nn.Module):
    """Two 3x3 convolutions; adds its input where the channels allow. (B, in_channels, H, W) -> (B, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, expansion: float = 0.5) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        self.conv1 = ConvNormAct(in_channels, hidden, 3)
        self.conv2 = ConvNormAct(hidden, out_channels, 3)
        self.residual = in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return x + y if self.residual else y


class C3k(nn.Module):
    """Two parallel 1x1 branches, one followed by bottlenecks, merged. (B, channels, H, W) -> same."""

    def __init__(self, channels: int, num_blocks: int = 2) -> None:
        super().__init__()
        hidden = channels // 2
        self.main = ConvNormAct(channels, hidden)
        self.blocks = nn.Sequential(*(Bottleneck(hidden, hidden, expansion=1.0) for _ in range(num_blocks)))
        self.side = ConvNormAct(channels, hidden)
        self.merge = ConvNormAct(2 * hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.merge(torch.cat((self.blocks(self.main(x)), self.side(x)), dim=1))


class CSPStage(nn.Module):
    """Split into two halves, a chain of inner blocks on the second, everything on the way merged (C3k2 in the spec).

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W). ``inner`` says what the chain is made of: ``"bottleneck"``,
    ``"c3k"``, or ``"attention"`` (a bottleneck followed by self-attention).
    """

    def __init__(
        self, in_channels: int, out_channels: int, num_blocks: int, inner: str = "c3k", expansion: float = 0.5
    ) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        self.split = ConvNormAct(in_channels, 2 * hidden)
        self.blocks = nn.ModuleList(_inner_block(inner, hidden) for _ in range(num_blocks))
        self.merge = ConvNormAct((2 + num_blocks) * hidden, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.split(x).chunk(2, dim=1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.merge(torch.cat(parts, dim=1))


class AttentionStage(nn.Module):
    """Split into two halves, a chain of attention blocks on the second, merged (C2PSA). (B, channels, H, W) -> same."""

    def __init__(self, channels: int, num_blocks: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.split = ConvNormAct(channels, 2 * hidden)
        self.blocks = nn.Sequential(*(PSABlock(hidden, max(hidden // 64, 1)) for _ in range(num_blocks)))
        self.merge = ConvNormAct(2 * hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        passed, attended = self.split(x).chunk(2, dim=1)
        return self.merge(torch.cat((passed, self.blocks(attended)), dim=1))


class SPPF(nn.Module):
    """Spatial pyramid pooling: three chained 5x5 max-pools see 5, 9 and 13 cells. (B, channels, H, W) -> same."""

    def __init__(self, channels: int, residual: bool = True) -> None:
        super().__init__()
        hidden = channels // 2
        self.reduce = ConvNormAct(channels, hidden, act=False)
        self.merge = ConvNormAct(4 * hidden, channels)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.reduce(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], kernel_size=5, stride=1, padding=2))
        y = self.merge(torch.cat(parts, dim=1))
        return x + y if self.residual else y


def _inner_block(inner: str, channels: int) -> nn.Module:
    if inner == "bottleneck":
        return Bottleneck(channels, channels)
    if inner == "c3k":
        return C3k(channels)
    assert inner == "attention", inner
    return nn.Sequential(Bottleneck(channels, channels), PSABlock(channels, max(channels // 64, 1)))
