"""replace_parts: put blocks of the user in place of modules of a detector."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from detector.network.replace.contract import Call, check_contract, record_calls
from detector.network.replace.entries import Entry, label
from detector.network.replace.generators import isolated_generators
from detector.network.replace.own_class import BlockFactory
from detector.network.replace.places import find_modules, without_nested


@dataclass(frozen=True)
class ReplacedPart:
    """A module that was replaced."""

    entry: Entry  # of ``replace``
    old_class: str
    new_class: str
    kept: dict[str, str]  # tensors of the old module that the block goes on to use: name in the old module -> in the block


def replace_parts(detector: nn.Module, entries: Sequence[Entry]) -> dict[str, ReplacedPart]:
    """Replace modules of ``detector``, in place, and return what was replaced, by name.

    All entries mean modules of the detector before any replacement. A block gets device, floating-point type and mode of
    the module that it replaces. Global random generators are as before when this returns, so that everything else that is
    drawn from them stays as it was. Raises ValueError, and changes nothing, if two entries overlap, and for a block that
    breaks the contract: other outputs for the same inputs, tried once on a small input.
    """
    entry_of = _entries_by_name(detector, entries)
    stride = cast(Any, detector).strides[-1]
    like = next(detector.parameters())
    with isolated_generators():
        factories = [BlockFactory(entry, label(number, entry)) for number, entry in enumerate(entries)]
        images = torch.rand((2, 3, 2 * stride, 3 * stride), device=like.device, dtype=like.dtype)
        calls = record_calls(detector, entry_of, images)
        _check_all_are_called(entry_of, calls, factories)
        blocks: dict[nn.Module, nn.Module] = {}  # shared modules have several names
        parts = {}
        for name, number in entry_of.items():
            old = detector.get_submodule(name)
            if old not in blocks:
                blocks[old], parts[name] = _new_block(old, factories[number], entries[number], like)
            else:
                parts[name] = next(parts[other] for other in parts if detector.get_submodule(other) is old)
            title = f"{factories[number].name}: the block {factories[number].class_path} for {name} ({type(old).__name__})"
            check_contract(blocks[old], calls[name], title)
    for name in parts:
        detector.set_submodule(name, blocks[detector.get_submodule(name)])
    return parts


def _entries_by_name(detector: nn.Module, entries: Sequence[Entry]) -> dict[str, int]:
    """Return the number of the entry for the name of each module to replace. Raises ValueError if entries overlap."""
    entry_of: dict[str, int] = {}
    for number, entry in enumerate(entries):
        try:
            names = [name for where in entry["where"] for name in find_modules(detector, where)]
        except ValueError as error:
            raise ValueError(f"{label(number, entry)}: {error}") from None
        for name in without_nested(dict.fromkeys(names)):
            _refuse_overlap(name, number, entry_of, detector)
            entry_of[name] = number
    order = {name: position for position, (name, _) in enumerate(detector.named_modules(remove_duplicate=False))}
    return dict(sorted(entry_of.items(), key=lambda item: order[item[0]]))


def _refuse_overlap(name: str, number: int, entry_of: dict[str, int], detector: nn.Module) -> None:
    for other, other_number in entry_of.items():
        is_shared = other_number != number and detector.get_submodule(other) is detector.get_submodule(name)
        if is_shared and other != name:
            raise ValueError(
                f"replace[{number}] and replace[{other_number}] overlap: {name} and {other} are one module; change "
                "where, so that it is replaced once"
            )
        is_same = other == name
        if is_same or name.startswith(f"{other}.") or other.startswith(f"{name}."):
            relation = "is" if is_same else f"and {other} are one inside the other, and"
            raise ValueError(
                f"replace[{number}] and replace[{other_number}] overlap: {name} {relation} replaced by both; change where, "
                "so that each module is replaced once"
            )


def _check_all_are_called(entry_of: dict[str, int], calls: dict[str, Call], factories: Sequence[BlockFactory]) -> None:
    if silent := [name for name in entry_of if name not in calls]:
        raise ValueError(
            f"{factories[entry_of[silent[0]]].name}: {silent[0]} cannot be replaced: the network does not call it as a "
            "module, but uses what is in it; replace the modules inside it, or one around it"
        )


def _new_block(old: nn.Module, factory: BlockFactory, entry: Entry, like: Tensor) -> tuple[nn.Module, ReplacedPart]:
    """Return the block in place of ``old`` on its device, in its precision and mode, and what was replaced."""
    before = _named_tensors(old)
    block = factory(old)
    after = {id(tensor): name for name, tensor in _named_tensors(block).items()}
    kept = {name: after[id(tensor)] for name, tensor in before.items() if id(tensor) in after}
    example = next((tensor for tensor in before.values() if tensor.is_floating_point()), like)
    block.to(device=example.device, dtype=example.dtype).train(old.training)
    return block, ReplacedPart(entry, type(old).__name__, type(block).__name__, kept)


def _named_tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
