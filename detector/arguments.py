"""Checks of arguments. Each error has the name, the value, and what is accepted."""

import math
import numbers
import operator
from typing import Any, Literal

Auto = Literal["auto"]
AUTO: Auto = "auto"  # the value of a setting that train.py chooses, see detector/training/recipe.py


def as_number(value: Any, name: str, low: float = 0.0, high: float = 1.0) -> float:
    """Return ``value`` as a float from ``low`` to ``high``. Raises ValueError for anything but such a number."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # a comparison with nan is False
        limits = f" from {low:g} to {high:g}" if math.isfinite(high) else f", {low:g} or more"
        raise ValueError(f"{name} is {shown(value)}; expected a number{limits}")
    return float(value)


def as_whole_number(value: Any, name: str, least: int = 1) -> int:
    """Return ``value``, a whole number, as an int. Raises ValueError for any other type, and below ``least``."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # also NumPy's numbers; not 10.0 and "10"
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(f"{name} is {shown(value)}; expected a whole number, {least} or more")
    return number


def as_bool(value: Any, name: str) -> bool:
    """Return ``value``, True or False, also NumPy's, as a bool. Raises ValueError for anything else: "no" would be true."""
    if type(value).__name__ not in ("bool", "bool_"):
        raise ValueError(f"{name} is {shown(value)}; expected True or False")
    return bool(value)


def shown(value: Any) -> str:
    """Return ``value`` for a message: at most 80 characters; its type if it is an array or the like."""
    if hasattr(value, "shape") and getattr(value, "ndim", None):
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
