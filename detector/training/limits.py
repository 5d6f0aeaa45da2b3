"""The limits of the settings that DetectorModule takes."""

import math
from collections.abc import Mapping
from typing import Any

from detector.arguments import as_number, as_whole_number
from detector.text import unknown_name

LR_DECAYS = ("linear", "cosine")
UPPER_LIMITS = {  # of numbers that are 0 or more
    "lr": math.inf,
    "final_lr_ratio": math.inf,
    "class_lr_ratio": math.inf,
    "momentum": 1.0,
    "weight_decay": math.inf,
    "warmup_epochs": math.inf,
    "warmup_momentum": 1.0,
    "warmup_bias_lr": math.inf,
    "clip_norm": math.inf,
    "box_gain": math.inf,
    "class_gain": math.inf,
    "l1_gain": math.inf,
}


def check_limits(settings: Mapping[str, Any]) -> None:
    """Raise ValueError, with name and value, for a number outside of its limits, or another decay. None is a default."""
    for name, high in UPPER_LIMITS.items():
        if settings[name] is not None:
            as_number(settings[name], name, high=high)
    as_whole_number(settings["nominal_batch"], "nominal_batch")
    if settings["lr_decay"] not in LR_DECAYS:
        raise ValueError(unknown_name("lr_decay", settings["lr_decay"], LR_DECAYS))
