"""Learning rate and momentum of every step, as pure functions of its number, so a resumed run continues them."""

import math
from dataclasses import dataclass
from typing import Literal

from torch.optim import Optimizer


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up step by step, and decay of the learning rate from 1 to ``final_ratio`` epoch by epoch.

    ``warmup_epochs`` may be a fraction; the warm-up ends before the last epoch. It raises the learning rate of biases from
    ``warmup_bias_lr``, all others from 0, and the momentum from ``warmup_momentum``. Endless training (``max_epochs`` -1)
    has no decay.
    """

    max_epochs: int
    final_ratio: float = 0.01
    decay: Literal["linear", "cosine"] = "linear"
    momentum: float = 0.9
    warmup_epochs: float = 3.0
    warmup_momentum: float = 0.8
    warmup_bias_lr: float = 0.1

    def decay_factor(self, epoch: float) -> float:
        """Return the factor of the learning rate in ``epoch`` (0-based), in final_ratio..1."""
        if self.max_epochs < 0:
            return 1.0
        progress = min(epoch / max(self.max_epochs, 1), 1.0)
        remaining = 1 - progress if self.decay == "linear" else (1 + math.cos(math.pi * progress)) / 2
        return self.final_ratio + (1 - self.final_ratio) * remaining

    def warmup_progress(self, epoch: int, batch: int, num_batches: int) -> float:
        """Return the completed fraction of the warm-up at the start of ``batch`` (0-based) of ``epoch``, in 0..1."""
        length = self.warmup_epochs if self.max_epochs < 0 else min(self.warmup_epochs, self.max_epochs - 1)
        return min((epoch + batch / num_batches) / length, 1.0) if length > 0 else 1.0

    def apply(
        self, optimizer: Optimizer, epoch: int, batch: int, num_batches: int, decay_epoch: float | None = None
    ) -> None:
        """Set the learning rate and momentum of every group of ``parameter_groups``.

        ``decay_epoch`` is the position in the decay, by default ``epoch``.
        """
        decay = self.decay_factor(epoch if decay_epoch is None else decay_epoch)
        progress = self.warmup_progress(epoch, batch, num_batches)
        momentum = self.warmup_momentum + (self.momentum - self.warmup_momentum) * progress
        for group in optimizer.param_groups:
            start = self.warmup_bias_lr if group["bias"] else 0.0
            group["lr"] = start + (group["base_lr"] * decay - start) * progress
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum


@dataclass(frozen=True)
class StepSchedule:
    """Linear warm-up, then a cosine from 1 to ``final_ratio``, by optimizer step: the schedule of pre-training.

    The warm-up takes at most half of ``num_steps``. Endless training (``num_steps`` infinite) has no decay. (timm's
    ``CosineLRScheduler`` ends at one rate for all groups; with ``layer_decay`` each has its own.)
    """

    num_steps: float
    warmup_steps: float = 0.0
    final_ratio: float = 0.0

    def factor(self, step: int) -> float:
        """Return the factor of the learning rate in optimizer step ``step`` (0-based), in 0..1."""
        warmup = min(self.warmup_steps, self.num_steps / 2)
        if step < warmup:
            return min((step + 1) / warmup, 1.0)
        if math.isinf(self.num_steps):
            return 1.0
        progress = min((step - warmup) / max(self.num_steps - warmup, 1), 1.0)
        return self.final_ratio + (1 - self.final_ratio) * (1 + math.cos(math.pi * progress)) / 2

    def apply(self, optimizer: Optimizer, step: int) -> None:
        """Set the learning rate of every group of ``parameter_groups``."""
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * self.factor(step)
