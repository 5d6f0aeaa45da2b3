"""Infer the variant of weights from their names and shapes."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from detector.dynamic.convert import DynamicConfig
from detector.network.config import VARIANTS
from detector.network.head import default_class_channels

CLASS_WIDTH = "head.one2many.cls.0.1.norm.weight"  # as many values as the class towers are wide


def infer_variant(state_dict: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """Return the variant that weights under our names are of, and the overrides of its configuration.

    Raises ValueError if there is none.
    """
    stem = len(_find(state_dict, "backbone.stem.norm.weight"))  # of a dynamic convolution, the first number is the experts'
    repeats = _count(state_dict, r"backbone\.stage_p4\.blocks\.(\d+)\.")
    max_level = 6 if _count(state_dict, r"backbone\.stage_p(6)\.") else 5
    min_level = max_level + 1 - _count(state_dict, r"head\.one2one\.box\.(\d+)\.")
    found = (stem, repeats, min_level, max_level)
    plain = {name: config for name, config in VARIANTS.items() if config.dynamic is None}
    sizes = {(c.channels(64), c.repeats(2), c.min_level, c.max_level): name for name, c in plain.items()}
    if found not in sizes:
        raise ValueError(
            "fits no variant: {} channels in the first layer, {} blocks a stage, levels {} to {}".format(*found)
        )
    name, overrides = sizes[found], _class_channels(state_dict, _num_classes(state_dict))
    routers = [key for key in state_dict if re.search(r"\.router\.(\d\.)?bias$", key)]
    if not routers:
        return name, overrides
    dynamic = {
        "num_experts": len(_find(state_dict, routers[-1])),
        "routing": "softmax" if any(".router.2." in key for key in routers) else "sigmoid",
    }
    name = dynamic_name if (dynamic_name := name.replace("yolo26", "dyn")) in VARIANTS else name
    return name, overrides if VARIANTS[name].dynamic == DynamicConfig(**dynamic) else overrides | {"dynamic": dynamic}


def _num_classes(state_dict: Mapping[str, Tensor]) -> int:
    return _find(state_dict, "head.one2many.cls.0.4.bias").shape[-1]  # (C,), or (E, C) of a dynamic layer


def _class_channels(state_dict: Mapping[str, Tensor], num_classes: int) -> dict[str, int]:
    """Return the override that keeps the class towers as wide as in ``state_dict``, if they would not be by themselves."""
    finest = len(_find(state_dict, "head.one2many.cls.0.0.norm.weight"))
    width = len(_find(state_dict, CLASS_WIDTH))
    return {} if width == default_class_channels(finest, num_classes) else {"class_channels": width}


def _find(state_dict: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state_dict:
        raise ValueError(
            f"has no weight {name!r}, only {', '.join(list(state_dict)[:3])} ...: not a detector of this project"
        )
    value = state_dict[name]
    if not isinstance(value, Tensor) or value.ndim == 0:
        raise ValueError(f"has {value!r:.80} as {name!r}; expected a tensor with dimensions")
    return value


def _count(state_dict: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for key in state_dict if (match := re.match(pattern, key))})
