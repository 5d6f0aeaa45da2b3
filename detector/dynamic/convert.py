"""Convert networks: make convolutions dynamic, new or from trained weights."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal, get_args

from torch import Tensor, nn

from detector.dynamic.conv2d import DynamicConv2d, dynamic_layers
from detector.dynamic.plain import can_be_dynamic
from detector.dynamic.router import Gate, RouterName, RouterNormName, Routing
from detector.dynamic.settings import Kind, LayerSettings

Init = Literal["fresh", "upcycle"]


@dataclass(frozen=True)
class DynamicConfig:
    """Which convolutions of a network are dynamic, and how. The fields are arguments of ``make_dynamic``.

    A field of a layer that is None becomes the default of the kind. ``temperature`` divides the logits of the experts'
    weights at the start of a training, and falls linearly to 1 within its first tenth (as in DyConv, CVPR 2020). It is for
    softmax and sigmoid weights.

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
        object.__setattr__(self, "where", _checked_where(self.where))
        self._check_temperature()

    def _check_temperature(self) -> None:
        if isinstance(self.temperature, bool) or not isinstance(self.temperature, int | float):
            raise ValueError(f"temperature is {self.temperature!r}; expected a number of at least 1")
        if not 1 <= self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; expected a number of at least 1")
        is_constant = self.routing == "softmax" and self.num_experts == 1
        if self.temperature > 1 and (self.routing == "centred" or is_constant):
            reason = "num_experts is 1" if is_constant else "routing is 'centred'"
            raise ValueError(
                f"temperature is {self.temperature}, but {reason}: it is for softmax and sigmoid weights of several "
                "experts, not for gates; leave it out"
            )

    @property
    def layer(self) -> dict[str, Any]:
        """The settings of each layer, as arguments of ``make_dynamic``."""
        return {field.name: getattr(self, field.name) for field in fields(LayerSettings)}

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values, for files: lists in place of tuples."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def _checked_where(where: Any) -> str | tuple[str, ...]:
    """Return ``where`` of DynamicConfig, several names as a tuple."""
    is_list = isinstance(where, list | tuple) and where and all(isinstance(entry, str) and entry for entry in where)
    if not is_list and not (isinstance(where, str) and where):
        raise ValueError(
            f"where is {where!r}; expected a name such as 'backbone-bottlenecks', a regular expression, or a list"
        )
    return where if isinstance(where, str) else tuple(where)


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
            ``convolution_patterns`` (name -> regular expression), as Detector has, these names may be used, too. Other
            networks have the groups ``all`` (all convolutions that can be dynamic but the first), and its parts ``spatial``
            (kernels above 1x1), ``pointwise`` and ``depthwise``.
        num_experts: see ``DynamicConv2d``.
        routing: see ``DynamicConv2d``.
        init: ``"fresh"`` initializes new experts; ``"upcycle"`` takes over the present weights, so that the network computes
            the same as before. Layers with one kernel (residual, and omni with one expert) always take it over.
        **settings: ``kind``, ``gates``, ``router`` and ``router_norm``; see ``DynamicConv2d``.

    Raises ValueError if an entry of ``where`` matches no convolution, or one that cannot be dynamic (see
    ``DynamicConv2d.like``). Nothing is replaced in that case.
    """
    if init not in get_args(Init):
        raise ValueError(f"unknown init {init!r}; choose 'fresh' or 'upcycle'")
    _check_names(settings)
    settings = asdict(LayerSettings(num_experts=num_experts, routing=routing, **settings))
    layers = {n: m for n, m in module.named_modules(remove_duplicate=False) if isinstance(m, nn.Conv2d) and n}
    matching = _matching_names(layers, [where] if isinstance(where, str) else where, module)
    replacements = {layers[name]: _dynamic_like(layers[name], name, settings) for name in matching}
    names = [name for name in layers if layers[name] in replacements]  # a shared layer has several names
    for name in names:
        conv = layers[name]
        if init == "upcycle":
            replacements[conv].upcycle(conv.weight, conv.bias)
        module.set_submodule(name, replacements[conv])
    return names


def _dynamic_like(conv: nn.Conv2d, name: str, settings: Mapping[str, Any]) -> DynamicConv2d:
    """Return ``DynamicConv2d.like``; an error names the convolution."""
    try:
        return DynamicConv2d.like(conv, **settings)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _check_names(settings: Iterable[str]) -> None:
    known = [field.name for field in fields(LayerSettings)]
    for name in settings:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? It takes" if near else "it takes"
            raise ValueError(f"unknown setting of make_dynamic: {name!r}; {hint} where, init, {', '.join(known)}")


def upcycle_state_dict(module: nn.Module, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the ``state_dict`` of a plain network for ``module``, the same network with dynamic layers.

    Plain kernels of layers that are dynamic in ``module`` become experts and routers, see ``DynamicConv2d.upcycle``.
    Everything else stays. The result is a new dict.
    """
    converted, layers = dict(state_dict), dynamic_layers(module)
    for name in plain_kernels(module, state_dict):
        upcycled, weight = deepcopy(layers[name]), state_dict[f"{name}.weight"]
        upcycled.upcycle(weight, state_dict.get(f"{name}.bias"))
        converted |= {f"{name}.{key}": value for key, value in upcycled.state_dict().items()}
    return converted


