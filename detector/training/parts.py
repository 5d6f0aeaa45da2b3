"""Parts of a model, by name: what is frozen, and what learns at a rate of its own."""

from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn


def find_parts(model: nn.Module, pattern: str) -> list[str]:
    """Return the names of the modules of ``model`` that ``pattern`` names, with ``*``, ``?`` and ``[...]`` as in a shell.

    ``"backbone"``, ``"backbone.stage_p3"``, ``"backbone.stage_p[23]"``, ``"*.norm"``. Raises ValueError if there is none.
    """
    names = [name for name, _ in model.named_modules() if name]
    if found := [name for name in names if fnmatchcase(name, pattern)]:
        return found
    near = get_close_matches(pattern, names, n=3) or [name for name in names if name.count(".") < 2][:12]
    raise ValueError(f"{pattern!r} names no part of {type(model).__name__}; there are, for instance, {', '.join(near)}")


def freeze_parts(model: nn.Module, patterns: Iterable[str]) -> list[str]:
    """Stop the parameters of parts from being trained, and return the names of all modules in them.

    Their normalization must be kept in evaluation mode as well, or its statistics would move. Raises ValueError for a
    pattern that names nothing, and if nothing is left to train.
    """
    frozen: dict[str, None] = {}  # in order, each once
    for pattern in patterns:
        for part in find_parts(model, pattern):
            module = model.get_submodule(part).requires_grad_(False)
            frozen |= dict.fromkeys(f"{part}.{name}".rstrip(".") for name, _ in module.named_modules())
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("everything is frozen: nothing is left to train")
    return list(frozen)


def innermost_parts(model: nn.Module, patterns: Iterable[str]) -> dict[str, str | None]:
    """Return for the name of every module the pattern of the innermost part that it is in, or None.

    Of several patterns for the same part the last one counts. Raises ValueError for a pattern that names nothing.
    """
    own = {part: pattern for pattern in patterns for part in find_parts(model, pattern)}
    innermost: dict[str, str | None] = {"": None}
    for name, _ in model.named_modules():
        if name:  # parents come before their children
            innermost[name] = own.get(name, innermost[name.rpartition(".")[0]])
    return innermost
