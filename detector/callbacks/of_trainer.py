"""What callbacks ask a Trainer for, and Lightning does not have or does not declare for type checkers."""

import math
from typing import Any

import lightning as L


def callbacks_of(trainer: L.Trainer) -> list[L.Callback]:
    """Return the callbacks of ``trainer`` in their order."""
    return trainer.callbacks  # type: ignore[attr-defined]  # set by one of Lightning's connectors


def data_module_of(trainer: L.Trainer) -> Any:
    """Return the data module of ``trainer``, or None."""
    return trainer.datamodule  # type: ignore[attr-defined]  # set by one of Lightning's connectors


def epochs_left(trainer: L.Trainer) -> float | None:
    """Return how many epochs of a training are left, 0 or more, with the rest of this one; None if it may be endless."""
    limits: list[float] = []
    batches = trainer.num_training_batches if 0 < trainer.num_training_batches < math.inf else None
    if (max_epochs := trainer.max_epochs or -1) > 0:
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        position = progress.processed / batches if batches else 1
        limits.append(max_epochs - trainer.current_epoch - position)
    if trainer.max_steps > 0 and batches:
        steps_per_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
        limits.append((trainer.max_steps - trainer.global_step) / steps_per_epoch)
    return max(min(limits), 0) if limits else None
