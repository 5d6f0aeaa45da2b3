"""A plain convolution with gated output channels: the control of the study of dynamic layers that has gates only."""

import torch
from torch import Tensor, nn

from detector.dynamic.router import BottleneckRouter


class SqueezeExcitedConv(nn.Module):
    """A convolution whose output channels are scaled by gates of the image (squeeze and excitation, arXiv:1709.01507).

    ``conv`` is the convolution that it replaces. The gates are those of an omni-dimensional layer: the same router with a
    hidden layer and BatchNorm, and 2 sigmoid, 1 at the start. Only the input of the router differs: it is the mean of the
    output. So the layer starts as ``conv``, and its kernel is the same for all images.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H', W'), as ``conv``.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.router = BottleneckRouter(conv.out_channels, {"filter": conv.out_channels}, "softmax", "batch")

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        with torch.autocast(y.device.type, enabled=False):
            gates = self.router(y.float().mean(dim=(2, 3)))
        return y * gates[:, :, None, None].to(y.dtype)
