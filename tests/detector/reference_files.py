"""Files in the format of the public reference: trees of modules whose classes exist only while they are written."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from tests.golden_values import load, reference_weights


@contextmanager
def borrowed_name(dotted: str, value: Any) -> Iterator[Any]:
    """Make ``value`` importable, and so picklable, as ``dotted`` within the block."""
    module, _, name = dotted.rpartition(".")
    parts = module.split(".")
    packages = [".".join(parts[: i + 1]) for i in range(len(parts))]
    modules = {package: ModuleType(package) for package in packages if package not in sys.modules}
    sys.modules.update(modules)
    value.__module__, value.__name__, value.__qualname__ = module, name, name
    setattr(sys.modules[module], name, value)
    try:
        yield value
    finally:
        for package in modules:
            del sys.modules[package]


def some_weights(num_classes: int = 3, layout: str = "n") -> dict[str, Tensor]:
    """Return weights of a whole model under the names of the reference."""
    return reference_weights(load(f"state_dict_{layout}"), num_classes)


def write_checkpoint(
    path: Path,
    weights: dict[str, Tensor],
    names: dict[int, str] | list[str] | None = None,
    model_class: str = "ultralytics.nn.tasks.DetectionModel",
    ema: dict[str, Tensor] | None = None,
    half: bool = True,
    **entries: Any,
) -> Path:
    """Write ``weights`` as the reference does: as a pickled tree of modules, in half precision."""
    with (
        borrowed_name(model_class, type("Model", (nn.Module,), {})) as root,
        borrowed_name("ultralytics.nn.modules.conv.Conv", type("Conv", (nn.Module,), {})) as conv,
    ):
        trees = [None if w is None else _tree(w, root, conv, names, half) for w in (weights, ema)]
        content = {"model": trees[0], "ema": trees[1], "version": "8.4.190", "date": "2026-11-24", **entries}
        torch.save(content, path)
    return path


def _tree(weights: dict[str, Tensor], root: type, conv: type, names: Any, half: bool) -> nn.Module:
    tree = root()
    tree.names = names
    for key, value in weights.items():
        *path, attribute = key.split(".")
        node = tree
        for step in path:
            if step not in node._modules:
                node.add_module(step, nn.BatchNorm2d(1) if step == "bn" else nn.Sequential() if step == "m" else conv())
            node = node._modules[step]
        value = value.half() if half and value.is_floating_point() else value
        if "running" in attribute or "tracked" in attribute:
            node._buffers[attribute] = value
        else:
            node._parameters[attribute] = nn.Parameter(value, requires_grad=value.is_floating_point())
    return tree


class Trap:
    """Calls ``function`` with ``path`` when an ordinary loader unpickles it."""

    def __init__(self, function: Callable[[str], Any], path: Path) -> None:
        self.function, self.path = function, path

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return self.function, (str(self.path),)
