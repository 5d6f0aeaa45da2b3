"""Dynamic convolution: a convolution that mixes its kernel from several experts for every image."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Routing = Literal["sigmoid", "softmax"]
Padding = tuple[int, int] | Literal["same"]
# Standard deviation of the biases of an upcycled router. Equal experts must get unequal routing weights to become different.
UPCYCLE_SPREAD = 0.5


class DynamicConv2d(nn.Module):
    """Drop-in for ``nn.Conv2d`` that mixes a kernel for every image (ParameterNet, arXiv:2306.14525).

    The router computes E = ``num_experts`` routing weights from the globally pooled image. The kernel of the image is the
    sum of the E experts, each times its routing weight; biases are mixed in the same way. The image is then convolved once
    (CondConv, arXiv:1904.04971). timm's ``CondConv2d`` behind such a router computes the same.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H', W') as for ``nn.Conv2d``. Shapes below: I input and O output
    channels, k the kernel size.

    Args:
        padding: number of zeros on each side. ``"same"`` takes the number that gives ceil(H / stride) rows and
            ceil(W / stride) columns; an odd zero goes to the bottom and the right, as in timm's ``Conv2dSame``.
        routing: ``"sigmoid"``, as in the published code of the layer: sigmoid(Linear(pool(x))), each routing weight in 0..1;
            ``"softmax"``, as in the paper, equation 5: softmax(MLP(pool(x))), the routing weights of an image sum to 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | Padding = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        num_experts: int = 4,
        routing: Routing = "sigmoid",
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{in_channels} input and {out_channels} output channels must be divisible by groups={groups}")
        if num_experts < 1:
            raise ValueError(f"num_experts is {num_experts}; it must be at least 1")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = _pair(kernel_size), _pair(stride)
        self.padding: Padding = "same" if padding == "same" else _pair(padding)
        self.dilation = _pair(dilation)
        self.num_experts, self.routing = num_experts, routing
        self.kernel_shape = (out_channels, in_channels // groups, *self.kernel_size)
        # Flat, (E, O * I / groups * k * k): a 5-D parameter would make `to(memory_format=channels_last)` fail.
        self.weight = nn.Parameter(torch.empty(num_experts, math.prod(self.kernel_shape)))
        self.bias = nn.Parameter(torch.empty(num_experts, out_channels)) if bias else None
        self.register_parameter("shift", None)  # (O,), a bias that is added without mixing; see fold
        self.router = _router(in_channels, num_experts, routing)
        self.reset_parameters()

    @classmethod
    def like(cls, conv: nn.Conv2d, num_experts: int = 4, routing: Routing = "sigmoid") -> Self:
        """Return a new dynamic layer that can replace ``conv``: same shapes, device, precision and mode, new weights.

        Raises ValueError for a subclass of ``nn.Conv2d`` other than timm's ``Conv2dSame``, because its forward may differ,
        and for padding that is not with zeros.
        """
        if not can_be_dynamic(conv):
            raise ValueError(
                f"{conv} cannot be made dynamic: expected a plain nn.Conv2d that pads with zeros, or timm's Conv2dSame; "
                f"this is a {type(conv).__name__} with padding={conv.padding!r}, padding_mode={conv.padding_mode!r}"
            )
        padding = _padding(conv)
        shape = (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, padding, conv.dilation, conv.groups)
        layer = cls(*shape, bias=conv.bias is not None, num_experts=num_experts, routing=routing).to(conv.weight)
        return layer.requires_grad_(conv.weight.requires_grad).train(conv.training)

    def reset_parameters(self) -> None:
        """Initialize every expert as ``nn.Conv2d`` initializes a kernel of this shape."""
        fan_in = math.prod(self.kernel_shape[1:])
        # kaiming_uniform(a=sqrt(5)) with the fan-in of one kernel, not of a flat row
        nn.init.uniform_(self.weight, -(fan_in**-0.5), fan_in**-0.5)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -(fan_in**-0.5), fan_in**-0.5)

    def routing_weights(self, x: Tensor) -> Tensor:
        """Return the routing weights (B, E) in 0..1 for ``x`` (B, I, H, W), in the precision of the experts.

        Autocast is off: small errors here would change the kernel of the whole image.
        """
        with _without_autocast(x.device.type):
            return self.routing_activation(self.router(x.mean(dim=(2, 3), dtype=self.weight.dtype)))

    def routing_activation(self, logits: Tensor) -> Tensor:
        """Turn the output of the router (B, E) into routing weights (B, E)."""
        return logits.sigmoid() if self.routing == "sigmoid" else logits.softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        routing_weights = self.routing_weights(x)
        with _without_autocast(x.device.type):
            kernels, biases = self.mix_kernels(routing_weights), self.mix_biases(routing_weights)
        return self._convolve(x, kernels, biases)

    def mix_kernels(self, routing_weights: Tensor) -> Tensor:
        """Return the kernels (B, O, I / groups, k, k) for ``routing_weights`` (B, E)."""
        return (routing_weights @ self.weight).view(-1, *self.kernel_shape)

    def mix_biases(self, routing_weights: Tensor) -> Tensor | None:
        """Return the biases (B, O) for ``routing_weights`` (B, E), or None if the layer has no bias."""
        biases = None if self.bias is None else routing_weights @ self.bias
        if self.shift is not None:
            biases = self.shift.expand(routing_weights.shape[0], -1) if biases is None else biases + self.shift
        return biases

    def _convolve(self, x: Tensor, kernels: Tensor, biases: Tensor | None) -> Tensor:
        """Convolve image b with ``kernels[b]``: there are three equal ways, and the shape decides which is fastest."""
        x, padding = self.pad(x)
        batch, _, height, width = x.shape
        if batch == 1:
            bias = None if biases is None else biases.view(-1)  # not [0]: exported graphs would copy it
            kernel = kernels.view(self.kernel_shape)
            return F.conv2d(x, kernel, bias, self.stride, padding, self.dilation, self.groups)
        if (self.kernel_size, self.stride, padding, self.groups) == ((1, 1), (1, 1), (0, 0), 1):
            return _matrix_products(x, kernels.flatten(2), biases)
        # All B kernels in one call: the images become channel groups of a single image.
        layout = torch.channels_last if _by_pixel(x) else torch.contiguous_format
        x = x.reshape(1, batch * self.in_channels, height, width)
        bias = None if biases is None else biases.flatten()
        y = F.conv2d(x, kernels.flatten(0, 1), bias, self.stride, padding, self.dilation, batch * self.groups)
        return y.view(batch, self.out_channels, *y.shape[2:]).contiguous(memory_format=layout)

    def pad(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return ``x``, with zeros around it if the padding is "same", and the padding that the convolution must add."""
        if self.padding != "same":
            return x, self.padding
        return pad_same(x, self.kernel_size, self.stride, self.dilation), (0, 0)

    @torch.no_grad()
    def fold(self, scale: Tensor, shift: Tensor) -> None:
        """Multiply output channel o by ``scale[o]`` and add ``shift[o]``, in place. This folds a BatchNorm into the layer.

        The scale goes into every expert. The shift is added without mixing: routing weights of a sigmoid do not sum to 1.
        """
        self.weight.copy_((self.weight.view(self.num_experts, self.out_channels, -1) * scale[:, None]).flatten(1))
        if self.bias is not None:
            self.bias.mul_(scale)
        before = 0 if self.shift is None else self.shift * scale
        self.shift = nn.Parameter((before + shift).detach(), requires_grad=self.weight.requires_grad)

    @torch.no_grad()
    def upcycle(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Take over the ``weight`` (O, I / groups, k, k) and ``bias`` (O,) of a plain convolution, to compute the same.

        Every expert becomes that kernel, divided by the sum of an image's routing weights, which is made the same for every
        image. Raises ValueError for other shapes.

        The experts are equal at first. Training makes them differ, because their routing weights, and so their
        gradients, differ. With equal routing weights they would stay equal.
        """
        if tuple(weight.shape) != self.kernel_shape or (bias is None) != (self.bias is None):
            raise ValueError(
                f"a kernel {tuple(weight.shape)} {'without' if bias is None else 'with'} bias cannot be upcycled "
                f"into this layer; expected {self.kernel_shape} {'without' if self.bias is None else 'with'} bias"
            )
        total = self._make_routing_sum_constant()
        self.weight.copy_((weight.flatten() / total).expand_as(self.weight))
        if bias is not None:
            self.bias.copy_((bias / total).expand_as(self.bias))
        self.shift = None  # it belonged to a normalization that was folded in before

    def _make_routing_sum_constant(self) -> float:
        """Change the router so that the routing weights of every image have the same sum, and return this sum.

        With softmax it is 1. With sigmoid, experts 2 i and 2 i + 1 get opposite logits: sigmoid(z) + sigmoid(-z) = 1. If the
        number of experts is odd, the last one gets the logit 0 and thus the routing weight 1/2.
        """
        last = self.router[-1] if isinstance(self.router, nn.Sequential) else self.router
        nn.init.normal_(last.bias, std=UPCYCLE_SPREAD)
        if self.routing == "softmax":
            return 1.0
        num_paired = self.num_experts // 2 * 2
        for parameter in (last.weight, last.bias):
            parameter[1:num_paired:2] = -parameter[:num_paired:2]
            parameter[num_paired:] = 0
        return self.num_experts / 2

    def extra_repr(self) -> str:
        """Describe the layer the way ``nn.Conv2d`` does."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, groups={self.groups}, num_experts={self.num_experts}, routing={self.routing!r}"
        )


def dynamic_layers(module: nn.Module) -> dict[str, DynamicConv2d]:
    """Return the dynamic layers of ``module`` by name, in the order of its definition."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, DynamicConv2d)}


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


class SameConv2d(nn.Conv2d):
    """A convolution with "same" padding at any stride, which ``nn.Conv2d`` has for stride 1 only; see ``DynamicConv2d``."""

    def forward(self, x: Tensor) -> Tensor:
        x = pad_same(x, self.kernel_size, self.stride, self.dilation)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def pad_same(x: Tensor, kernel_size: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
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


def _padding(conv: nn.Conv2d) -> Padding:
    """Return the padding of a convolution that can be dynamic."""
    if _is_same(conv):
        return "same"
    if conv.padding == "valid":
        return (0, 0)
    if conv.padding != "same":
        return tuple(conv.padding)
    total = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size)]
    return "same" if any(t % 2 for t in total) else (total[0] // 2, total[1] // 2)


def _without_autocast(device_type: str) -> AbstractContextManager:
    # Entering a context takes as long as mixing a small kernel, so it is done only if needed. The meta device, on which
    # multiply-adds are counted, has no autocast.
    if device_type != "meta" and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _router(in_channels: int, num_experts: int, routing: Routing) -> nn.Module:
    if routing == "sigmoid":
        return nn.Linear(in_channels, num_experts)
    if routing == "softmax":
        return nn.Sequential(nn.Linear(in_channels, in_channels), nn.ReLU(inplace=True), nn.Linear(in_channels, num_experts))
    raise ValueError(f"unknown routing {routing!r}; choose 'sigmoid' or 'softmax'")


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
