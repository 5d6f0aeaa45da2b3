"""Convert networks: make convolutions dynamic, from scratch or from trained weights, and plain again."""

import re
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from detector.batch import Batch, network_input
from detector.dynamic.conv2d import DynamicConv2d, Routing, dynamic_layers
from detector.dynamic.routing import record_routing

# Places in a Detector, as patterns over the names of its convolutions
PLACES = {
    "backbone-bottlenecks": r"backbone\.stage_p\d\.blocks\..*conv[12]\.conv",  # 3x3
    "neck-bottlenecks": r"neck\.(top_down|bottom_up)\.\d\.blocks\..*conv[12]\.conv",  # 3x3
    "downsample": r"backbone\.down_p\d\.conv",  # 3x3, stride 2
    "pointwise": r"(backbone\.stage_p\d|neck\.(top_down|bottom_up)\.\d)(\.blocks\.\d)?\.(split|merge|main|side)\.conv",
    # ParameterNet's rule. Convolutions of the stem and the last ones of the head, which have no normalization, stay.
    "all": r"(?!backbone\.stem\.).*\.conv",
}
Init = Literal["fresh", "upcycle"]


@dataclass(frozen=True)
class DynamicConfig:
    """Which convolutions are dynamic, and how (ParameterNet, arXiv:2306.14525); see ``make_dynamic``."""

    where: str | tuple[str, ...] = "backbone-bottlenecks"  # names in PLACES, or patterns
    num_experts: int = 4
    routing: Routing = "sigmoid"


def make_dynamic(
    module: nn.Module,
    where: str | Sequence[str],
    num_experts: int = 4,
    routing: Routing = "sigmoid",
    init: Init = "fresh",
) -> list[str]:
    """Exchange convolutions of any ``module`` for dynamic ones, in place, and return the names of those exchanged.

    Args:
        module: a network, for instance a Detector, or a model of torchvision or timm.
        where: names in ``PLACES``, or regular expressions that match whole module names; several are combined.
        num_experts: kernels that each layer mixes.
        routing: ``"sigmoid"`` or ``"softmax"``, see ``DynamicConv2d``.
        init: ``"fresh"`` draws new experts, ``"upcycle"`` makes them of the present weights: the network computes the same.

    Raises ValueError if any of ``where`` names no convolution, or one that cannot be dynamic (``DynamicConv2d.like``);
    nothing is exchanged then.
    """
    if init not in ("fresh", "upcycle"):
        raise ValueError(f"unknown init {init!r}; choose 'fresh' or 'upcycle'")
    layers = {n: m for n, m in module.named_modules(remove_duplicate=False) if isinstance(m, nn.Conv2d) and n}
    chosen = _selected(list(layers), [where] if isinstance(where, str) else where, type(module).__name__)
    exchanged = {layers[name]: DynamicConv2d.like(layers[name], num_experts, routing) for name in chosen}
    names = [name for name in layers if layers[name] in exchanged]  # a shared layer, under all its names
    for name in names:
        conv = layers[name]
        if init == "upcycle":
            exchanged[conv].upcycle(conv.weight, conv.bias)
        module.set_submodule(name, exchanged[conv])
    return names


def upcycle_state_dict(module: nn.Module, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state_dict`` of the plain counterpart of ``module`` as one that ``module``, with dynamic layers, can load.

    Plain kernels of layers that are dynamic in ``module`` become experts and routers, everything else is passed on.
    """
    converted = dict(state_dict)
    for name, layer in dynamic_layers(module).items():
        weight = state_dict.get(f"{name}.weight")
        if weight is None or weight.ndim != 4:
            continue  # missing, or dynamic there too: for load_state_dict to judge
        upcycled = deepcopy(layer)
        upcycled.upcycle(weight, state_dict.get(f"{name}.bias"))
        converted |= {f"{name}.{key}": value for key, value in upcycled.state_dict().items()}
    return converted


@torch.no_grad()
def collapse(network: nn.Module, dataloader: Iterable[Batch]) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a copy of ``network`` with plain convolutions for its dynamic layers, and the routing weights (E,) of each.

    Every layer becomes the convolution of its mean routing weights over the images of ``dataloader``, for runtimes that
    need constant kernels. Evaluate the copy as any other network to see what this costs. ``network`` itself is unchanged.

    Raises ValueError if there is no dynamic layer or no image.
    """
    network = deepcopy(network).eval()
    if not dynamic_layers(network):
        raise ValueError("the network has no dynamic layer to collapse; was it built as one of dyn_*?")
    weight = next(network.parameters())
    with record_routing(network) as records:
        for batch in dataloader:
            network(network_input(batch["images"].to(weight.device), weight.dtype))
    if not any(records.values()):
        raise ValueError("the dataloader gave no images; the routing weights are averaged over some")
    means = {name: torch.cat(parts).mean(dim=0) for name, parts in records.items() if parts}
    for name, mean in means.items():
        network.set_submodule(name, plain_convolution(network.get_submodule(name), mean))
    return network, means


@torch.no_grad()
def plain_convolution(layer: DynamicConv2d, routing_weights: Tensor) -> nn.Conv2d:
    """Return the convolution that ``layer`` is for an image with these ``routing_weights`` (E,)."""
    kernels, biases = layer.mix(routing_weights[None].to(layer.weight))
    shape = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    conv = nn.Conv2d(*shape, layer.groups, bias=biases is not None).to(layer.weight)
    conv.weight.copy_(kernels[0])
    if biases is not None:
        conv.bias.copy_(biases[0])
    return conv.requires_grad_(layer.weight.requires_grad).train(layer.training)


def _selected(names: list[str], where: Sequence[str], owner: str) -> list[str]:
    """Return those of ``names``, in their order, that any of ``where`` matches; each must match some."""
    matched: set[str] = set()
    for place in where:
        try:
            pattern = re.compile(PLACES.get(place, place))
        except re.error as error:
            raise ValueError(f"dynamic place {place!r} is not a regular expression: {error}") from None
        found = {name for name in names if pattern.fullmatch(name)}
        if not found:
            raise ValueError(
                f"dynamic place {place!r} names no convolution of {owner}; use some of {', '.join(PLACES)}, or a pattern "
                f"over names of its convolutions, such as {', '.join(names[1:3]) or '(it has none)'}"
            )
        matched |= found
    if not matched:
        raise ValueError(f"where is empty; name some of {', '.join(PLACES)}, or give a pattern over module names")
    return [name for name in names if name in matched]
