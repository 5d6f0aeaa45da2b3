"""The kernels of a dynamic layer over many images: their mean and their variation."""

import math

import torch
from torch import Tensor

from detector.dynamic.conv2d import DynamicConv2d

CHUNK = 2**22  # numbers in kernels that are held at a time


class KernelStatistics:
    """Mean and variation of the kernels of ``layer`` over images, from their routing weights.

    Kernels have all gates inside. Memory does not grow with the number of images: where kernels are linear in the routing
    weights, which is so without gates, their moments suffice; else kernels of some images are built at a time.

    ``sums`` is a flat float64 tensor (float32 on mps), which holds everything. Those of several processes may be added up.
    """

    @torch.no_grad()
    def __init__(self, layer: DynamicConv2d) -> None:
        self.layer, self.num_units = layer, sum(layer.units.values())
        self._size, weight = math.prod(layer.kernel_shape), layer.weight
        self.is_linear = layer.units.keys() == {"expert"}
        # Number of images, sums of routing weights; then the moments (1 + U, 1 + U) of 1 and the routing weights, or the sum
        # of squares within batches, the sum of squares of the means of batches, and the sum of kernels.
        size = (1 + self.num_units) ** 2 if self.is_linear else 2 + self._size
        precision = torch.float32 if weight.device.type == "mps" else torch.float64
        self.sums = torch.zeros(1 + self.num_units + size, dtype=precision, device=weight.device)
        self._gram: Tensor | None = None  # of the weights at the first images, which may be averaged for a validation only

    @torch.no_grad()
    def add(self, routing_weights: Tensor) -> None:
        """Add the kernels of N images with these ``routing_weights`` (N, U)."""
        routing_weights = routing_weights.to(self.sums.device)
        if self.is_linear and self._gram is None:
            self._gram = self._inner_products()
        for rows in routing_weights.split(max(CHUNK // self._size, 1)) if len(routing_weights) else ():
            exact = rows.to(self.sums.dtype)
            parts = [exact.new_tensor([len(rows)]), exact.sum(dim=0)]
            parts += [self._moments(exact)] if self.is_linear else self._kernel_sums(rows)
            self.sums += torch.cat(parts)

    @property
    def num_images(self) -> int:
        return int(self.sums[0])

    @property
    def mean_routing(self) -> Tensor:
        """The mean routing weights (U,) in the precision of the layer."""
        return (self.sums[1 : 1 + self.num_units] / self.sums[0]).to(self.layer.weight)

    @torch.no_grad()
    def mean_kernel(self) -> Tensor:
        """Return the mean over the images of their kernels (O, I / groups, k, k), with all gates inside.

        It is not the kernel of the mean gates: gates are correlated.
        """
        if self.is_linear:
            return self.layer.full_kernels(self.mean_routing[None])[0]
        mean = self.sums[-self._size :] / self.sums[0]
        return mean.to(self.layer.weight).view(self.layer.kernel_shape)

    def variation(self) -> float:
        """Return rho, the mean of |K_b - mean K|^2 over the mean of |K_b|^2: 0 if all images b have the same kernel K_b.

        NaN without images.
        """
        count, rest = self.sums[0], self.sums[1 + self.num_units :]
        if self.is_linear:
            moments = (rest / count).view(1 + self.num_units, -1)
            mean, gram = moments[0], self._inner_products() if self._gram is None else self._gram
            gram = gram.to(moments)
            whole, between = (moments * gram).sum(), ((moments - torch.outer(mean, mean)) * gram).sum()
        else:
            within, of_means, total = rest[0], rest[1], rest[2:]
            whole, between = within + of_means, within + of_means - total.square().sum() / count
        return float(between.clamp_min(0) / whole)

    def _moments(self, routing_weights: Tensor) -> Tensor:
        values = torch.cat((torch.ones_like(routing_weights[:, :1]), routing_weights), dim=1)
        return (values.T @ values).flatten()

    def _inner_products(self) -> Tensor:
        """Return the inner products (1 + U, 1 + U) of the constant kernel, which may be 0, and of the experts."""
        weight = self.layer.weight.detach().to(self.sums.dtype)
        if self.layer.delta is None:
            kernels = torch.cat((torch.zeros_like(weight[:1]), weight))
        else:
            kernels = torch.cat((weight.flatten()[None], self.layer.delta.detach().to(self.sums.dtype)))
        return kernels @ kernels.T

    def _kernel_sums(self, routing_weights: Tensor) -> list[Tensor]:
        weight = self.layer.weight
        kernels = self.layer.full_kernels(routing_weights.to(weight)).flatten(1)
        kernels = kernels.to(torch.promote_types(weight.dtype, torch.float32))
        mean = kernels.mean(dim=0)
        exact = mean.to(self.sums.dtype)
        within = (kernels - mean).square_().sum(dtype=self.sums.dtype)
        count = len(kernels)
        return [torch.stack((within, count * exact.square().sum())), count * exact]
