"""Infer the variant of weights from their names and shapes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from detector.dynamic import DynamicConfig
from detector.dynamic.router import GATES
from detector.network.config import CONVOLUTION_PATTERNS, VARIANTS
from detector.network.head import default_class_channels

FIRST_CLASS_LAYER_NORM = "head.one2many.cls.0.0.norm.weight"  # (channels of the finest level,)
LAST_CLASS_BIAS = "head.one2many.cls.0.4.bias"
CLASS_TOWER_NORM = "head.one2many.cls.0.1.norm.weight"  # (class_channels,): shows how wide the class towers are


def infer_variant(state_dict: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """Return the variant of weights under our names, and the overrides of its configuration.

    Raises ValueError if no variant has such weights.
    """
    if any(name.startswith("backbone.trunk.") for name in state_dict):
        raise ValueError(
            "has a backbone that is not ours, but does not name it; convert the checkpoint with python -m detector weights, "
            "which writes the name into the file"
        )
    stem_channels = len(_tensor(state_dict, "backbone.stem.norm.weight"))  # the conv's first axis may be its experts
    repeats = _count(state_dict, r"backbone\.stage_p4\.blocks\.(\d+)\.")
    max_level = 6 if _count(state_dict, r"backbone\.stage_p(6)\.") else 5
    min_level = max_level + 1 - _count(state_dict, r"head\.one2one\.box\.(\d+)\.")
    plain = {name: config for name, config in VARIANTS.items() if config.dynamic is None}
    variants = {(c.channels(64), c.repeats(2), c.min_level, c.max_level): name for name, c in plain.items()}
    name = variants.get((stem_channels, repeats, min_level, max_level))
    if name is None:
        raise ValueError(
            f"fits no variant: {stem_channels} channels in the first layer, {repeats} blocks a stage, levels {min_level} "
            f"to {max_level}"
        )
    overrides = class_channels_override(state_dict, num_classes(state_dict))
    dynamic = _dynamic_settings(state_dict)
    if dynamic is None:
        return name, overrides
    dynamic_name = name.replace("yolo26", "dyn")
    name = dynamic_name if dynamic_name in VARIANTS else name
    return name, overrides if VARIANTS[name].dynamic == DynamicConfig(**dynamic) else overrides | {"dynamic": dynamic}


def _dynamic_settings(state_dict: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Return the settings of dynamic layers by their names and shapes, or None if there are none.

    Raises ValueError where names and shapes leave the routing open.
    """
    parts: dict[str, set[str]] = {}  # by dynamic layer, the names of its router's tensors
    for key in state_dict:
        if match := re.fullmatch(r"(.+)\.router\.(.+)", key):
            parts.setdefault(match[1], set()).add(match[2])
    if not parts:
        return None
    names = set().union(*parts.values())
    settings: dict[str, Any] = {"where": _where(state_dict, list(parts))}
    if "fc.weight" not in names:  # a router of ParameterNet
        last = "2.bias" if "2.bias" in names else "bias"
        num_experts = len(_tensor(state_dict, f"{next(iter(parts))}.router.{last}"))
        routing = "softmax" if last == "2.bias" else "sigmoid"
        return settings | {"kind": "mixture", "num_experts": num_experts, "routing": routing}
    layer = next((name for name, own in parts.items() if "expert.weight" in own), next(iter(parts)))
    gates = [gate for gate in GATES if gate != "expert" and f"{gate}.weight" in names]
    settings |= {"kind": _kind(state_dict, layer, gates), "gates": gates}
    num_experts = len(_tensor(state_dict, f"{layer}.router.expert.weight")) if "expert.weight" in names else 1
    norm = "batch" if "norm.running_mean" in names else "layer" if "norm.weight" in names else "none"
    routing = "centred" if "share_norm.running_mean" in names else "softmax"
    return settings | {"num_experts": num_experts, "routing": routing, "router": "bottleneck", "router_norm": norm}


def _kind(state_dict: Mapping[str, Tensor], layer: str, gates: Sequence[str]) -> str:
    """Return the kind of a dynamic ``layer`` with a bottleneck router."""
    if f"{layer}.delta" in state_dict and f"{layer}.router.share_norm.running_mean" in state_dict:
        return "residual"
    if f"{layer}.delta" in state_dict or not gates:
        raise ValueError(
            "has dynamic layers whose names and shapes do not show whether routing is 'softmax' or 'sigmoid'; read the "
            "checkpoint of the training, or write the weights with detector.weights.save_weights, which names it"
        )
    return "omni"


def _where(state_dict: Mapping[str, Tensor], layers: list[str]) -> str | list[str]:
    """Return the name of the group of convolutions that is dynamic, or patterns for ``layers`` if they are no group."""
    kernels = [
        key.removesuffix(".weight") for key, value in state_dict.items() if key.endswith(".weight") and value.ndim > 1
    ]
    kernels = [name for name in kernels if ".router." not in name]
    for name, pattern in CONVOLUTION_PATTERNS.items():
        if {kernel for kernel in kernels if re.fullmatch(pattern, kernel)} == set(layers):
            return name
    return [re.escape(name) for name in layers]


def num_classes(state_dict: Mapping[str, Tensor]) -> int:
    """Return the number of classes of weights under our names."""
    return _tensor(state_dict, LAST_CLASS_BIAS).shape[-1]  # (C,), or (E, C) of a dynamic layer


def class_channels_override(state_dict: Mapping[str, Tensor], num_classes: int) -> dict[str, int]:
    """Return the override that a detector for ``num_classes`` needs to have class towers as wide as in ``state_dict``.

    Empty if they are as wide by default, and if a block of the user has replaced the class tower.
    """
    if FIRST_CLASS_LAYER_NORM not in state_dict or CLASS_TOWER_NORM not in state_dict:
        return {}
    finest_channels = len(_tensor(state_dict, FIRST_CLASS_LAYER_NORM))
    width = len(_tensor(state_dict, CLASS_TOWER_NORM))
    return {} if width == default_class_channels(finest_channels, num_classes) else {"class_channels": width}


def _tensor(state_dict: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state_dict:
        raise ValueError(
            f"has no weight {name!r}, only {', '.join(list(state_dict)[:3])} ...: not a detector of this project. "
            "The weights of a classifier are given to a training, as --model.backbone_weights"
        )
    value = state_dict[name]
    if not isinstance(value, Tensor) or value.ndim == 0:
        raise ValueError(f"has {value!r:.80} as {name!r}; expected a tensor with dimensions")
    return value


def _count(state_dict: Mapping[str, Tensor], pattern: str) -> int:
    """Return how many different numbers the group of ``pattern`` matches at the start of the names."""
    return len({match[1] for key in state_dict if (match := re.match(pattern, key))})
