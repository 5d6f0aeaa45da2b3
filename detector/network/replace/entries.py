"""Entries of ``model.replace`` as plain values: which modules are replaced, and the class that takes their place."""

import inspect
from collections.abc import Mapping
from typing import Any

from detector.text import unknown_name

EXAMPLE = '{where: "backbone.stage_p4.blocks.*", layer: {class_path: my_blocks.LargeKernel, init_args: {size: 7}}}'
KEYS = ("where", "layer")
LAYER_KEYS = ("class_path", "init_args")

Entry = dict[str, Any]  # {"where": [str, ...], "layer": {"class_path": str, "init_args": {name: value}}}


def check_entries(entries: Any) -> list[Entry]:
    """Return the entries of ``replace`` in full: ``where`` as a list, ``class_path`` as text, ``init_args`` as plain values.

    ``layer`` may be the import path or the class alone. Raises ValueError for any other form; nothing is imported.
    """
    if entries is None:
        return []
    if not isinstance(entries, list | tuple):
        raise ValueError(f"replace is {entries!r}; expected a list of entries, as [{EXAMPLE}]")
    return [_checked_entry(entry, f"replace[{number}]") for number, entry in enumerate(entries)]


def label(number: int, entry: Entry) -> str:
    """Return the name of an entry for messages."""
    return f"replace[{number}] ({entry['layer']['class_path']})"


def _checked_entry(entry: Any, name: str) -> Entry:
    entry = _mapping(entry)
    _check_keys(entry, KEYS, name)
    if missing := [key for key in KEYS if key not in entry]:
        raise ValueError(f"{name} has no {missing[0]}; expected {EXAMPLE}")
    where = [entry["where"]] if isinstance(entry["where"], str) else entry["where"]
    if not isinstance(where, list | tuple) or not where or not all(isinstance(place, str) and place for place in where):
        raise ValueError(f"{name}.where is {entry['where']!r}; expected a name or pattern, or a list of them")
    layer = entry["layer"]
    if isinstance(layer, str) or inspect.isclass(layer):
        layer = {"class_path": layer}
    layer = _mapping(layer)
    _check_keys(layer, LAYER_KEYS, f"{name}.layer")
    class_path, arguments = layer.get("class_path"), layer.get("init_args")
    if inspect.isclass(class_path):
        class_path = f"{class_path.__module__}.{class_path.__qualname__}"
    if not isinstance(class_path, str) or not class_path:
        raise ValueError(f"{name}.layer.class_path is {class_path!r}; expected an import path, as my_blocks.LargeKernel")
    arguments = {} if arguments is None else _plain(arguments, f"{name}.layer.init_args")
    if not isinstance(arguments, dict):
        raise ValueError(f"{name}.layer.init_args is {arguments!r}; expected a mapping {{argument: value}}")
    return {"where": list(where), "layer": {"class_path": class_path, "init_args": arguments}}


def _mapping(value: Any) -> Any:
    """Return a Namespace of jsonargparse, as LightningCLI holds class paths, as a dict; other values as they are."""
    return value.as_dict() if hasattr(value, "as_dict") else value


def _check_keys(value: Any, known: tuple[str, ...], name: str) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is {value!r}; expected a mapping with {' and '.join(known)}, as {EXAMPLE}")
    if unknown := [key for key in value if key not in known]:
        raise ValueError(unknown_name(f"key of {name}:", unknown[0], known))


def _plain(value: Any, name: str) -> Any:
    """Return ``value`` as checkpoints can hold it: numbers, text, None, and lists and dicts of them."""
    value = _mapping(value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(entry, f"{name}[{number}]") for number, entry in enumerate(value)]
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, f"{name}.{key}") for key, entry in value.items()}
    if inspect.isclass(value):
        return f"{value.__module__}.{value.__qualname__}"
    raise ValueError(f"{name} is {value!r}, a {type(value).__name__}; expected a number, text, a list or a mapping of them")
