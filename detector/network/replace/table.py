"""A table of what was replaced: classes, output shapes, parameters and multiply-adds before and after, for the log."""

from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detector.batch import Size
from detector.network.replace.contract import Call, record_calls
from detector.network.replace.parts import ReplacedPart
from detector.text import plural

Counts = dict[str, tuple[int, int]]  # name of a module -> parameters, multiply-adds; "" is the whole network


def replacement_table(plain: nn.Module, detector: nn.Module, parts: dict[str, ReplacedPart], size: Size) -> str:
    """Return one line for each of ``parts`` of ``detector``, and one for all of it, before and after.

    ``plain`` is the same detector before the replacement; it may be on the meta device. Multiply-adds are those of one image
    of ``size`` (height, width), with both branches.
    """
    before, calls = _run_and_count(plain, parts, size)
    after, _ = _run_and_count(detector, parts, size)
    rows = [("module", "before", "after", "output", "parameters", "multiply-adds")]
    for name, part in parts.items():
        output = _shape_text(calls[name].output)
        rows.append((name, part.old_class, part.new_class, output, *_changes(before[name], after[name])))
    rows.append(("the detector", "", "", "", *_changes(before[""], after[""])))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    title = f"replaced {plural(len(parts), 'module')} (multiply-adds of an image of {size[0]} x {size[1]} pixels)"
    return "\n    ".join([title, *lines])


def _run_and_count(network: nn.Module, names: Iterable[str], size: Size) -> tuple[Counts, dict[str, Call]]:
    """Return parameters and multiply-adds of all modules, and the first call of each of ``names``, for one image."""
    try:
        return _count(deepcopy(network).to("meta"), names, size)
    except Exception:  # a block that cannot run on the meta device
        return _count(deepcopy(network), names, size)


def _count(network: nn.Module, names: Iterable[str], size: Size) -> tuple[Counts, dict[str, Call]]:
    example = next(network.parameters())
    images = torch.zeros((1, 3, *size), device=example.device, dtype=example.dtype)
    with FlopCounterMode(display=False) as counter:
        calls = record_calls(network, names, images)
    root = type(network).__name__
    counts = counter.get_flop_counts()  # by module, then by operation; a multiplication and an addition are two operations
    sums = {name.removeprefix(root).removeprefix("."): sum(by_op.values()) // 2 for name, by_op in counts.items()}
    modules = network.named_modules(remove_duplicate=False)
    return {name: (sum(p.numel() for p in m.parameters()), sums.get(name, 0)) for name, m in modules}, calls


def _changes(before: tuple[int, int], after: tuple[int, int]) -> tuple[str, str]:
    parameters, multiply_adds = zip(before, after)
    return " -> ".join(f"{n:,}" for n in parameters), " -> ".join(f"{n:,}" for n in multiply_adds)


def _shape_text(output: object) -> str:
    if isinstance(output, tuple):
        return "x".join(map(str, output[1][1:]))  # without the batch
    return f"[{', '.join(map(_shape_text, output))}]" if isinstance(output, list) else str(output)
