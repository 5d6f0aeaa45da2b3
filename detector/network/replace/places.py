"""Places of a Detector by name or pattern: the modules that an entry of ``replace`` means."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, cast

from torch import nn

from detector.dynamic import DynamicConv2d
from detector.network.blocks import SPPF, Attention, Bottleneck, CSPStage, PSABlock
from detector.text import nearest_names

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)  # are not called themselves
# The rest of the code reads attributes of these.
FIXED = {
    "backbone": "docs/how-it-is-built.md says how a backbone is added",
    "head": "replace box-towers or class-towers",
    "head.one2one": "replace box-towers or class-towers",
    "head.one2many": "replace box-towers or class-towers",
}
BLOCK_CLASSES = {
    "bottlenecks": (Bottleneck, ""),
    "attention": (Attention, ""),
    "attention-blocks": (PSABlock, ""),
    "sppf": (SPPF, ""),
    "neck-stages": (CSPStage, "neck."),
    "norms": (nn.modules.batchnorm._BatchNorm, ""),
}
BLOCK_PATTERNS = {
    "backbone-blocks": r"backbone\.stage_p\d\.blocks\.\d+",
    "neck-blocks": r"neck\.(top_down|bottom_up)\.\d\.blocks\.\d+",
    "neck": "neck",
    "box-towers": r"head\.one2(one|many)\.box\.\d",
    "class-towers": r"head\.one2(one|many)\.cls\.\d",
}


def places(detector: nn.Module) -> dict[str, list[str]]:
    """Return the names of the modules at every named place of ``detector``; places that it does not have are left out.

    Groups of convolutions have the names of ``convolution_patterns``, as for ``make_dynamic``; then come groups of blocks,
    and the stages of the backbone, such as ``stage_p4``.
    """
    modules = dict(detector.named_modules(remove_duplicate=False))
    replaced = getattr(detector, "replaced", {})
    convolutions = [n for n, m in modules.items() if isinstance(m, nn.Conv2d | DynamicConv2d) or n in replaced]
    patterns = cast(Any, detector).convolution_patterns
    groups = {name: _full_matches(pattern, convolutions) for name, pattern in patterns.items()}
    for name, (block_class, prefix) in BLOCK_CLASSES.items():
        groups[name] = [n for n, m in modules.items() if isinstance(m, block_class) and n.startswith(prefix)]
    groups |= {name: _full_matches(pattern, modules) for name, pattern in BLOCK_PATTERNS.items()}
    stages = _full_matches(r"backbone\.stage_p\d", modules)
    return {name: names for name, names in groups.items() if names} | {name.partition(".")[2]: [name] for name in stages}


def find_modules(detector: nn.Module, where: str) -> list[str]:
    """Return the names of the modules that ``where`` means, without those inside of others and without mere containers.

    Raises ValueError if it means nothing that can be replaced.
    """
    matches = matching_modules(detector, where)
    modules = dict(detector.named_modules(remove_duplicate=False))
    callable_matches = [name for name in matches if not isinstance(modules[name], CONTAINERS)]
    if not callable_matches:
        kind = type(modules[matches[0]]).__name__
        raise ValueError(
            f"where: {where!r} is a {kind}, which only holds modules; give those in it, as {matches[0]}.0 or {matches[0]}.*"
        )
    outermost = without_nested(callable_matches)
    if fixed := [name for name in outermost if name in FIXED]:
        meaning = "" if where == fixed[0] else f" means {fixed[0]}, which"
        raise ValueError(f"where: {where!r}{meaning} cannot be replaced as a whole; {FIXED[fixed[0]]}")
    return outermost


def matching_modules(detector: nn.Module, where: str) -> list[str]:
    """Return the names of all modules that ``where`` means.

    It is a named place; or the name of a module, or a pattern for it with ``*``, ``?`` and ``[...]`` as in a shell; or else
    a regular expression over whole names. Raises ValueError if there is none.
    """
    modules = [name for name, _ in detector.named_modules(remove_duplicate=False) if name]
    named = places(detector)
    matches = named.get(where) or [name for name in modules if fnmatchcase(name, where)] or _regex_matches(where, modules)
    if not matches:
        raise ValueError(_no_match(where, list(named), modules))
    return matches


def without_nested(names: Iterable[str]) -> list[str]:
    """Return ``names`` without those of modules inside of another one of them."""
    known = set(names)
    return [name for name in names if not any(outer in known for outer in _outer_names(name))]


def _outer_names(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _full_matches(pattern: str, names: Iterable[str]) -> list[str]:
    compiled = re.compile(pattern)
    return [name for name in names if compiled.fullmatch(name)]


def _regex_matches(where: str, names: Iterable[str]) -> list[str]:
    try:
        return _full_matches(where, names)
    except re.error:
        return []  # a shell pattern that matches nothing


def _no_match(where: str, named: list[str], modules: list[str]) -> str:
    near = nearest_names(where, [*named, *modules])
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    outer = [name for name in modules if name.count(".") < 2]
    return (
        f"where: {where!r} names no part of the detector{_regex_error(where)}; {hint}Places: {', '.join(named)}. "
        f"Or give the name of a module, or a pattern, such as {', '.join(outer[:8])}"
    )


def _regex_error(where: str) -> str:
    """Return what is wrong with a regular expression, in brackets; nothing for a right one, a name or a shell pattern."""
    try:
        re.compile(where)
    except re.error as error:
        return "" if where.startswith(("*", "?")) else f" (as a regular expression: {error})"
    return ""
