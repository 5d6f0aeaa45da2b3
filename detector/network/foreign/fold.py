"""Fold the normalization of a foreign backbone into its convolutions, for inference."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from detector.dynamic.plain import can_be_dynamic
from detector.network.blocks import has_fold, scale_and_shift


class _Uses(TorchDispatchMode):
    """Counts how often every tensor is an input of an operation, by ``id``; keeps them alive, so that ids stay unique."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()
        self.tensors: list[Tensor] = []

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        self.count.update(map(id, tensors))
        self.tensors += tensors
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def fold_norms(network: nn.Module, run: Callable[[], Any]) -> list[str]:
    """Fold BatchNorms of ``network`` into the convolutions before them, in place; return the names of these convolutions.

    ``run`` runs the network once, in evaluation mode: a pair is folded if the output of the convolution goes to the
    BatchNorm and nowhere else, and if both ran once. The activation of timm's ``BatchNormAct2d`` stays.
    """
    pairs = _pairs(network, run)
    for conv_name, norm_name in pairs.items():
        conv: Any = network.get_submodule(conv_name)
        norm: Any = network.get_submodule(norm_name)
        if has_fold(conv):
            conv.fold(*scale_and_shift(norm))
        else:
            network.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
        network.set_submodule(norm_name, getattr(norm, "act", nn.Identity()))
    return list(pairs)


def _pairs(network: nn.Module, run: Callable[[], Any]) -> dict[str, str]:
    """Return the name of the BatchNorm by that of the convolution before it, for all pairs that can be folded."""
    calls: Counter[str] = Counter()
    outputs: dict[int, str] = {}  # id of an output -> its convolution
    inputs: dict[str, int] = {}  # BatchNorm -> id of its input

    def record(name: str, is_conv: bool) -> Callable:
        def hook(_module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
            calls[name] += 1
            if is_conv:
                outputs[id(output)] = name
            else:
                inputs[name] = id(args[0])

        return hook

    handles = []
    for name, module in network.named_modules():
        is_conv = has_fold(module) or can_be_dynamic(module)
        if is_conv or (isinstance(module, nn.BatchNorm2d) and module.running_mean is not None):
            handles.append(module.register_forward_hook(record(name, is_conv)))
    with _Uses() as uses:
        run()
    for handle in handles:
        handle.remove()
    pairs = {outputs[key]: norm for norm, key in inputs.items() if key in outputs and uses.count[key] == 1}
    return {conv: norm for conv, norm in pairs.items() if calls[conv] == calls[norm] == 1}
