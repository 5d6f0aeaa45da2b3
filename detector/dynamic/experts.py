"""A dynamic layer for exported graphs: constant kernels, and any batch size in one graph."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.dynamic.conv2d import DynamicConv2d


class ExpertsConv2d(nn.Module):
    """Computes the same as ``layer`` with constant kernels: routing weights multiply maps, not kernels.

    A convolution is linear in its kernel, so both are equal. Exported graphs need this form for batches above 1, since one
    kernel for each image needs a convolution whose number of groups is the batch size. Quantizers need it for any batch.

    - Gates of input channels and filters multiply the maps before and after the convolution.
    - Experts: the layer convolves with every expert (of the residual kind: with the plain kernel, too), then mixes the
      results. This takes that many times the multiply-adds.
    - A gate of positions multiplies k * k shifted copies of the map. A 1x1 convolution over all copies is then equal to a
      convolution with the scaled kernel. It needs the memory of the copies, but no more multiply-adds.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H', W') as for ``layer``.
    """

    weight: Tensor

    def __init__(self, layer: DynamicConv2d) -> None:
        super().__init__()
        self.layer = layer  # for its settings, the routing and the biases
        kernels = layer.weight.detach()
        if layer.delta is not None:
            kernels = torch.cat((kernels.reshape(1, -1), layer.delta.detach()))
        kernels = kernels.reshape(-1, layer.groups, layer.out_channels // layer.groups, *layer.kernel_shape[1:])
        self.num_kernels = len(kernels)
        # Within each group, all outputs of kernel 0, then of kernel 1, ...: (G * M * O / G, I / G, k, k)
        kernels = kernels.transpose(0, 1).flatten(0, 2)
        if "position" in layer.units:
            kernels = kernels.flatten(1)[:, :, None, None]  # of the copies of a map: (G * M * O / G, I / G * k * k, 1, 1)
        self.register_buffer("weight", kernels.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        routing_weights = layer.routing_weights(x)  # (B, U)
        gates = layer.gate_weights(routing_weights)
        y = self._convolve(layer.scale_inputs(x, gates), gates.get("position"))
        if "expert" in gates:
            y = self._mix(y, gates["expert"])
        if "filter" in gates:
            return layer.scale_filters(y, gates["filter"])
        biases = layer.mix_biases(routing_weights)
        return y if biases is None else y + biases[:, :, None, None].to(y.dtype)

    def _convolve(self, x: Tensor, positions: Tensor | None) -> Tensor:
        """Return the maps (B, G * M * O / G, H', W') of all kernels."""
        layer = self.layer
        x, padding = layer.pad(x)
        if positions is None:
            return F.conv2d(x, self.weight, None, layer.stride, padding, layer.dilation, layer.groups)
        x = F.pad(x, (padding[1], padding[1], padding[0], padding[0])) if any(padding) else x
        copies = torch.stack([x[:, :, rows, columns] for rows in self._shifts(0) for columns in self._shifts(1)], dim=2)
        copies = copies * positions.to(x.dtype)[:, None, :, None, None]  # (B, I, k * k, H', W')
        return F.conv2d(copies.flatten(1, 2), self.weight, groups=layer.groups)

    def _shifts(self, axis: int) -> list[slice]:
        """Return, for each row (axis 0) or column (axis 1) of the kernel, the rows or columns of the map that it meets."""
        size, stride, dilation = (pair[axis] for pair in (self.layer.kernel_size, self.layer.stride, self.layer.dilation))
        # The ends count from the end of the map: sizes that are constants keep exported graphs simple.
        return [slice(i * dilation, -(size - 1 - i) * dilation or None, stride) for i in range(size)]

    def _mix(self, y: Tensor, experts: Tensor) -> Tensor:
        """Return the maps (B, O, H', W'), mixed by the weights (B, M) of the experts from those of all kernels."""
        if self.layer.delta is not None:
            experts = F.pad(experts, (1, 0), value=1.0)  # the plain kernel comes first
        outputs, (height, width) = self.layer.out_channels, y.shape[2:]
        y = y.reshape(-1, self.layer.groups, self.num_kernels, outputs // self.layer.groups * height * width)
        return (experts.to(y.dtype)[:, None, None] @ y).reshape(-1, outputs, height, width)
