"""The MuSGD optimizer."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

MatrixShape = tuple[int, int, int, float]  # number of matrices, rows, columns, and the factor of their update
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic coefficients of Muon (Jordan et al., 2024)
NEWTON_SCHULZ_STEPS = 5


class MuSGD(torch.optim.Optimizer):
    """SGD with Nesterov momentum, and on top of it a Muon step for matrices (YOLO26, arXiv:2606.03748).

    A parameter group with ``muon=True`` may have ``matrices``, one ``MatrixShape`` for each of its parameters; by
    default a parameter of 2 or more dimensions is one matrix of its first dimension by the rest. Matrices of one shape are
    orthogonalized together, in one call, whichever group they are in.

    Parameters of a group without ``muon`` take the SGD step alone.

    Args:
        params: parameters or parameter groups, with the options ``lr``, ``momentum``, ``weight_decay``, ``muon``.
        lr: learning rate of the SGD part; the Muon part takes ``muon_scale`` times as much.
        momentum: of both parts, each with its own buffer.
        weight_decay: of the SGD part, added to its gradient.
        muon_scale: see ``lr``.
        precision: of the orthogonalization; None takes bfloat16 on GPUs and float32, the faster one there, on CPUs.
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
            raise ValueError(f"lr={lr} and weight_decay={weight_decay} must not be negative, momentum={momentum} be in 0..1")
        self.precision = precision
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "muon": muon, "muon_scale": muon_scale}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Take one step. Parameters without a gradient stay as they are."""
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
        by_shape: dict[tuple, list[tuple[Tensor, float]]] = defaultdict(list)  # update, step size
        targets: dict[tuple, list[Tensor]] = defaultdict(list)
        for group in groups:
            entries = [(p, shape) for p, shape in zip(group["params"], _matrices(group)) if p.grad is not None]
            if not entries:
                continue
            params = [p for p, _ in entries]
            grads, buffers = [p.grad for p in params], self._buffers("muon_buffer", params)
            torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
            updates = torch._foreach_lerp(grads, buffers, group["momentum"])  # Nesterov: b m + (1 - b) g
            for (p, (number, rows, columns, scale)), update in zip(entries, updates):
                key = (rows, columns, p.device)
                step = -group["lr"] * group["muon_scale"] * scale
                by_shape[key].append((update.reshape(number, rows, columns), step))
                targets[key].append(p)
        for key, pairs in by_shape.items():
            stacked = torch.cat([update for update, _ in pairs])
            orthogonal = orthogonalize(stacked, self.precision).split([len(update) for update, _ in pairs])
            updates = [o.reshape(p.shape) for o, p in zip(orthogonal, targets[key])]
            torch._foreach_mul_(updates, [step for _, step in pairs])
            torch._foreach_add_(targets[key], updates)

    def _sgd_step(self, group: dict[str, Any]) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        grads, buffers = [p.grad for p in params], self._buffers("momentum_buffer", params)
        if group["weight_decay"]:
            grads = torch._foreach_add(grads, params, alpha=group["weight_decay"])
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, grads)
        torch._foreach_add_(params, grads, alpha=-group["lr"])
        torch._foreach_add_(params, buffers, alpha=-group["lr"] * group["momentum"])


def orthogonalize(matrices: Tensor, precision: torch.dtype | None = None) -> Tensor:
    """Return about U V^T of the singular value decompositions U S V^T of ``matrices`` (N, rows, columns), float32.

    Five Newton-Schulz iterations in ``precision``, whose singular values end near 1 (Muon, Jordan et al., 2024).
    """
    if precision is None:
        precision = torch.float32 if matrices.device.type == "cpu" else torch.bfloat16
    x = matrices.to(precision)
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    # Squared first, half of the digits are gone: no way to do it in bfloat16.
    flat = precision == torch.float32 and x.shape[2] >= 2 * x.shape[1]
    x = _newton_schulz_flat(x) if flat else _newton_schulz(x)
    return (x.mT if tall else x).float()


def _newton_schulz(x: Tensor) -> Tensor:
    """X <- a X + (b A + c A A) X, where A = X X^T."""
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x


def _newton_schulz_flat(x: Tensor) -> Tensor:
    """The same with all but the first and last product on the small square matrices: X <- S X makes A <- S A S."""
    a, b, c = NEWTON_SCHULZ
    gram, product = x @ x.mT, None
    for step in range(NEWTON_SCHULZ_STEPS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # S = a + b A + c A A
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else factor @ product
        if step < NEWTON_SCHULZ_STEPS - 1:
            gram = factor @ (gram @ factor)
    return product @ x


def _matrices(group: dict[str, Any]) -> list[MatrixShape]:
    return group.get("matrices") or [_matrix_of(p.shape) for p in group["params"]]


def _matrix_of(shape: Sequence[int], number: int = 1) -> MatrixShape:
    """Describe ``number`` tensors of ``shape`` as matrices; the factor is 1 for square kernels, however flat the matrix."""
    return (number, shape[0], math.prod(shape[1:]), max(1.0, shape[-2] / shape[-1]) ** 0.5)
