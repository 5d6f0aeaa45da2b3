"""Find a state dict in the dicts, and under the prefixes, that training tools put around it."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from detector.weights.infer import CLASS_TOWER_NORM
from detector.weights.reference import is_reference_state_dict, is_state_dict

# Parts of names that wrappers of modules add: DistributedDataParallel and AveragedModel, torch.compile, FSDP, activation
# checkpoints, Lightning Fabric. No layer of ours or of the reference has such a name.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
COUNTER = "n_averaged"  # of AveragedModel
AVERAGED = ("ema", "averag", "swa")  # in the key of averaged weights
ANCHOR = CLASS_TOWER_NORM  # a weight that every detector has, by which its prefix is found
MAX_DEPTH = 3


class Unwrapped(NamedTuple):
    """A state dict under plain names, and what was around it."""

    state_dict: dict[str, Tensor]
    note: str  # in words, for messages; empty if there was nothing


def unwrap(content: Any) -> Unwrapped | None:
    """Return the state dict in ``content``, a dict of a training tool or a state dict; None if it has none.

    Names are under the prefixes of the Detector or of the reference. Averaged weights are preferred. Raises ValueError if
    it is unclear which weights to take: several state dicts, several prefixes, or names outside of the prefix.
    """
    state_dicts = {key: value for key, value in _state_dicts(content) if _is_known(value)}
    if not state_dicts:
        return None
    key = _choose(list(state_dicts))
    plain, names = plain_names(state_dicts[key])
    notes = []
    if key:
        others = [other for other in state_dicts if other != key]
        notes.append(f"taken from {key!r}" + (f" and not from {', '.join(map(repr, others))}" if others else ""))
    if names:
        notes.append(f"without {', '.join(repr(name) for name in names)} in the names")
    return Unwrapped(plain, "; ".join(notes))


def plain_names(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights under names without wrappers and without a common prefix, and a list of what was removed.

    Raises ValueError for names that become the same, for several prefixes, and for names without the prefix.
    """
    removed = []
    if COUNTER in state_dict:
        removed.append(COUNTER)
        state_dict = {name: value for name, value in state_dict.items() if name != COUNTER}
    originals: dict[str, str] = {}
    for name in state_dict:
        plain = without_wrappers(name)
        if plain in originals:
            raise ValueError(f"has the weights {originals[plain]!r} and {name!r}: it is unclear which to take; save one set")
        originals[plain] = name
    removed += sorted({f"{part}." for name in state_dict for part in name.split(".") if part in WRAPPERS})
    prefix = _prefix(list(originals))
    removed += [prefix] if prefix else []
    return {plain.removeprefix(prefix): state_dict[name] for plain, name in originals.items()}, removed


def without_wrappers(name: str) -> str:
    """Return the name of a weight without the parts that wrappers of modules add."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _prefix(names: list[str]) -> str:
    """Return the prefix before the names of a Detector; empty for a file of the reference."""
    prefixes = [name.removesuffix(ANCHOR) for name in names if name == ANCHOR or name.endswith(f".{ANCHOR}")]
    if len(prefixes) > 1:
        shown = " and ".join(repr(prefix) for prefix in prefixes)
        raise ValueError(f"has several sets of weights, under the prefixes {shown}; save one of them")
    if not prefixes:
        return ""
    if outside := [name for name in names if not name.startswith(prefixes[0])]:
        raise ValueError(
            f"has {len(outside)} weights without the prefix {prefixes[0]!r} of the others, as {outside[0]!r}; save the "
            "state dict of the detector alone"
        )
    return prefixes[0]


def _state_dicts(content: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Yield the state dicts in nested dicts, with their keys joined by dots."""
    if is_state_dict(content):
        if all(isinstance(name, str) for name in content):
            yield key, content
    elif isinstance(content, Mapping) and depth < MAX_DEPTH:
        for name, value in content.items():
            if isinstance(name, str):
                yield from _state_dicts(value, f"{key}.{name}" if key else name, depth + 1)


def _is_known(state_dict: Mapping[str, Tensor]) -> bool:
    """Return True for weights with the names of a Detector or of the reference, wrapped or not."""
    names = [without_wrappers(name) for name in state_dict]
    is_ours = any(name == ANCHOR or name.endswith(f".{ANCHOR}") for name in names)
    return is_ours or is_reference_state_dict(dict.fromkeys(names, next(iter(state_dict.values()))))


def _choose(keys: list[str]) -> str:
    """Return the only key, or that of the averaged weights."""
    averaged = [key for key in keys if any(part in key.lower() for part in AVERAGED)]
    chosen = averaged or keys
    if len(chosen) > 1:
        raise ValueError(f"has several state dicts, {', '.join(map(repr, chosen))}: it is unclear which to take; save one")
    return chosen[0]
