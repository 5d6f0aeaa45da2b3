"""Exponential moving average of the weights, for validation, checkpoints and prediction."""

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from detector.arguments import AUTO, Auto


class RampedEMA(WeightAveraging):
    """Average weights and float buffers after every optimizer step, and copy integer buffers.

    average <- d * average + (1 - d) * weights, where the decay d grows with the optimizer step n = 1, 2, ...:
    d = decay * (1 - exp(-n / tau)). So the average follows the weights closely at first. With the default values:

        n   1       500     1,000   2,000   4,000   10,000  20,000
        d   0.0005  0.2212  0.3934  0.6321  0.8646  0.9932  0.9999

    For a short run choose ``tau`` well below its number of steps: d reaches 95% of ``decay`` after 3 tau steps.

    During validation and after training, the module holds the average. In a checkpoint, ``state_dict`` is the average, and
    ``current_model_state`` holds the raw weights, which resuming needs. ``auto`` is chosen by train.py.
    """

    def __init__(self, decay: float | Auto = 0.9999, tau: float | Auto = 2000.0) -> None:
        """Make the callback.

        Args:
            decay: share of the average that stays at a step, in the long run; 0 or more, below 1.
            tau: optimizer steps in which the decay grows to 63 % of ``decay``.
        """
        super().__init__()
        self._swapped = False
        self.choose(decay, tau)

    def choose(self, decay: float | Auto, tau: float | Auto) -> None:
        """Set ``decay`` and ``tau``. Raises ValueError for wrong ones."""
        if (decay != AUTO and not 0 <= decay < 1) or (tau != AUTO and tau <= 0):
            raise ValueError(f"ema decay is {decay} and tau {tau}; expected a decay in 0..1 and a positive tau")
        self.decay, self.tau = decay, tau

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Make the average. Raises ValueError if ``decay`` or ``tau`` is still "auto"."""
        if stage == "fit" and AUTO in (self.decay, self.tau):
            raise ValueError(
                f"ema decay is {self.decay} and tau {self.tau}: auto is chosen by train.py; in Python give a number, or "
                "take it from detector.training.recipe.recipe_for (docs/python.md)"
            )
        super().setup(trainer, pl_module, stage)

    def decay_at(self, step: int) -> float:
        """Return the decay at optimizer step ``step``, counted from 1."""
        return float(self.decay) * (1 - math.exp(-step / float(self.tau)))

    @property
    def _average(self) -> AveragedModel:
        assert self._average_model is not None  # between ``setup`` and ``teardown``
        return self._average_model

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Move the average to the device of the module: it was made in ``setup``, before the module was moved."""
        self._average.to(pl_module.device)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Update the average if this batch completed an optimizer step, unless NonFiniteGuard skipped the step."""
        if trainer.global_step <= self._latest_update_step:
            return
        self._latest_update_step = trainer.global_step
        if not getattr(pl_module, "step_skipped", False):
            # Not update_parameters: it copies the weights at the first step, and waits for the GPU at every step.
            update_average(self._average.module, pl_module, self.decay_at(trainer.global_step))
            self._average.n_averaged += 1

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Drop the average: after training, the module and the ``state_dict`` of every checkpoint hold it.

        Otherwise a later ``trainer.test(ckpt_path=...)`` would load the raw weights of the checkpoint.
        """
        self._average_model = None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Swap back if validation was interrupted, so that a checkpoint written now has average and raw weights in place."""
        if self._swapped:
            self._swap_models(pl_module)

    def _swap_models(self, pl_module: L.LightningModule) -> None:
        super()._swap_models(pl_module)
        self._swapped = not self._swapped


@torch.no_grad()
def update_average(average: nn.Module, current: nn.Module, decay: float) -> None:
    """Set ``average`` to ``decay * average + (1 - decay) * current``, in place; integer buffers are copied."""
    averages, currents = [], []
    for average_tensor, tensor in zip(_state(average), _state(current), strict=True):
        if average_tensor.is_floating_point():
            averages.append(average_tensor)
            currents.append(tensor.to(average_tensor.device))
        else:
            average_tensor.copy_(tensor)
    torch._foreach_lerp_(averages, currents, 1 - decay)


def _state(module: nn.Module) -> list[Tensor]:
    return [*(p.data for p in module.parameters()), *module.buffers()]
