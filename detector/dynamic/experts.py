"""A dynamic layer as one convolution with all experts' kernels: constant weights, and any batch size in one graph."""

import torch.nn.functional as F
from torch import Tensor, nn

from detector.dynamic.conv2d import DynamicConv2d


class ExpertsConv2d(nn.Module):
    """Computes what ``layer`` does, for export: convolves with every expert and mixes the results, not the kernels.

    The convolution is linear in its kernel, so both are equal; this takes ``num_experts`` times the multiply-adds. Exported
    graphs need it where mixing first would need a convolution whose number of groups is the batch size.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H', W') as for ``layer``.
    """

    def __init__(self, layer: DynamicConv2d) -> None:
        super().__init__()
        self.layer = layer  # for the routing and the biases
        groups, experts = layer.groups, layer.num_experts
        kernels = layer.weight.detach().view(experts, groups, -1, *layer.kernel_shape[1:])
        # Within each group, all outputs of expert 0, then of expert 1, ...: (G, E, O / G, I / G, k, k)
        self.register_buffer("weight", kernels.transpose(0, 1).flatten(0, 2).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        mixture = layer.mixture(x)  # (B, E)
        y = F.conv2d(x, self.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
        height, width = y.shape[2:]
        y = y.reshape(-1, layer.groups, layer.num_experts, layer.out_channels // layer.groups * height * width)
        y = (mixture[:, None, None] @ y).reshape(-1, layer.out_channels, height, width)
        biases = layer.mix_biases(mixture)
        return y if biases is None else y + biases[:, :, None, None]
