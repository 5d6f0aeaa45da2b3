"""Convolution, normalisation, activation: the unit that everything else is made of."""

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detector.blocks.dynamic import DynamicConv2d


class ConvNormAct(nn.Module):
    """Convolution without bias and with "same" padding, BatchNorm, and SiLU unless ``act=False``.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU(inplace=True) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold the normalisation into the convolution, in place, for inference. Does nothing the second time."""
        if isinstance(self.norm, nn.Identity):
            return
        if isinstance(self.conv, DynamicConv2d):
            scale = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
            self.conv.fold(scale, self.norm.bias - self.norm.running_mean * scale)
        else:
            self.conv = fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
        self.norm = nn.Identity()
