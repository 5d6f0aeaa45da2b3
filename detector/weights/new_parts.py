"""Parts of a detector that a weights file cannot have: blocks of the user in place of modules, and parts said to be new."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from detector.network.model import Detector
from detector.network.replace.parts import ReplacedPart
from detector.network.replace.places import matching_modules
from detector.weights.info import Weights


def new_parts_for(detector: Detector, weights: Weights, patterns: Iterable[str] = ()) -> dict[str, ReplacedPart | None]:
    """Return the parts of ``detector`` that are new to ``weights``, by name: they may lack the tensors of these parts.

    New are the modules that were replaced, unless the detector of the weights had the same entry of ``replace``; and those
    that ``patterns`` mean, names or patterns as in ``replace``. Raises ValueError for a pattern that means nothing.
    """
    known = weights.info.overrides.get("replace") or []
    parts: dict[str, ReplacedPart | None] = {n: p for n, p in detector.replaced.items() if p.entry not in known}
    for pattern in patterns:
        try:
            parts |= {name: detector.replaced.get(name) for name in matching_modules(detector, pattern)}
        except ValueError as error:
            raise ValueError(f"new_parts: {error}") from None
    return parts


def rename_kept(state_dict: Mapping[str, Tensor], parts: Mapping[str, ReplacedPart | None]) -> dict[str, Tensor]:
    """Return ``state_dict`` with the names that tensors have in the blocks of ``parts``, where blocks go on to use them.

    A block that wraps a convolution as its ``conv`` thus gets the kernel of this convolution.
    """
    renamed = dict(state_dict)
    for part, replaced in parts.items():
        for old, new in ({} if replaced is None else replaced.kept).items():
            if f"{part}.{old}" in state_dict and f"{part}.{new}" not in state_dict:
                renamed[f"{part}.{new}"] = renamed.pop(f"{part}.{old}")
    return renamed


def move_names(source: list[str], target: list[str], parts: Iterable[str]) -> None:
    """Move the names of tensors of ``parts`` from ``source`` to ``target``."""
    prefixes = tuple(f"{part}." for part in parts)
    target += [name for name in source if name.startswith(prefixes)]
    source[:] = [name for name in source if not name.startswith(prefixes)]
