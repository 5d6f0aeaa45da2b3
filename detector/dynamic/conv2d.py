"""Dynamic convolution: a convolution whose kernel depends on the image."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.dynamic.plain import Padding, can_be_dynamic, convolve_each, pad_same, padding_of
from detector.dynamic.router import BottleneckRouter, Gate, LinearRouter, MlpRouter, RouterName, RouterNormName, Routing
from detector.dynamic.settings import Kind, LayerSettings

GateWeights = dict[Gate, Tensor]  # the routing weights (B, n) of each gate
Router = LinearRouter | MlpRouter | BottleneckRouter


class DynamicConv2d(nn.Module):
    """Drop-in for ``nn.Conv2d`` whose kernel depends on the image. The router computes its routing weights from the image.

    Three kinds; W are kernels, M = ``num_experts``, and a, c, f, s the routing weights of one image by gate:

    - ``"mixture"``: the kernel is sum_m a_m W_m, and biases are mixed in the same way (CondConv, arXiv:1904.04971;
      ParameterNet, arXiv:2306.14525). timm's ``CondConv2d`` behind such a router computes the same.
    - ``"omni"``: y = f * ((s * sum_m a_m W_m) conv (c * x)) + bias. Gates scale input channels (c), filters (f) and
      positions of the kernel (s), as in ODConv (ICLR 2022), but twice as large: they start at 1, so plain weights convert
      exactly.
    - ``"residual"``: the kernel is W_0 + sum_m a_m D_m, a plain kernel and changes that start at 0. It may have gates, too.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H', W') as for ``nn.Conv2d``. Shapes below: I input and O output
    channels, k the kernel size, K = O * I / groups * k * k, U the number of routing weights.

    Args:
        padding: number of zeros on each side. ``"same"`` takes the number that gives ceil(H / stride) rows and
            ceil(W / stride) columns; an odd zero goes to the bottom and the right, as in timm's ``Conv2dSame``. ``"valid"``
            is 0.
        num_experts: number of kernels (omni: 1 by default, the others: 4).
        routing: the weights of the experts. ``"sigmoid"``: each in 0..1; ``"softmax"``: they sum to 1; ``"centred"``, for
            the residual kind: in -1..1, with logits of mean 0 over images. Defaults: mixture sigmoid, omni softmax, residual
            centred.
        gates: of ``"input"``, ``"filter"`` and ``"position"``, those that the kind has besides its experts; omni has the
            first two by default. A gate that changes nothing is left out: filter of a depthwise layer, position of a 1x1
            one.
        router: ``"direct"``, from the pooled image to the logits as published for the mixture, its default: one linear layer
            for sigmoid, two for softmax. ``"bottleneck"``, the default of the other kinds: see ``BottleneckRouter``.
        router_norm: normalization of the bottleneck's hidden units: ``"batch"`` (default), ``"layer"`` or ``"none"``.

    Raises ValueError for settings that do not go together, see ``LayerSettings``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | Padding | Literal["valid"] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        num_experts: int | None = None,
        routing: Routing | None = None,
        kind: Kind = "mixture",
        gates: Sequence[Gate] | None = None,
        router: RouterName | None = None,
        router_norm: RouterNormName | None = None,
    ) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"{in_channels} input and {out_channels} output channels must be divisible by groups={groups}")
        self.settings = LayerSettings(kind, num_experts, gates, routing, router, router_norm)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = _pair(kernel_size), _pair(stride)
        self.padding = _checked_padding(padding)
        self.dilation = _pair(dilation)
        self.kind, self.num_experts, self.routing = kind, self.settings.num_experts, self.settings.routing
        self.kernel_shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.units = self._units()
        size, is_mixture = math.prod(self.kernel_shape), kind == "mixture"
        # Experts are flat, (M, K): a 5-D parameter would make `to(memory_format=channels_last)` fail.
        has_one_kernel = kind == "residual" or (kind == "omni" and self.num_experts == 1)
        shape: tuple[int, ...] = self.kernel_shape if has_one_kernel else (self.num_experts, size)
        self.weight = nn.Parameter(torch.empty(shape))
        self.delta = nn.Parameter(torch.empty(self.num_experts, size)) if kind == "residual" else None
        bias_shape: tuple[int, ...] = (self.num_experts, out_channels) if is_mixture else (out_channels,)
        self.bias = nn.Parameter(torch.empty(bias_shape)) if bias else None
        self.register_parameter("shift", None)  # (O,), of a mixture: a bias that is added without mixing; see fold
        self.router: Router = self._build_router()
        self.reset_parameters()

    def _units(self) -> dict[Gate, int]:
        """Return the number of routing weights of each gate, in their order, without gates that change nothing."""
        is_depthwise = self.in_channels == self.out_channels == self.groups
        sizes = {"input": self.in_channels, "filter": 0 if is_depthwise else self.out_channels}
        sizes["position"] = math.prod(self.kernel_size) if self.kernel_size != (1, 1) else 0
        units = {gate: sizes[gate] for gate in self.settings.gates if sizes[gate]}
        if self.kind != "omni" or self.num_experts > 1:
            units["expert"] = self.num_experts
        if not units:
            raise ValueError(
                f"this layer would not be dynamic: it has one expert, and of gates={list(self.settings.gates)} none changes "
                f"a {'depthwise' if is_depthwise else '1x1'} convolution; add 'input' or experts"
            )
        return units

    def _build_router(self) -> Router:
        if self.settings.router == "bottleneck":
            return BottleneckRouter(self.in_channels, self.units, self.routing, self.settings.router_norm)
        if self.routing == "sigmoid":
            return LinearRouter(self.in_channels, self.num_experts)
        return MlpRouter(self.in_channels, self.num_experts)

    @classmethod
    def like(cls, conv: nn.Conv2d, num_experts: int | None = None, routing: Routing | None = None, **settings: Any) -> Self:
        """Return a new dynamic layer that can replace ``conv``: same shapes, device, precision and mode.

        ``settings`` are ``kind``, ``gates``, ``router`` and ``router_norm``. A layer with one kernel beside its gates or
        changes (residual, and omni with one expert) takes over the weights of ``conv`` and computes the same; experts of
        other layers are new.

        Raises ValueError for a subclass of ``nn.Conv2d`` other than timm's ``Conv2dSame``, because its forward may differ,
        and for padding that is not with zeros.
        """
        if not can_be_dynamic(conv):
            raise ValueError(
                f"{conv} cannot be made dynamic: expected a plain nn.Conv2d that pads with zeros, or timm's Conv2dSame; "
                f"this is a {type(conv).__name__} with padding={conv.padding!r}, padding_mode={conv.padding_mode!r}"
            )
        channels, kernel_size, padding = (conv.in_channels, conv.out_channels), _pair(conv.kernel_size), padding_of(conv)
        shape = (*channels, kernel_size, _pair(conv.stride), padding, _pair(conv.dilation), conv.groups)
        layer = cls(*shape, bias=conv.bias is not None, num_experts=num_experts, routing=routing, **settings)
        layer = layer.to(conv.weight)
        if layer.weight.shape == conv.weight.shape:
            layer.upcycle(conv.weight, conv.bias)
        return layer.requires_grad_(conv.weight.requires_grad).train(conv.training)

    def reset_parameters(self) -> None:
        """Initialize every expert as ``nn.Conv2d`` initializes a kernel of this shape, and changes of a kernel with 0."""
        fan_in = math.prod(self.kernel_shape[1:])
        # kaiming_uniform(a=sqrt(5)) with the fan-in of one kernel, not of a flat row
        nn.init.uniform_(self.weight, -(fan_in**-0.5), fan_in**-0.5)
        if self.delta is not None:
            nn.init.zeros_(self.delta)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -(fan_in**-0.5), fan_in**-0.5)

    @property
    def has_constant_kernel(self) -> bool:
        """True if only channels are gated: every image is convolved with the same kernel."""
        return self.units.keys() <= {"input", "filter"}

    @property
    def experts(self) -> Tensor:
        """The experts, flat (M, K): the changes of a residual layer; a layer with one kernel has one row."""
        return (self.weight if self.delta is None else self.delta).reshape(self.num_experts, -1)

    @property
    def lr_ratios(self) -> dict[str, float]:
        """Factors of the learning rate that parameters of the layer need, by name.

        The M changes of a residual layer move the kernel of an image together. The size of an orthogonalized step does not
        depend on the gradient, so at the full rate they move it several times as far as a plain kernel, in a direction that
        depends on the image: training then ends at a higher loss (docs/dynamic-study.md).
        """
        return {} if self.delta is None else {"delta": 1 / self.num_experts}

    def matrices(self) -> dict[str, tuple[tuple[int, ...], int]]:
        """Return the shape and number of the kernels in each parameter that holds kernels, by its name."""
        counts = {"weight": 1 if self.weight.ndim == 4 else self.num_experts, "delta": self.num_experts}
        return {name: (self.kernel_shape, count) for name, count in counts.items() if getattr(self, name) is not None}

    def routing_weights(self, x: Tensor) -> Tensor:
        """Return the routing weights (B, U) for ``x`` (B, I, H, W), all gates side by side, in the precision of the weights.

        Their order is that of ``units``; of a mixture they are the weights (B, M) of the experts. Autocast is off: small
        errors here would change the kernel of the whole image.
        """
        with _without_autocast(x.device.type):
            return self.router(x.mean(dim=(2, 3), dtype=self.weight.dtype))

    def gate_weights(self, routing_weights: Tensor) -> GateWeights:
        """Split ``routing_weights`` (B, U) by gate."""
        if len(self.units) == 1:
            return dict.fromkeys(self.units, routing_weights)
        return dict(zip(self.units, routing_weights.split(list(self.units.values()), dim=1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.routing_weights(x))

    def convolve(self, x: Tensor, routing_weights: Tensor) -> Tensor:
        """Return the output for ``x`` (B, I, H, W) and given ``routing_weights`` (B, U)."""
        gates = self.gate_weights(routing_weights)
        if len(x) == 1 and gates.keys() & {"input", "filter"} and not self._is_traced_for_any_batch():
            return self._convolve_one(x, routing_weights, gates)
        x = self.scale_inputs(x, gates)
        filters = gates.get("filter")
        if self.has_constant_kernel:
            x, padding = self.pad(x)
            bias = None if filters is not None else self.bias
            y = F.conv2d(x, self.weight, bias, self.stride, padding, self.dilation, self.groups)
        else:
            with _without_autocast(x.device.type):
                kernels = self.mix_kernels(routing_weights)
                biases = None if filters is not None else self.mix_biases(routing_weights)
            x, padding = self.pad(x)
            y = convolve_each(x, kernels, biases, self.stride, padding, self.dilation, self.groups)
        return y if filters is None else self.scale_filters(y, filters)

    def _is_traced_for_any_batch(self) -> bool:
        """Return True while a graph is traced that may have any batch size, whatever that of the example is."""
        return self.has_constant_kernel and torch.jit.is_tracing()

    def _convolve_one(self, x: Tensor, routing_weights: Tensor, gates: GateWeights) -> Tensor:
        """Convolve one image (1, I, H, W): it is faster to scale its kernel than the maps before and after it."""
        with _without_autocast(x.device.type):
            if "expert" in gates:
                kernel = self.mix_kernels(routing_weights).view(self.kernel_shape)
            else:  # not by mix_kernels, so that the kernel keeps the memory layout of the weight
                kernel = self.weight
                if "position" in gates:
                    kernel = kernel * gates["position"].view(1, 1, *self.kernel_size)
            kernel = kernel * self._channel_scales(gates)
        x, padding = self.pad(x)
        return F.conv2d(x, kernel, self.bias, self.stride, padding, self.dilation, self.groups)

    def _channel_scales(self, gates: GateWeights) -> Tensor:
        """Return the gates of the channels of one image as factors of a kernel, (O or 1, I / groups or 1, 1, 1)."""
        if "input" not in gates:
            return gates["filter"].view(-1, 1, 1, 1)
        inputs = gates["input"].view(self.groups, 1, -1).expand(-1, self.out_channels // self.groups, -1)
        inputs = (inputs.flatten(0, 1) if self.groups > 1 else inputs[0, :1])[..., None, None]
        return gates["filter"].view(-1, 1, 1, 1) * inputs if "filter" in gates else inputs

    def scale_inputs(self, x: Tensor, gates: GateWeights) -> Tensor:
        """Multiply the channels of ``x`` (B, I, H, W) by the input gate, if there is one."""
        return x * gates["input"].to(x.dtype).view(-1, self.in_channels, 1, 1) if "input" in gates else x

    def scale_filters(self, y: Tensor, filters: Tensor) -> Tensor:
        """Multiply the channels of ``y`` (B, O, H', W') by ``filters`` (B, O), then add the bias, which has no gate."""
        filters = filters.to(y.dtype).view(-1, self.out_channels, 1, 1)
        return y * filters if self.bias is None else torch.addcmul(self.bias.to(y.dtype).view(1, -1, 1, 1), y, filters)

    def mix_kernels(self, routing_weights: Tensor) -> Tensor:
        """Return the kernels (B, O, I / groups, k, k) for ``routing_weights`` (B, U), without the gates of channels."""
        gates = self.gate_weights(routing_weights)
        if self.delta is not None:
            kernels = torch.addmm(self.weight.flatten(), gates["expert"], self.delta)
        elif "expert" in gates:
            kernels = gates["expert"] @ self.weight
        else:
            kernels = self.weight.flatten().expand(len(routing_weights), -1)
        kernels = kernels.view(-1, *self.kernel_shape)
        return kernels * gates["position"].view(-1, 1, 1, *self.kernel_size) if "position" in gates else kernels

    def full_kernels(self, routing_weights: Tensor) -> Tensor:
        """Return the kernels (B, O, I / groups, k, k) for ``routing_weights`` (B, U), with all gates inside."""
        kernels, gates = self.mix_kernels(routing_weights), self.gate_weights(routing_weights)
        if "input" in gates:
            by_group = gates["input"].view(len(kernels), self.groups, 1, -1)
            inputs = by_group.expand(-1, -1, self.out_channels // self.groups, -1).flatten(1, 2)  # (B, O, I / groups)
            kernels = kernels * inputs[..., None, None]
        return kernels * gates["filter"][:, :, None, None, None] if "filter" in gates else kernels

    def mix_biases(self, routing_weights: Tensor) -> Tensor | None:
        """Return the biases (B, O) for ``routing_weights`` (B, U), or None if the layer has no bias."""
        if self.kind != "mixture":
            return None if self.bias is None else self.bias.expand(routing_weights.shape[0], -1)
        biases = None if self.bias is None else routing_weights @ self.bias
        if self.shift is not None:
            biases = self.shift.expand(routing_weights.shape[0], -1) if biases is None else biases + self.shift
        return biases

    def pad(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return ``x``, with zeros around it if the padding is "same", and the padding that the convolution must add."""
        if self.padding != "same":
            return x, self.padding
        return pad_same(x, self.kernel_size, self.stride, self.dilation), (0, 0)

    @torch.no_grad()
    def fold(self, scale: Tensor, shift: Tensor) -> None:
        """Multiply output channel o by ``scale[o]`` and add ``shift[o]``, in place. This folds a BatchNorm into the layer.

        The scale goes into every kernel. The shift is added once, without mixing or gates.
        """
        for name, (_, count) in self.matrices().items():
            weight = getattr(self, name)
            weight.copy_((weight.reshape(count, self.out_channels, -1) * scale[:, None]).reshape(weight.shape))
        if self.bias is not None:
            self.bias.mul_(scale)
        name = "shift" if self.kind == "mixture" else "bias"
        before = getattr(self, name)
        if self.kind == "mixture" and before is not None:
            before = before * scale
        total = shift if before is None else before + shift
        setattr(self, name, nn.Parameter(total.detach().clone(), requires_grad=self.weight.requires_grad))

    @torch.no_grad()
    def upcycle(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Take over the ``weight`` (O, I / groups, k, k) and ``bias`` (O,) of a plain convolution, to compute the same.

        Gates become 1 and changes of the kernel 0. Every expert becomes that kernel, divided by the sum of an image's
        routing weights, which is made the same for every image. Raises ValueError for other shapes.

        The experts are equal at first. Training makes them differ, because their routing weights, and so their
        gradients, differ. With equal routing weights they would stay equal.
        """
        if tuple(weight.shape) != self.kernel_shape or (bias is None) != (self.bias is None):
            raise ValueError(
                f"a kernel {tuple(weight.shape)} {'without' if bias is None else 'with'} bias cannot be upcycled "
                f"into this layer; expected {self.kernel_shape} {'without' if self.bias is None else 'with'} bias"
            )
        self.router.start_as_plain()
        is_sigmoid = self.kind == "mixture" and self.routing == "sigmoid"
        total = self.num_experts / 2 if is_sigmoid else 1.0
        weight = weight if self.weight.ndim == 4 else weight.flatten() / total
        self.weight.copy_(weight.expand_as(self.weight))
        if self.delta is not None:
            self.delta.zero_()
        if bias is not None and self.bias is not None:
            self.bias.copy_((bias / total).expand_as(self.bias))
        self.shift = None  # it belonged to a normalization that was folded in before

    def extra_repr(self) -> str:
        """Describe the layer the way ``nn.Conv2d`` does."""
        gates = f", gates={list(self.settings.gates)}" if self.settings.gates else ""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, groups={self.groups}, kind={self.kind!r}, num_experts={self.num_experts}, "
            f"routing={self.routing!r}{gates}"
        )


def dynamic_layers(module: nn.Module) -> dict[str, DynamicConv2d]:
    """Return the dynamic layers of ``module`` by name, in the order of its definition."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, DynamicConv2d)}


def _without_autocast(device_type: str) -> AbstractContextManager:
    # Entering a context takes as long as mixing a small kernel, so it is done only if needed. The meta device, on which
    # multiply-adds are counted, has no autocast.
    if device_type != "meta" and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _checked_padding(padding: int | Padding | str) -> Padding:
    """Return ``padding`` as two numbers of zeros, or "same". Raises ValueError for another word."""
    if isinstance(padding, tuple | list | int):
        return _pair(padding)
    if padding not in ("same", "valid"):
        raise ValueError(f"unknown padding {padding!r}; choose 'same', 'valid' or a number of zeros")
    return "same" if padding == "same" else (0, 0)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    height, width = (value, value) if isinstance(value, int) else value
    return height, width
