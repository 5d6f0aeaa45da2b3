"""Parameter groups, and the optimizer for them."""

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import nn

from detector.dynamic import DynamicConv2d
from detector.text import unknown_name
from detector.training.musgd import MuSGD, matrix_shape
from detector.training.parts import innermost_parts

OptimizerName = Literal["musgd", "sgd", "adamw"]
OptimizerChoice = Literal["musgd", "sgd", "adamw", "auto"]
CLASS_LR_RATIO = 3.0  # learning rate of the class branches as a multiple of that of the others
CLASS_TOWER = re.compile(r"\bone2(one|many)\.cls\.")  # in the names of the parameters of class branches
Kind = Literal["kernels", "norms", "biases", "routers"]


class _GroupKey(NamedTuple):
    part: str | None  # key of lr_ratios: a part of the model, or a layer
    is_class: bool  # of a class branch
    kind: Kind
    ratio: float = 1.0  # of the learning rate


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    muon: bool = True,
    class_lr_ratio: float = CLASS_LR_RATIO,
    lr_ratios: Mapping[str, float] | None = None,
    layers: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Sort the trainable parameters of ``model`` into groups; each parameter is in one group, and no group is empty.

    Kernels of convolutions and linear layers have weight decay and, with ``muon``, Muon steps; every expert of a dynamic
    convolution is a matrix. The M changes of a residual layer have 1 / M of the rate. Weights of routers have weight decay
    only; norms, biases and all other parameters neither. Class branches (``CLASS_TOWER``) have ``class_lr_ratio`` times the
    learning rate. ``lr_ratios`` has further factors for parts of the model (see ``parts.py``); their groups come last. With
    ``layers``, the layer of each parameter by name, they are factors for layers.

    A group has the keys of the optimizer, and ``name``, ``base_lr`` and ``bias`` for ``Schedule``. Raises ValueError if
    nothing is trainable, or for a part that does not exist.
    """
    lr_ratios = lr_ratios or {}
    innermost = {} if layers is not None else innermost_parts(model, lr_ratios)
    groups: dict[_GroupKey, dict[str, Any]] = {}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        module_name, _, attribute = name.rpartition(".")
        module = model.get_submodule(module_name)
        kind = _kind(module, module_name, attribute, p)
        ratio = module.lr_ratios.get(attribute, 1.0) if isinstance(module, DynamicConv2d) else 1.0
        part = innermost[module_name] if layers is None else layers[name]
        key = _GroupKey(part, bool(CLASS_TOWER.search(name)), kind, ratio)
        if key not in groups:
            rate = lr * ratio * (class_lr_ratio if key.is_class else 1.0) * (lr_ratios[key.part] if key.part else 1.0)
            groups[key] = _empty_group(key, rate, weight_decay, muon)
        groups[key]["params"].append(p)
        if groups[key]["muon"]:
            shape, count = module.matrices()[attribute] if isinstance(module, DynamicConv2d) else (p.shape, 1)
            groups[key]["matrices"].append(matrix_shape(shape, count))
    if not groups:
        raise ValueError("the model has no trainable parameter: everything is frozen")
    return [groups[key] for key in sorted(groups, key=lambda key: key.part is not None)]


def _kind(module: nn.Module, module_name: str, attribute: str, p: nn.Parameter) -> Kind:
    """Return the kind of a parameter by its module: a scale or a table of positions has many shapes, and never decays."""
    if attribute == "bias":
        return "biases"
    if "router" in module_name.split("."):
        return "routers" if p.ndim > 1 else "norms"  # a router may have a normalization
    if isinstance(module, DynamicConv2d):
        return "kernels" if attribute in module.matrices() else "norms"
    has_kernel = isinstance(module, nn.modules.conv._ConvNd | nn.Linear)
    return "kernels" if has_kernel and attribute == "weight" else "norms"


def _empty_group(key: _GroupKey, lr: float, weight_decay: float, muon: bool) -> dict[str, Any]:
    slowed = f"x {key.ratio:.3g}" if key.ratio != 1 else None
    name = " ".join(word for word in (key.part, "class" if key.is_class else None, key.kind, slowed) if word)
    decay = weight_decay if key.kind in ("kernels", "routers") else 0.0
    group = {"params": [], "name": name, "lr": lr, "base_lr": lr, "weight_decay": decay, "bias": key.kind == "biases"}
    return group | ({"muon": True, "matrices": []} if muon and key.kind == "kernels" else {"muon": False})


def group_table(groups: list[dict[str, Any]]) -> str:
    """Return a table of parameter groups for the log, one group per line."""
    width = max(16, *(len(group["name"]) + 1 for group in groups))
    lines = [f"{'parameter group':<{width}}{'tensors':>8}{'parameters':>12}{'lr':>10}{'decay':>10}  matrices"]
    for group in groups:
        num_parameters = sum(p.numel() for p in group["params"])
        matrices = str(sum(count for count, *_ in group["matrices"])) if group["muon"] else "-"
        rates = f"{group['base_lr']:>10.4g}{group['weight_decay']:>10.3g}"
        lines.append(f"{group['name']:<{width}}{len(group['params']):>8}{num_parameters:>12,}{rates}  {matrices}")
    return "\n".join(lines)


def build_optimizer(name: OptimizerName, groups: list[dict[str, Any]], momentum: float) -> torch.optim.Optimizer:
    """Build the optimizer for ``parameter_groups``; ``momentum`` is the first beta of AdamW."""
    if name == "musgd":
        return MuSGD(groups, momentum=momentum)
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=momentum, nesterov=True)
    if name == "adamw":
        return torch.optim.AdamW(groups, betas=(momentum, 0.999))
    raise ValueError(unknown_name("optimizer", name, get_args(OptimizerName)))
