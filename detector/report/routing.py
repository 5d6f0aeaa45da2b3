"""Tables about dynamic layers: their routing in training, and the diagnosis by ``python -m benchmarks.routing``."""

import math
import re
from collections.abc import Mapping
from typing import Any

from detector.report.page import Table
from detector.report.run_folder import Epochs

COLUMN = re.compile(r"routing/(.+)/(expert\d+|entropy|(?:\w+_)?variation|(?:\w+_)?image_share)")
# Columns of a diagnosis: where to find the number of a layer.
COLUMNS: dict[str, tuple[str, ...]] = {
    "rho": ("rho",),
    "output": ("output_effect",),
    "d": ("experts", "distance"),
    "cosine": ("experts", "cosine"),
    "size": ("experts", "relative_size"),
    "source": ("source", "information_share"),
    "p": ("source", "p"),
    "nearest": ("source", "accuracy"),
    "by inputs": ("source", "accuracy_of_inputs"),
    "chance": ("source", "chance"),
    "class": ("class", "name"),
    "of class": ("class", "information_share"),
    "p of class": ("class", "p"),
}


def routing_table(epochs: Epochs) -> Table:
    """Return the routing weights of each dynamic layer, as last logged; without rows if there is none."""
    layers: dict[str, dict[str, float]] = {}
    for values in epochs.values():
        for name, value in values.items():
            if match := COLUMN.fullmatch(name):
                layers.setdefault(match[1], {})[match[2]] = value
    keys = sorted({key for values in layers.values() for key in values}, key=_order)
    heads = [re.sub(r"expert(\d)", r"expert \1", key.replace("_", " ")) for key in keys]
    heads = ["rho" if head == "kernel variation" else head for head in heads]
    rows = [[name, *(_digits(values.get(key)) for key in keys)] for name, values in layers.items()]
    return Table(["layer", *heads], rows)


def _order(key: str) -> tuple[int, str, int]:
    """Return the place of a column: experts by number, entropy, variation and image share of the experts, gates, kernel."""
    if match := re.fullmatch(r"expert(\d+)", key):
        return 0, "", int(match[1])
    if key == "kernel_variation":
        return 3, "", 0
    gate = key.removesuffix("image_share").removesuffix("variation")
    return (1, key, 0) if key in ("entropy", "variation", "image_share") else (2, gate, int(key.endswith("share")))


def layer_table(diagnosis: Mapping[str, Any]) -> Table:
    """Return a row for each dynamic layer of a ``diagnosis`` (see benchmarks/diagnosis.py), without empty columns."""
    layers: Mapping[str, Mapping[str, Any]] = diagnosis["layers"]
    columns: dict[str, list[str]] = {"layer": [_short(name) for name in layers]}
    gates = dict.fromkeys(gate for numbers in layers.values() for gate in numbers["gates"])
    for gate in gates:
        for key in ("variation", "image_share"):
            title = key.replace("_", " ") if len(gates) == 1 else f"{gate} {key.replace('_', ' ')}"
            columns[title] = [_digits(numbers["gates"].get(gate, {}).get(key)) for numbers in layers.values()]
    for title, path in COLUMNS.items():
        columns[title] = [_digits(_at(numbers, path)) for numbers in layers.values()]
    kept = {title: texts for title, texts in columns.items() if any(texts)}
    return Table(list(kept), list(zip(*kept.values())))


def ap_table(diagnosis: Mapping[str, Any]) -> Table:
    """Return a row for each condition of a ``diagnosis``, such as shuffled routing, and each part of the images."""
    rows = []
    for condition, aps in diagnosis["ap"].items():
        for part, ap in aps.items():
            drop = diagnosis["drops"].get(condition, {}).get(part, {})
            ends = f"{_digits(drop['low'], 4)} to {_digits(drop['high'], 4)}" if drop else ""
            sd = diagnosis["ap_sd"].get(condition, {}).get(part)
            rows.append([condition, part, _digits(ap, 4), _digits(sd, 4), _digits(drop.get("value"), 4), ends])
    return Table(["routing", "images", "AP", "sd of orders", "lost", "95 % interval"], rows)


def _at(numbers: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    for key in path:
        numbers = numbers.get(key, {})
    return None if numbers == {} else numbers


def _digits(value: Any, digits: int = 3) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.{digits}f}" if math.isfinite(value) else str(value)


def _short(layer: str) -> str:
    return layer.removeprefix("model.").removesuffix(".conv")
