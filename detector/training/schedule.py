"""The learning rate and momentum of every step, as pure functions of epoch and batch: a resumed run goes on with them."""

import math
from dataclasses import dataclass
from typing import Literal

from torch.optim import Optimizer


@dataclass(frozen=True)
class Schedule:
    """Per-epoch decay from 1 to ``final_ratio`` after a linear warm-up per step.

    ``warmup_epochs`` may be a fraction, and ends at the last epoch but one. In the warm-up the learning rate of biases
    starts from ``warmup_bias_lr``, all others from 0, and the momentum from ``warmup_momentum``. With ``max_epochs`` of -1
    (endless) nothing decays.
    """

    max_epochs: int
    final_ratio: float = 0.01
    decay: Literal["linear", "cosine"] = "linear"
    momentum: float = 0.9
    warmup_epochs: float = 3.0
    warmup_momentum: float = 0.8
    warmup_bias_lr: float = 0.1

    def decay_factor(self, epoch: int) -> float:
        """Return what the learning rate of ``epoch`` (0-based) is multiplied by, in final_ratio..1."""
        if self.max_epochs < 0:
            return 1.0
        progress = min(epoch / max(self.max_epochs, 1), 1.0)
        share = 1 - progress if self.decay == "linear" else (1 + math.cos(math.pi * progress)) / 2
        return self.final_ratio + (1 - self.final_ratio) * share

    def warmup_share(self, epoch: int, batch: int, num_batches: int) -> float:
        """Return how far the warm-up has come before ``batch`` (0-based) of ``epoch``, in 0..1."""
        length = self.warmup_epochs if self.max_epochs < 0 else min(self.warmup_epochs, self.max_epochs - 1)
        return min((epoch + batch / num_batches) / length, 1.0) if length > 0 else 1.0

    def apply(self, optimizer: Optimizer, epoch: int, batch: int, num_batches: int) -> None:
        """Set the learning rate and momentum of every group. Groups come from ``parameter_groups``."""
        warm = self.warmup_share(epoch, batch, num_batches)
        momentum = self.warmup_momentum + (self.momentum - self.warmup_momentum) * warm
        for group in optimizer.param_groups:
            start = self.warmup_bias_lr if group["bias"] else 0.0
            group["lr"] = start + (group["base_lr"] * self.decay_factor(epoch) - start) * warm
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum
