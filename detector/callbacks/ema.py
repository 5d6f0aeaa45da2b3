"""The average of the weights that validation, the best checkpoint and prediction use."""

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn


class RampedEMA(WeightAveraging):
    """Exponential moving average of weights and float buffers after every optimizer step n, whose decay grows with n:
    ``decay * (1 - exp(-n / tau))``. Integer buffers are copied.

    During validation, and after training, the module holds the average; a checkpoint's ``state_dict`` is the average, and
    the raw weights, needed to resume, are beside it.
    """

    def __init__(self, decay: float = 0.9999, tau: float = 2000.0) -> None:
        super().__init__()
        if not 0 <= decay < 1 or tau <= 0:
            raise ValueError(f"ema decay is {decay} and tau {tau}; expected a decay in 0..1 and a positive tau")
        self.decay, self.tau = decay, tau
        self._swapped = False

    def decay_at(self, step: int) -> float:
        """Return the decay of optimizer step ``step``, counted from 1."""
        return self.decay * (1 - math.exp(-step / self.tau))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Follow the module to its device: the average was made in ``setup``, before the module was moved."""
        if self._average_model is not None:
            self._average_model.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average if this batch ended in an optimizer step."""
        if trainer.global_step > self._latest_update_step:
            self._latest_update_step = trainer.global_step
            if getattr(pl_module, "step_skipped", False):  # by NonFiniteGuard: there is nothing new to average
                return
            assert self._average_model is not None
            update_average(self._average_model.module, pl_module, self.decay_at(trainer.global_step))
            self._average_model.n_averaged += 1

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Do nothing: the average follows steps, not epochs."""

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let go of the average after training: the module holds it now, and so does every checkpoint's ``state_dict``.

        Kept, it would make a later ``trainer.test(ckpt_path=...)`` load the raw weights of the checkpoint.
        """
        self._average_model = None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the raw weights back if validation was interrupted, so that what is saved now is not mixed up."""
        if self._swapped:
            self._swap_models(pl_module)

    def _swap_models(self, pl_module: L.LightningModule) -> None:
        super()._swap_models(pl_module)
        self._swapped = not self._swapped


@torch.no_grad()
def update_average(average: nn.Module, current: nn.Module, decay: float) -> None:
    """Set ``average`` to ``decay * average + (1 - decay) * current``, in place; integer buffers are copied."""
    floats, news = [], []
    for old, new in zip(_state(average), _state(current), strict=True):
        if old.is_floating_point():
            floats.append(old)
            news.append(new.to(old.device))
        else:
            old.copy_(new)
    torch._foreach_lerp_(floats, news, 1 - decay)


def _state(module: nn.Module) -> list[Tensor]:
    return [*(p.data for p in module.parameters()), *module.buffers()]