def plain_kernels(module: nn.Module, state_dict: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the dynamic layers of ``module`` that are plain convolutions in ``state_dict``.

    Layers that are missing, or dynamic already, are not among them.
    """
    dynamic = {name.partition(".router.")[0] for name in state_dict if ".router." in name}
    kernels = {name: state_dict.get(f"{name}.weight") for name in dynamic_layers(module) if name not in dynamic}
    return [name for name, kernel in kernels.items() if kernel is not None and kernel.ndim == 4]


def _matching_names(layers: Mapping[str, nn.Conv2d], where: Sequence[str], module: nn.Module) -> list[str]:
    """Return the names of those of ``layers``, in their order, that any entry of ``where`` matches; each must match some."""
    patterns: Mapping[str, str] = getattr(module, "convolution_patterns", {})
    groups = {} if patterns else _groups(layers)
    known = [*patterns, *groups]
    choice = f"choose from {', '.join(known)}, or give" if known else "give"
    if not isinstance(where, list | tuple) or not all(isinstance(entry, str) for entry in where):
        raise ValueError(f"where is {where!r}; {choice} a regular expression over names of convolutions, or a list of them")
    matching: set[str] = set()
    for entry in where:
        matches = groups.get(entry) or _matches(patterns.get(entry, entry), layers)
        if not matches:
            near = get_close_matches(entry, known, n=1)
            hint = f"did you mean {near[0]!r}? Else " if near else ""
            raise ValueError(
                f"where: {entry!r} names no convolution of {type(module).__name__}; {hint}{choice} a regular expression "
                f"over the names of its convolutions, such as {', '.join(list(layers)[1:3]) or '(it has none)'}"
            )
        matching |= set(matches)
    if not matching:
        raise ValueError(f"where is empty; {choice} a regular expression over names of convolutions")
    return [name for name in layers if name in matching]


def _matches(pattern: str, names: Iterable[str]) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"where: {pattern!r} is not a regular expression: {error}") from None
    return [name for name in names if compiled.fullmatch(name)]


def _groups(layers: Mapping[str, nn.Conv2d]) -> dict[str, list[str]]:
    """Return groups of the convolutions of any network: those that can be dynamic, without the first one."""
    able = {name: conv for name, conv in list(layers.items())[1:] if can_be_dynamic(conv)}
    depthwise = [name for name, conv in able.items() if conv.groups == conv.in_channels > 1]
    pointwise = [name for name, conv in able.items() if conv.kernel_size == (1, 1) and name not in depthwise]
    spatial = [name for name in able if name not in {*depthwise, *pointwise}]
    groups = {"all": list(able), "spatial": spatial, "pointwise": pointwise, "depthwise": depthwise}
    return {group: names for group, names in groups.items() if names}
