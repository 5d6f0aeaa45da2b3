"""Text for messages, tables and records: plurals, scores, nested settings on one level, versions of packages."""

import math
from decimal import ROUND_DOWN, Decimal
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def plural(number: int, one: str, many: str | None = None) -> str:
    """Return "1 image" or "2 images"; give ``many`` if it is not ``one`` with an s: "2 boxes"."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def score_text(score: float) -> str:
    """Return a score in 0..1 with three significant digits, rounded down: a filter from that value on keeps it."""
    return str(round_down(score, 3))


def round_down(value: float, digits: int) -> float:
    """Return ``value``, 0 or more, with ``digits`` significant digits; the others are cut off."""
    if not value or not math.isfinite(value):
        return float(value)
    number = Decimal(str(value))  # the text, because 0.57 in binary is a little less than 0.57
    return float(number.quantize(Decimal(1).scaleb(number.adjusted() - digits + 1), ROUND_DOWN))


def flatten(settings: dict[str, Any], separator: str = ".") -> dict[str, Any]:
    """Return nested settings on one level, under joined names: ``{"data.augment.mosaic": 0.5}``."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= {f"{name}{separator}{below}": entry for below, entry in flatten(value, separator).items()}
        else:
            flat[str(name)] = value
    return flat


def package_version(name: str) -> str | None:
    """Return the version of an installed package, or None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
