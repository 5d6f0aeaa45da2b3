"""Text for messages, tables and records: plurals, nested settings on one level, versions of packages."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any


def plural(number: int, one: str, many: str | None = None) -> str:
    """Return "1 image" or "2 images"; give ``many`` if it is not ``one`` with an s: "2 boxes"."""
    return f"{number} {one if number == 1 else many or one + 's'}"


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
