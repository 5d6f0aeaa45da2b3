"""Convert networks: make convolutions dynamic, new or from trained weights, and make them plain again."""

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from detector.batch import Batch, network_input
from detector.dynamic.conv2d import DynamicConv2d, dynamic_layers
from detector.dynamic.plain import SameConv2d
from detector.dynamic.router import Gate, RouterName, RouterNormName, Routing
from detector.dynamic.routing import record_routing
from detector.dynamic.settings import Kind, LayerSettings

Init = Literal["fresh", "upcycle"]


@dataclass(frozen=True)
class DynamicConfig:
    """Which convolutions of a network are dynamic, and how. The fields are arguments of ``make_dynamic``.

    A field of a layer that is None becomes the default of the kind. ``temperature`` divides the logits of the routers at the
    start of a training, and falls linearly to 1 within its first tenth (as in DyConv, CVPR 2020).

    Raises ValueError for settings that do not go together.
    """

    where: str | tuple[str, ...] = "backbone-bottlenecks"
    num_experts: int | None = None
    routing: Routing | None = None
    kind: Kind = "mixture"
    gates: tuple[Gate, ...] | None = None
    router: RouterName | None = None
    router_norm: RouterNormName | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        settings = LayerSettings(self.kind, self.num_experts, self.gates, self.routing, self.router, self.router_norm)
        for name, value in asdict(settings).items():
            object.__setattr__(self, name, value)
        if isinstance(self.temperature, bool) or not isinstance(self.temperature, int | float) or not self.temperature >= 1:
            raise ValueError(f"temperature is {self.temperature!r}; expected a number of at least 1")

    @property
    def layer(self) -> dict[str, Any]:
        """The settings of each layer, as arguments of ``make_dynamic``."""
        return {field.name: getattr(self, field.name) for field in fields(LayerSettings)}


def make_dynamic(
    module: nn.Module,
    where: str | Sequence[str],
    num_experts: int | None = None,
    routing: Routing | None = None,
    init: Init = "fresh",
    **settings: Any,
) -> list[str]:
    """Replace convolutions of any ``module`` by dynamic ones, in place, and return the names of the replaced layers.

    Args:
        module: a network, for instance a Detector, or a model of torchvision or timm.
        where: one or several regular expressions, each over whole module names. If the network has a dict
            ``convolution_patterns`` (name -> regular expression), as Detector has, these names may be used, too.
        num_experts, routing: see ``DynamicConv2d``, as for its other ``settings``: ``kind``, ``gates``, ``router`` and
            ``router_norm``.
        init: ``"fresh"`` initializes new experts; ``"upcycle"`` takes over the present weights, so that the network computes
            the same as before. Layers with one kernel (residual, and omni with one expert) always take it over.

    Raises ValueError if an entry of ``where`` matches no convolution, or one that cannot be dynamic (see
    ``DynamicConv2d.like``). Nothing is replaced in that case.
    """
    if init not in get_args(Init):
        raise ValueError(f"unknown init {init!r}; choose 'fresh' or 'upcycle'")
    settings = asdict(LayerSettings(num_experts=num_experts, routing=routing, **settings))
    layers = {n: m for n, m in module.named_modules(remove_duplicate=False) if isinstance(m, nn.Conv2d) and n}
    matching = _matching_names(list(layers), [where] if isinstance(where, str) else where, module)
    replacements = {layers[name]: DynamicConv2d.like(layers[name], **settings) for name in matching}
    names = [name for name in layers if layers[name] in replacements]  # a shared layer has several names
    for name in names:
        conv = layers[name]
        if init == "upcycle":
            replacements[conv].upcycle(conv.weight, conv.bias)
        module.set_submodule(name, replacements[conv])
    return names


def upcycle_state_dict(module: nn.Module, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the ``state_dict`` of a plain network for ``module``, the same network with dynamic layers.

    Plain kernels of layers that are dynamic in ``module`` become experts and routers, see ``DynamicConv2d.upcycle``.
    Everything else stays. The result is a new dict.
    """
    converted = dict(state_dict)
    for name, layer in dynamic_layers(module).items():
        weight = state_dict.get(f"{name}.weight")
        if weight is None or weight.ndim != 4:
            continue  # missing, or dynamic already: load_state_dict decides
        upcycled = deepcopy(layer)
        upcycled.upcycle(weight, state_dict.get(f"{name}.bias"))
        converted |= {f"{name}.{key}": value for key, value in upcycled.state_dict().items()}
    return converted


@torch.no_grad()
def collapse(network: nn.Module, dataloader: Iterable[Batch]) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a copy of ``network`` without dynamic layers, and the mean routing weights (E,) of each layer by its name.

    Each dynamic layer becomes the plain convolution that it is for the mean routing weights over the images of
    ``dataloader``: for runtimes that need constant kernels. Evaluate the copy as any other network to see what it loses.
    ``network`` itself stays as it is.

    Raises ValueError if there is no dynamic layer or no image.
    """
    network = deepcopy(network).eval()
    if not dynamic_layers(network):
        raise ValueError("the network has no dynamic layer to collapse; build a variant dyn_*, or use make_dynamic")
    weight = next(network.parameters())
    with record_routing(network) as records:
        for batch in dataloader:
            network(network_input(batch["images"].to(weight.device), weight.dtype))
    if not any(records.values()):
        raise ValueError("the dataloader has no images; collapse averages the routing weights over them")
    means = {name: torch.cat(parts).mean(dim=0) for name, parts in records.items() if parts}
    for name, mean in means.items():
        network.set_submodule(name, plain_convolution(network.get_submodule(name), mean))
    return network, means


@torch.no_grad()
def plain_convolution(layer: DynamicConv2d, routing_weights: Tensor) -> nn.Conv2d:
    """Return the convolution that ``layer`` is for an image with these ``routing_weights`` (U,)."""
    routing_weights = routing_weights[None].to(layer.weight)
    kernels, biases = layer.full_kernels(routing_weights), layer.mix_biases(routing_weights)
    conv_class, padding = (SameConv2d, 0) if layer.padding == "same" else (nn.Conv2d, layer.padding)
    shape = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, padding, layer.dilation)
    conv = conv_class(*shape, layer.groups, bias=biases is not None).to(layer.weight)
    conv.weight.copy_(kernels[0])
    if biases is not None:
        conv.bias.copy_(biases[0])
    return conv.requires_grad_(layer.weight.requires_grad).train(layer.training)


def _matching_names(names: list[str], where: Sequence[str], module: nn.Module) -> list[str]:
    """Return those of ``names``, in their order, that any entry of ``where`` matches. Each entry must match some."""
    patterns: Mapping[str, str] = getattr(module, "convolution_patterns", {})
    choice = f"choose from {', '.join(patterns)}, or give" if patterns else "give"
    matching: set[str] = set()
    for entry in where:
        try:
            pattern = re.compile(patterns.get(entry, entry))
        except re.error as error:
            raise ValueError(f"where: {entry!r} is not a regular expression: {error}") from None
        matches = {name for name in names if pattern.fullmatch(name)}
        if not matches:
            raise ValueError(
                f"where: {entry!r} names no convolution of {type(module).__name__}; {choice} a regular expression over "
                f"the names of its convolutions, such as {', '.join(names[1:3]) or '(it has none)'}"
            )
        matching |= matches
    if not matching:
        raise ValueError(f"where is empty; {choice} a regular expression over names of convolutions")
    return [name for name in names if name in matching]
