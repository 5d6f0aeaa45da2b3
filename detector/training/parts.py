"""Parts of a model by name, to freeze them or to give them their own learning rate."""

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase

from torch import Tensor, nn

from detector.text import nearest_names, plural

PartGroups = Mapping[str, list[str]]  # names of modules by the name of a group of them


def find_parts(model: nn.Module, pattern: str, groups: PartGroups | None = None) -> list[str]:
    """Return the names of the modules of ``model`` that match ``pattern``, with ``*``, ``?`` and ``[...]`` as in a shell.

    Examples: ``"backbone"``, ``"backbone.stage_p3"``, ``"backbone.stage_p[23]"``, ``"*.norm"``. Three names work with every
    backbone: ``"norms"`` and ``"backbone.norms"``, all BatchNorms, and ``"backbone.stem"``. ``groups`` has those of a model
    that has no module ``backbone``. Raises ValueError if nothing matches.
    """
    if group := (groups or {}).get(pattern) or _part_group(model, pattern):
        return group
    names = [name for name, _ in model.named_modules() if name]
    if matches := [name for name in names if fnmatchcase(name, pattern)]:
        return matches
    near = nearest_names(pattern, names)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    examples = ", ".join([name for name in names if name.count(".") < 2][:12])
    raise ValueError(f"{pattern!r} names no part of {type(model).__name__}; {hint}some of its parts are {examples}")


def _part_group(model: nn.Module, name: str) -> list[str]:
    """Return the names of the modules of a group of parts, or nothing if ``name`` is not that of a group."""
    if name in ("norms", "backbone.norms"):
        prefix = name.removesuffix("norms")
        modules = model.named_modules()
        return [part for part, m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm) and part.startswith(prefix)]
    if name == "backbone.stem":  # our own backbone has a module of this name
        return [f"backbone.{part}" for part in getattr(model.get_submodule("backbone"), "stem_parts", [])]
    return []


def freeze_parts(model: nn.Module, patterns: Iterable[str], groups: PartGroups | None = None) -> list[str]:
    """Freeze the parameters of the parts that match ``patterns``, and return the names of all modules in these parts.

    The caller must keep these modules in evaluation mode, or their normalization statistics would change. Raises
    ValueError for a pattern that matches nothing, and if nothing is left to train.
    """
    frozen: dict[str, None] = {}  # an ordered set
    for pattern in patterns:
        for part in find_parts(model, pattern, groups):
            module = model.get_submodule(part).requires_grad_(False)
            frozen |= dict.fromkeys(f"{part}.{name}".rstrip(".") for name, _ in module.named_modules())
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("everything is frozen: nothing is left to train")
    return list(frozen)


def frozen_text(model: nn.Module, patterns: Iterable[str], groups: PartGroups | None = None) -> str:
    """Return what is frozen, for the log: the totals, then a line for each of ``patterns``; a part may match several."""
    frozen = [p for p in model.parameters() if not p.requires_grad]
    lines = [f"frozen: {_sizes(frozen)} of {sum(p.numel() for p in model.parameters()):,}"]
    for pattern in patterns:
        modules = [model.get_submodule(part) for part in find_parts(model, pattern, groups)]
        parameters = {p: None for module in modules for p in module.parameters()}  # an ordered set
        norms = {m for module in modules for m in module.modules() if getattr(m, "running_mean", None) is not None}
        kept = f"; {plural(len(norms), 'normalization layer keeps its', 'normalization layers keep their')} statistics"
        lines.append(f"    {pattern}: {_sizes(parameters)}{kept if norms else ''}")
    return "\n".join(lines)


def _sizes(parameters: Collection[Tensor]) -> str:
    return f"{sum(p.numel() for p in parameters):,} parameters in {plural(len(parameters), 'tensor')}"


def innermost_parts(model: nn.Module, patterns: Iterable[str]) -> dict[str, str | None]:
    """Return, for the name of every module, the pattern of the innermost part that contains the module, or None.

    The last of several patterns for the same part counts. Raises ValueError for a pattern that matches nothing.
    """
    pattern_of_part = {part: pattern for pattern in patterns for part in find_parts(model, pattern)}
    innermost: dict[str, str | None] = {"": None}
    for name, _ in model.named_modules():
        if name:  # parents come before their children
            innermost[name] = pattern_of_part.get(name, innermost[name.rpartition(".")[0]])
    return innermost


def idle_parts(model: nn.Module, patterns: Iterable[str]) -> list[str]:
    """Return those of ``patterns`` that are the innermost part of no trainable parameter, as of a frozen part."""
    innermost = innermost_parts(model, patterns)
    used = {innermost[name.rpartition(".")[0]] for name, p in model.named_parameters() if p.requires_grad}
    return [pattern for pattern in patterns if pattern not in used]
