"""Infer the variant of weights from their names and shapes."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from detector.dynamic import DynamicConfig
from detector.network.config import VARIANTS
from detector.network.head import default_class_channels

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
    """Return the number of experts and the routing of dynamic layers, or None if there are none."""
    routers = [key for key in state_dict if re.search(r"\.router\.(\d\.)?bias$", key)]
    if not routers:
        return None
    num_experts = len(_tensor(state_dict, routers[-1]))
    return {"num_experts": num_experts, "routing": "softmax" if any(".router.2." in key for key in routers) else "sigmoid"}


def num_classes(state_dict: Mapping[str, Tensor]) -> int:
    """Return the number of classes of weights under our names."""
    return _tensor(state_dict, "head.one2many.cls.0.4.bias").shape[-1]  # (C,), or (E, C) of a dynamic layer


def class_channels_override(state_dict: Mapping[str, Tensor], num_classes: int) -> dict[str, int]:
    """Return the override that a detector for ``num_classes`` needs to have class towers as wide as in ``state_dict``.

    Empty if they are as wide by default.
    """
    finest_channels = len(_tensor(state_dict, "head.one2many.cls.0.0.norm.weight"))
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
