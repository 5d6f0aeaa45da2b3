"""Dynamic convolution: a kernel mixed anew for every image from several experts."""

import math
import re
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.config import DynamicConfig, Routing

# Names of places, as patterns over the names of a Detector's convolutions.
PLACES = {"backbone-bottlenecks": r"backbone\.stage_p\d\.blocks\..*\.conv[12]\.conv"}


class DynamicConv2d(nn.Module):
    """Drop-in for ``nn.Conv2d`` that mixes its kernel anew for every image (ParameterNet, arXiv:2306.14525).

    The ``num_experts`` kernels (and biases) are mixed by routing weights computed from the globally pooled input, and the
    image is convolved once with the mixture (CondConv, arXiv:1904.04971). Equal to timm's ``CondConv2d`` behind a router.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H', W') as for ``nn.Conv2d``.

    routing:
        ``"sigmoid"``, the layer's published code: sigmoid(Linear(pool(x))), each weight in 0..1 on its own;
        ``"softmax"``, the paper's equation 5: softmax(MLP(pool(x))), the weights of an image sum to 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
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
        self.padding, self.dilation = _pair(padding), _pair(dilation)
        self.num_experts, self.routing = num_experts, routing
        self.kernel_shape = (out_channels, in_channels // groups, *self.kernel_size)
        # Flat, (E, numel of a kernel): a 5-D parameter would make `to(memory_format=channels_last)` fail.
        self.weight = nn.Parameter(torch.empty(num_experts, math.prod(self.kernel_shape)))
        self.bias = nn.Parameter(torch.empty(num_experts, out_channels)) if bias else None
        self.router = _router(in_channels, num_experts, routing)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Give every expert the initial distribution of an ``nn.Conv2d`` of its shape."""
        fan_in = math.prod(self.kernel_shape[1:])
        # kaiming_uniform(a=sqrt(5)) over the fan-in of one kernel, not of the flat row
        nn.init.uniform_(self.weight, -(fan_in**-0.5), fan_in**-0.5)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -(fan_in**-0.5), fan_in**-0.5)

    def mixture(self, x: Tensor) -> Tensor:
        """Return (B, E), how much each expert counts in each image, in 0..1; in the weights' precision, also in autocast."""
        with _without_autocast(x.device.type):  # routing decides the kernel
            logits = self.router(x.mean(dim=(2, 3), dtype=self.weight.dtype))
            return logits.sigmoid() if self.routing == "sigmoid" else logits.softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        mixture = self.mixture(x)
        with _without_autocast(x.device.type):
            kernels = (mixture @ self.weight).view(-1, *self.kernel_shape[1:])  # (B * O, C / groups, k, k)
            biases = None if self.bias is None else (mixture @ self.bias).flatten()  # (B * O,)
        return self._convolve(x, kernels, biases)

    def _convolve(self, x: Tensor, kernels: Tensor, biases: Tensor | None) -> Tensor:
        """Convolve image b with rows ``b * O .. (b + 1) * O`` of ``kernels``: the images become channel groups of one."""
        batch, _, height, width = x.shape
        if batch == 1:
            return F.conv2d(x, kernels, biases, self.stride, self.padding, self.dilation, self.groups)
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        x = x.reshape(1, batch * self.in_channels, height, width)
        y = F.conv2d(x, kernels, biases, self.stride, self.padding, self.dilation, batch * self.groups)
        return y.view(batch, self.out_channels, *y.shape[2:]).contiguous(memory_format=layout)

    @torch.no_grad()
    def scale_output(self, scale: Tensor) -> None:
        """Multiply output channel o by ``scale`` (O,), in place, by scaling every expert."""
        self.weight.copy_((self.weight.view(self.num_experts, self.out_channels, -1) * scale[:, None]).flatten(1))
        if self.bias is not None:
            self.bias.mul_(scale)

    def extra_repr(self) -> str:
        """Describe the layer the way ``nn.Conv2d`` does."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, groups={self.groups}, num_experts={self.num_experts}, routing={self.routing!r}"
        )


class ChannelShift(nn.Module):
    """Adds a constant to every channel: what is left of a BatchNorm whose scale was folded away. (B, C, H, W) -> same."""

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.shift = nn.Parameter(shift.detach().clone())  # (C,)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift[:, None, None].to(x.dtype)


def make_dynamic(module: nn.Module, config: DynamicConfig) -> list[str]:
    """Exchange the convolutions of ``module`` named by ``config.place`` for freshly initialised dynamic ones, in place.

    Returns the names of those exchanged; raises ValueError when there are none.
    """
    pattern = re.compile(PLACES.get(config.place, config.place))
    names = [n for n, layer in module.named_modules() if isinstance(layer, nn.Conv2d) and pattern.fullmatch(n)]
    if not names:
        raise ValueError(
            f"dynamic place {config.place!r} names no convolution of {type(module).__name__}; use one of "
            f"{', '.join(PLACES)}, or a pattern over names such as 'backbone.down_p3.conv'"
        )
    for name in names:
        parent, _, attribute = name.rpartition(".")
        conv = module.get_submodule(name)
        setattr(module.get_submodule(parent), attribute, _dynamic_like(conv, config))
    return names


def _dynamic_like(conv: nn.Conv2d, config: DynamicConfig) -> DynamicConv2d:
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        raise ValueError(f"{conv} cannot be made dynamic: only whole-number zero padding is supported")
    return DynamicConv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        bias=conv.bias is not None,
        num_experts=config.num_experts,
        routing=config.routing,
    ).to(conv.weight)  # same device and precision


def _without_autocast(device_type: str) -> AbstractContextManager:
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()  # the meta device, on which costs are counted


def _router(in_channels: int, num_experts: int, routing: Routing) -> nn.Module:
    if routing == "sigmoid":
        return nn.Linear(in_channels, num_experts)
    if routing == "softmax":
        return nn.Sequential(nn.Linear(in_channels, in_channels), nn.ReLU(inplace=True), nn.Linear(in_channels, num_experts))
    raise ValueError(f"unknown routing {routing!r}; choose 'sigmoid' or 'softmax'")


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
