"""Exchanging convolutions for dynamic ones: in any network, by name, from scratch or from trained weights."""

import re
from collections.abc import Sequence
from copy import deepcopy
from typing import Literal

from torch import Tensor, nn

from detector.blocks.dynamic import DynamicConv2d, dynamic_layers
from detector.config import Routing

# Places in a Detector, as patterns over the names of its convolutions
PLACES = {
    "backbone-bottlenecks": r"backbone\.stage_p\d\.blocks\..*conv[12]\.conv",  # 3x3
    "neck-bottlenecks": r"neck\.(top_down|bottom_up)\.\d\.blocks\..*conv[12]\.conv",  # 3x3
    "downsample": r"backbone\.down_p\d\.conv",  # 3x3, stride 2
    "pointwise": r"(backbone\.stage_p\d|neck\.(top_down|bottom_up)\.\d)(\.blocks\.\d)?\.(split|merge|main|side)\.conv",
    # ParameterNet's rule. Convolutions of the stem and the last ones of the head, which have no normalisation, stay.
    "all": r"(?!backbone\.stem\.).*\.conv",
}
Init = Literal["fresh", "upcycle"]


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
        exchange(module, name, exchanged[conv])
    return names


def exchange(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Put ``layer`` where ``module`` has its submodule ``name``."""
    parent, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(parent), attribute, layer)


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
