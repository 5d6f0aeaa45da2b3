"""A dynamic layer for exported graphs: constant kernels, and any batch size in one graph."""

import torch.nn.functional as F
from torch import Tensor, nn

from detector.dynamic.conv2d import DynamicConv2d


class ExpertsConv2d(nn.Module):
    """Computes the same as ``layer``: convolves with every expert, then mixes the results instead of the kernels.

    A convolution is linear in its kernel, so both are equal. This form takes E times the multiply-adds. Exported graphs need
    it for batches above 1: mixing the kernels first needs a convolution whose number of groups is the batch size.

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
        routing_weights = layer.routing_weights(x)  # (B, E)
        x, padding = layer.pad(x)
        y = F.conv2d(x, self.weight, None, layer.stride, padding, layer.dilation, layer.groups)
        height, width = y.shape[2:]
        y = y.reshape(-1, layer.groups, layer.num_experts, layer.out_channels // layer.groups * height * width)
        y = (routing_weights[:, None, None] @ y).reshape(-1, layer.out_channels, height, width)
        biases = layer.mix_biases(routing_weights)
        return y if biases is None else y + biases[:, :, None, None]
