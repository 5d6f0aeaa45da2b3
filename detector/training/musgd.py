"""MuSGD: SGD and Muon in one optimizer (YOLO26, arXiv:2606.03748)."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

# Number of matrices, rows, columns, and the factor of their update. A plain tuple, because checkpoints hold it.
MatrixShape = tuple[int, int, int, float]
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic coefficients of Muon (Jordan et al., 2024)
NEWTON_SCHULZ_STEPS = 5


class MuSGD(torch.optim.Optimizer):
    """SGD with Nesterov momentum for all parameters, and a Muon step for matrices in addition.

    Parameters of a group with ``muon=True`` take both steps, others the SGD step alone. Such a group may have
    ``matrices``, one ``MatrixShape`` per parameter; by default a parameter is one matrix, its first dimension by the
    product of the others. Matrices of one shape are orthogonalized in one call, whichever group they are in.

    Args:
        params: parameters or parameter groups, with the options ``lr``, ``momentum``, ``weight_decay``, ``muon``.
        lr: learning rate of the SGD step; that of the Muon step is ``muon_scale`` times as high.
        momentum: of both steps, each with its own buffer.
        weight_decay: of the SGD step, added to its gradient.
        muon_scale: see ``lr``.
        precision: of the orthogonalization; None chooses the faster one, bfloat16 on GPUs and float32 on CPUs.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        muon: bool = False,
        muon_scale: float = 0.2,
        precision: torch.dtype | None = None,
    ) -> None:
        if lr < 0 or not 0 <= momentum < 1 or weight_decay < 0:
            raise ValueError(f"lr={lr} and weight_decay={weight_decay} must be at least 0, momentum={momentum} in 0..1")
        self.precision = precision
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "muon": muon, "muon_scale": muon_scale}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step. Parameters without a gradient do not change."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._muon_step([group for group in self.param_groups if group["muon"]])
        for group in self.param_groups:
            self._sgd_step(group)
        return loss

    def _buffers(self, name: str, params: list[Tensor]) -> list[Tensor]:
        for p in params:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return [self.state[p][name] for p in params]

    def _muon_step(self, groups: list[dict[str, Any]]) -> None:
        """Orthogonalize the updates of all groups, matrices of one shape in one call, and add them."""
        by_shape: dict[tuple[int, int, torch.device], list[tuple[Tensor, Tensor, float]]] = defaultdict(list)
        for group in groups:
            for p, (count, rows, columns, factor), update in self._nesterov_updates(group):
                step_size = -group["lr"] * group["muon_scale"] * factor
                by_shape[rows, columns, p.device].append((p, update.reshape(count, rows, columns), step_size))
        for entries in by_shape.values():
            params, matrices, step_sizes = (list(column) for column in zip(*entries))
            orthogonal = orthogonalize(torch.cat(matrices), self.precision).split([len(m) for m in matrices])
            updates = [o.reshape(p.shape) for o, p in zip(orthogonal, params)]
            torch._foreach_mul_(updates, step_sizes)
            torch._foreach_add_(params, updates)

    def _nesterov_updates(self, group: dict[str, Any]) -> list[tuple[Tensor, MatrixShape, Tensor]]:
        """Move the Muon buffers of a group, and return parameter, matrix shape and update where there is a gradient."""
        shapes = group.get("matrices") or [matrix_shape(p.shape) for p in group["params"]]
        entries = [(p, shape) for p, shape in zip(group["params"], shapes) if p.grad is not None]
        if not entries:
            return []
        params, shapes = (list(column) for column in zip(*entries))
        grads, buffers = [p.grad for p in params], self._buffers("muon_buffer", params)
        torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])  # m <- b m + (1 - b) g
        updates = torch._foreach_lerp(grads, buffers, group["momentum"])  # Nesterov: b m + (1 - b) g
        return list(zip(params, shapes, updates))

    def _sgd_step(self, group: dict[str, Any]) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        grads, buffers = [p.grad for p in params], self._buffers("momentum_buffer", params)
        if group["weight_decay"]:
            grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, grads)
        torch._foreach_add_(params, grads, alpha=-group["lr"])
        torch._foreach_add_(params, buffers, alpha=-group["lr"] * group["momentum"])


def orthogonalize(matrices: Tensor, precision: torch.dtype | None = None) -> Tensor:
    """Return approximately U V^T for ``matrices`` (N, rows, columns) = U S V^T, as float32.

    Five Newton-Schulz iterations in ``precision`` bring the singular values near 1 (Muon, Jordan et al., 2024).
    """
    if precision is None:
        precision = torch.float32 if matrices.device.type == "cpu" else torch.bfloat16
    x = matrices.to(precision)
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    # X X^T loses half the precision, so not in bfloat16.
    by_gram = precision == torch.float32 and x.shape[2] >= 2 * x.shape[1]
    x = _newton_schulz_by_gram(x) if by_gram else _newton_schulz(x)
    return (x.mT if tall else x).float()


def _newton_schulz(x: Tensor) -> Tensor:
    """Iterate X <- a X + (b A + c A A) X, where A = X X^T."""
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x


def _newton_schulz_by_gram(x: Tensor) -> Tensor:
    """Iterate on A = X X^T, which is much smaller than X if X is flat: X <- S X makes A <- S A S."""
    a, b, c = NEWTON_SCHULZ
    gram = product = x @ x.mT
    for step in range(NEWTON_SCHULZ_STEPS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # S = a + b A + c A A
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if step == 0 else factor @ product
        if step < NEWTON_SCHULZ_STEPS - 1:
            gram = factor @ (gram @ factor)
    return product @ x


def matrix_shape(shape: Sequence[int], count: int = 1) -> MatrixShape:
    """Describe ``count`` tensors of ``shape`` as matrices: the first dimension by the product of the others.

    The factor of the update comes from the last two dimensions; it is 1 for square kernels.
    """
    return (count, shape[0], math.prod(shape[1:]), max(1.0, shape[-2] / shape[-1]) ** 0.5)
