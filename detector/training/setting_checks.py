"""Checks of the settings that DetectorModule and ClassifierModule take."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from detector.arguments import AUTO, as_number, as_whole_number, shown
from detector.text import unknown_name
from detector.training.optimizer import OptimizerName

# Settings of DetectorModule that may be "auto" until its training starts
AUTOMATIC = ("optimizer", "lr", "weight_decay", "nominal_batch", "warmup_epochs", "warmup_bias_lr")
CHOICES = {"optimizer": get_args(OptimizerName), "lr_decay": ("linear", "cosine")}
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
CLASSIFIER_LIMITS = {  # the same for ClassifierModule
    "lr": math.inf,
    "final_lr_ratio": math.inf,
    "weight_decay": math.inf,
    "momentum": 1.0,
    "warmup_epochs": math.inf,
    "layer_decay": 1.0,
    "label_smoothing": 1.0,
    "clip_norm": math.inf,
}


def checked_classes(class_names: list[str] | None, category_ids: list[int] | None) -> list[str]:
    """Return ``class_names``. Raises ValueError if they, and the ids in annotation files, do not fit together."""
    if not class_names:
        raise ValueError("class_names is empty; give the names of the classes 0..C-1, e.g. data.class_names")
    if not isinstance(class_names, list | tuple) or not all(isinstance(name, str) and name for name in class_names):
        raise ValueError(f"class_names is {class_names!r}; expected a list of names, e.g. ['cat', 'dog']")
    if category_ids is None and len(set(class_names)) < len(class_names):  # with ids, COCO files may repeat a name
        raise ValueError(f"class_names has a name twice: {class_names}; rename or merge the classes")
    if category_ids is not None and len(category_ids) != len(class_names):
        raise ValueError(f"{len(class_names)} class_names but {len(category_ids)} category_ids; give as many")
    if category_ids is not None and len(set(category_ids)) < len(category_ids):
        raise ValueError(f"category_ids has an id twice: {category_ids}; give every class its own")
    return list(class_names)


def as_class_weights(value: Any, class_names: list[str]) -> tuple[float, ...] | None:
    """Return the weight of each class from weights by name, or from one weight a class; None for None.

    Raises ValueError for unknown names, another number of weights, and weights that are not above 0.
    """
    if value is None:
        return None
    if isinstance(value, Mapping):
        if unknown := [name for name in value if name not in class_names]:
            raise ValueError(unknown_name("class in class_weights:", unknown[0], class_names))
        value = [value.get(name, 1.0) for name in class_names]
    if not isinstance(value, list | tuple) or len(value) != len(class_names):
        raise ValueError(
            f"class_weights is {value!r}; expected {{name: weight}}, or a list with one weight for each of the "
            f"{len(class_names)} classes ({', '.join(class_names[:5])}{', ...' if len(class_names) > 5 else ''})"
        )
    for name, weight in zip(class_names, value):
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:  # not nan
            raise ValueError(f"the weight of {name!r} in class_weights is {shown(weight)}; expected a number above 0")
    return tuple(map(float, value))


def check_optimization(
    settings: Mapping[str, Any], limits: Mapping[str, float] = UPPER_LIMITS, automatic: Sequence[str] = ()
) -> None:
    """Raise ValueError, with name and value, for a wrong setting of loss, optimizer or schedule. None is a default.

    ``limits`` are the upper limits of numbers that are 0 or more. Settings in ``automatic`` may be "auto".
    """
    settings = {name: value for name, value in settings.items() if not (name in automatic and value == AUTO)}
    for name, choices in CHOICES.items():
        if name in settings and settings[name] not in choices:
            raise ValueError(unknown_name(name, settings[name], choices))
    for name, high in limits.items():
        if settings.get(name) is not None:
            as_number(settings[name], name, high=high)
    if settings.get("nominal_batch") is not None:
        as_whole_number(settings["nominal_batch"], "nominal_batch")
    _check_ratios(settings)


def _check_ratios(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for a factor of learning rates that is not above 0."""
    ratio, ratios = settings.get("backbone_lr_ratio"), settings.get("lr_ratios") or {}
    if ratio is not None and not ratio > 0:
        raise ValueError(f"backbone_lr_ratio is {ratio}; expected a factor above 0; to keep it fixed, freeze it")
    if wrong := {part: ratio for part, ratio in ratios.items() if not ratio > 0}:
        raise ValueError(f"lr_ratios has {wrong}; a ratio must be above 0; list parts that must not learn in freeze")
    if settings.get("layer_decay") == 0:
        raise ValueError("layer_decay is 0; expected a factor above 0, at most 1; list parts that must not learn in freeze")
