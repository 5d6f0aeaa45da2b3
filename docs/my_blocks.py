"""A block of your own: a convolution with squeeze and excitation (arXiv:1709.01507). See your-own-block.md."""

from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """The replaced convolution, whose output channels are scaled by factors in 0..1 that depend on the image."""

    def __init__(self, conv: nn.Conv2d, reduction: int = 4) -> None:
        super().__init__()
        self.conv = conv  # it is used on, so starting weights of --model.weights reach it, too
        hidden = max(conv.out_channels // reduction, 4)
        self.squeeze = nn.Conv2d(conv.out_channels, hidden, kernel_size=1)
        self.excite = nn.Conv2d(hidden, conv.out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        scale = self.excite(self.squeeze(y.mean(dim=(2, 3), keepdim=True)).relu())
        return y * scale.sigmoid()
