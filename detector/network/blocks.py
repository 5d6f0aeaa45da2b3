"""Blocks of the network: convolutions, attention, and the CSP stages that consist of them."""

import inspect
from typing import Protocol, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class ConvNormAct(nn.Module):
    """Convolution without bias and with "same" padding, BatchNorm, and SiLU unless ``act=False``.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv: nn.Module = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU(inplace=True) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold the normalization into the convolution, in place, for inference. A second call does nothing.

        A block of the user in place of the convolution needs a method ``fold(scale, shift)``, as ``DynamicConv2d`` has it;
        otherwise, and after a layer that is no BatchNorm with statistics, the normalization stays.
        """
        if not isinstance(self.norm, nn.modules.batchnorm._BatchNorm) or self.norm.running_mean is None:
            return
        if type(self.conv) is nn.Conv2d:
            self.conv = fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
        elif has_fold(self.conv):
            self.conv.fold(*scale_and_shift(self.norm))
        else:
            return
        self.norm = nn.Identity()


class Foldable(Protocol):
    """A convolution that folds a normalization after it into itself."""

    def fold(self, scale: Tensor, shift: Tensor) -> None:
        """Multiply output channel o by ``scale[o]`` and add ``shift[o]``, in place."""


def has_fold(module: object) -> TypeGuard[Foldable]:
    """Return True if ``module`` has a method ``fold(scale, shift)``, which folds a normalization after it into it."""
    return inspect.ismethod(getattr(module, "fold", None))


def scale_and_shift(norm: nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor]:
    """Return the factor and the summand (C,) of each channel that ``norm`` has in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (1 if norm.weight is None else norm.weight) / (norm.running_var + norm.eps).sqrt()
    return scale, (0 if norm.bias is None else norm.bias) - norm.running_mean * scale


class Attention(nn.Module):
    """Multi-head self-attention with keys half as wide as values. (B, channels, H, W) -> same."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.value_dim = channels // num_heads
        self.key_dim = self.value_dim // 2
        self.qkv = ConvNormAct(channels, channels + 2 * self.key_dim * num_heads, act=False)
        self.proj = ConvNormAct(channels, channels, act=False)
        self.position = ConvNormAct(channels, channels, 3, groups=channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(x).view(batch, self.num_heads, 2 * self.key_dim + self.value_dim, height * width)
        q, k, v = qkv.split((self.key_dim, self.key_dim, self.value_dim), dim=2)  # (B, heads, dim, H * W)
        weights = ((q * self.key_dim**-0.5).transpose(2, 3) @ k).softmax(dim=-1)  # (B, heads, H * W, H * W)
        attended = (v @ weights.transpose(2, 3)).view(batch, channels, height, width)
        return self.proj(attended + self.position(v.reshape(batch, channels, height, width)))


class PSABlock(nn.Module):
    """Attention, then a feed-forward layer, each with a residual. (B, channels, H, W) -> same."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.attention = Attention(channels, num_heads)
        hidden = 2 * channels
        self.feed_forward = nn.Sequential(ConvNormAct(channels, hidden), ConvNormAct(hidden, channels, act=False))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.feed_forward(x)


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, with a residual if the channels are equal. (B, in_channels, H, W) -> (B, out_channels, H, W)."""

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
    """Splits the input into two halves, runs a chain of inner blocks on the second, merges both and all outputs (C3k2).

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W). ``inner`` is the kind of the inner blocks: ``"bottleneck"``,
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
    """Splits the input into two halves, runs attention blocks on the second, merges both (C2PSA).

    Shape: (B, channels, H, W) -> same.
    """

    def __init__(self, channels: int, num_blocks: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.split = ConvNormAct(channels, 2 * hidden)
        self.blocks = nn.Sequential(*(PSABlock(hidden, max(hidden // 64, 1)) for _ in range(num_blocks)))
        self.merge = ConvNormAct(2 * hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.split(x).chunk(2, dim=1)
        return self.merge(torch.cat((first, self.blocks(second)), dim=1))


class SPPF(nn.Module):
    """Spatial pyramid pooling: three 5x5 max-pools in a chain cover 5, 9 and 13 cells. (B, channels, H, W) -> same."""

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
