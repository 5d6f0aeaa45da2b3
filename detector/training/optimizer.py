"""Parameter groups, and the optimizer over them."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from detector.dynamic.conv2d import DynamicConv2d
from detector.training.musgd import MatrixShape, MuSGD, _matrix_of
from detector.training.parts import innermost_parts

OptimizerName = Literal["musgd", "sgd", "adamw"]


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    muon: bool = True,
    class_lr_ratio: float = 3.0,
    lr_ratios: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Sort the trainable parameters of ``model`` into groups; each is in exactly one, and no group is empty.

    Kernels of convolutions take Muon (if ``muon``) and decay, every expert of a dynamic convolution as a matrix of its own;
    weights of routers take decay only; norms and biases neither. Class branches (``.cls.`` in the name) have
    ``class_lr_ratio`` times the learning rate, and parts of the model (see ``parts.py``) ``lr_ratios`` times as much;
    groups of such parts come last. Besides the optimizers' own keys a group has ``name``, ``base_lr`` and ``bias``, for
    ``Schedule``.
    """
    groups: dict[tuple[str | None, bool, str], dict[str, Any]] = {}  # by part, whether it is of a class branch, and kind
    seen: set[int] = set()
    parts = innermost_parts(model, lr_ratios or {})
    for prefix, module in model.named_modules():
        for attribute, p in module.named_parameters(recurse=False):
            if not p.requires_grad or id(p) in seen:
                continue
            seen.add(id(p))
            part, is_class, kind = key = parts[prefix], ".cls." in f".{prefix}.", _kind(prefix, attribute, p)
            if key not in groups:
                rate = lr * (class_lr_ratio if is_class else 1.0) * (lr_ratios[part] if part else 1.0)
                group = {
                    "params": [],
                    "name": " ".join(word for word in (part, "class" if is_class else None, kind) if word),
                    "lr": rate,
                    "base_lr": rate,
                    "weight_decay": weight_decay if kind in ("kernels", "routers") else 0.0,
                    "bias": kind == "biases",
                }
                groups[key] = group | ({"muon": True, "matrices": []} if muon and kind == "kernels" else {"muon": False})
            groups[key]["params"].append(p)
            if groups[key]["muon"]:
                groups[key]["matrices"].append(_matrix_shape(module, p))
    if not groups:
        raise ValueError("the model has no trainable parameter: everything is frozen")
    return [groups[key] for key in sorted(groups, key=lambda key: key[0] is not None)]


def _kind(prefix: str, attribute: str, p: Tensor) -> str:
    if attribute == "bias":
        return "biases"
    if "router" in prefix.split("."):
        return "routers"
    return "kernels" if p.ndim > 1 else "norms"


def _matrix_shape(module: nn.Module, p: Tensor) -> MatrixShape:
    if isinstance(module, DynamicConv2d):
        return _matrix_of(module.kernel_shape, module.num_experts)
    return _matrix_of(p.shape)


def group_table(groups: list[dict[str, Any]]) -> str:
    """Describe parameter groups, one a line, for the log."""
    width = max(16, *(len(group["name"]) + 1 for group in groups))
    lines = [f"{'parameter group':<{width}}{'tensors':>8}{'parameters':>12}{'lr':>10}{'decay':>10}  matrices"]
    for group in groups:
        count = sum(p.numel() for p in group["params"])
        matrices = str(sum(m[0] for m in group["matrices"])) if group["muon"] else "-"
        rates = f"{group['base_lr']:>10.4g}{group['weight_decay']:>10.3g}"
        lines.append(f"{group['name']:<{width}}{len(group['params']):>8}{count:>12,}{rates}  {matrices}")
    return "\n".join(lines)


def build_optimizer(name: OptimizerName, groups: list[dict[str, Any]], momentum: float) -> torch.optim.Optimizer:
    """Make the optimizer over ``parameter_groups``; ``momentum`` is the first beta of AdamW."""
    if name == "musgd":
        return MuSGD(groups, momentum=momentum)
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=momentum, nesterov=True)
    if name == "adamw":
        return torch.optim.AdamW(groups, betas=(momentum, 0.999))
    raise ValueError(f"unknown optimizer {name!r}; choose musgd, sgd or adamw")
