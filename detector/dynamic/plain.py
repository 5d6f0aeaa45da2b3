"""Plain convolutions: the ones that can be made dynamic, those with "same" padding, and one kernel for each image."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Padding = tuple[int, int] | Literal["same"]


class SameConv2d(nn.Conv2d):
    """A convolution with "same" padding at any stride, which ``nn.Conv2d`` has for stride 1 only; see ``pad_same``."""

    def forward(self, x: Tensor) -> Tensor:
        x = pad_same(x, self.kernel_size, self.stride, self.dilation)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def pad_same(x: Tensor, kernel_size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
    """Return ``x`` (B, C, H, W) with zeros around it, so that a convolution without padding gives ceil(H / stride) rows."""
    zeros: list[int] = []  # left, right, top, bottom
    for axis in (1, 0):
        covered = dilation[axis] * (kernel_size[axis] - 1) + 1
        # Sides are multiples of the stride, except in other networks: a constant keeps exported graphs simple.
        rest = x.shape[2 + axis] % stride[axis]
        total = max(covered - (rest if rest else stride[axis]), 0)
        zeros += [total // 2, total - total // 2]
    return F.pad(x, zeros) if any(zeros) else x


def can_be_dynamic(conv: nn.Module) -> bool:
    """Return True for a convolution that ``DynamicConv2d.like`` can replace."""
    return (type(conv) is nn.Conv2d or _is_same(conv)) and conv.padding_mode == "zeros"


def _is_same(conv: nn.Module) -> bool:
    """Return True for SameConv2d, and for timm's ``Conv2dSame``, by name: timm must not be imported here."""
    of_timm = type(conv).__name__ == "Conv2dSame" and type(conv).__module__.startswith("timm.")
    return of_timm or type(conv) is SameConv2d


def padding_of(conv: nn.Conv2d) -> Padding:
    """Return the padding of a convolution that can be dynamic."""
    if _is_same(conv):
        return "same"
    if isinstance(conv.padding, tuple):
        return conv.padding[0], conv.padding[1]
    if conv.padding == "valid":
        return (0, 0)
    total = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size)]
    return "same" if any(t % 2 for t in total) else (total[0] // 2, total[1] // 2)


def convolve_each(
    x: Tensor,
    kernels: Tensor,
    biases: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """Convolve image b of ``x`` (B, I, H, W) with ``kernels[b]`` (O, I / groups, k, k), and add ``biases[b]`` (O,).

    There are three equal ways, and the shape decides which is fastest. The memory layout of ``x`` stays.
    """
    batch, channels, _, _ = x.shape
    if batch == 0:  # as in heads on regions without any: the sums are 0, and give the experts gradients of 0
        kernels, biases = kernels.sum(dim=0, keepdim=True), None if biases is None else biases.sum(dim=0, keepdim=True)
    if batch <= 1:
        bias = None if biases is None else biases.view(-1)  # not [0]: exported graphs would copy it
        return F.conv2d(x, kernels.view(kernels.shape[1:]), bias, stride, padding, dilation, groups)
    if (tuple(kernels.shape[-2:]), stride, padding, groups) == ((1, 1), (1, 1), (0, 0), 1):
        return _matrix_products(x, kernels.flatten(2), biases)
    # All B kernels in one call: the images become channel groups of a single image.
    layout = torch.channels_last if _by_pixel(x) else torch.contiguous_format
    bias = None if biases is None else biases.flatten()
    x = x.reshape(1, batch * channels, *x.shape[2:])
    y = F.conv2d(x, kernels.flatten(0, 1), bias, stride, padding, dilation, batch * groups)
    return y.view(batch, -1, *y.shape[2:]).contiguous(memory_format=layout)


def _matrix_products(x: Tensor, kernels: Tensor, biases: Tensor | None) -> Tensor:
    """Convolve image b of x (B, I, H, W) with the 1x1 kernel ``kernels[b]`` (O, I); the memory layout stays."""
    batch, _, height, width = x.shape
    if _by_pixel(x):
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H * W, I)
        y = pixels @ kernels.mT if biases is None else torch.baddbmm(biases[:, None], pixels, kernels.mT)
        return y.view(batch, height, width, -1).permute(0, 3, 1, 2)
    pixels = x.flatten(2)  # (B, I, H * W)
    y = kernels @ pixels if biases is None else torch.baddbmm(biases[:, :, None], kernels, pixels)
    return y.view(batch, -1, height, width)


def _by_pixel(x: Tensor) -> bool:
    """Return True if x lies in memory pixel by pixel: in channels_last, or as some channels of such a tensor."""
    return x.stride(1) == 1
