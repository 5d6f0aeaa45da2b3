"""The length of a training: a start answers settings that it is too short for."""

import math
from typing import Any, NamedTuple

from lightning.pytorch import Trainer

from detector.callbacks.patience import earliest_end
from detector.text import plural
from detector.training.steps import accumulated_batches, batches_of_run, batches_to_validation, limited_batches


class TrainingLength(NamedTuple):
    """The batches of a training on each device."""

    epoch: int  # of an epoch
    total: float  # of all epochs; infinity for an endless training
    to_validation: int  # up to the first validation; 1 if validations come at times


def training_length(trainer: Trainer, data: Any, nominal_batch: int | None) -> TrainingLength:
    """Return the length of the training of ``data``; ``nominal_batch`` images make a step, or None for those of a batch."""
    epoch = max(limited_batches(data.num_train_batches(trainer.world_size), trainer.limit_train_batches), 1)
    accumulated, epochs = trainer.accumulate_grad_batches, trainer.max_epochs
    if accumulated == 1 and nominal_batch is not None:
        accumulated = accumulated_batches(nominal_batch, data.batch_size * trainer.world_size)
    total = batches_of_run(epoch, accumulated, -1 if epochs is None else epochs, trainer.max_steps)
    interval = getattr(trainer, "val_check_interval", None)  # a Trainer with a time has no such attribute
    to_validation = 1 if interval is None else batches_to_validation(epoch, trainer.check_val_every_n_epoch, interval)
    return TrainingLength(epoch, total, to_validation)


def missing_validation(trainer: Trainer, length: TrainingLength) -> str | None:
    """Return why the training ends before its first validation; None if it does not."""
    if length.total >= length.to_validation:
        return None
    every, interval = trainer.check_val_every_n_epoch, getattr(trainer, "val_check_interval", None)
    first, end = "an epoch", f"trainer.max_steps {trainer.max_steps}"
    if every is None or isinstance(interval, int):
        first = f"trainer.val_check_interval {interval}"
    elif every > 1:
        first = f"trainer.check_val_every_n_epoch {every}"
    if length.total == (trainer.max_epochs or 0) * length.epoch:
        end = f"trainer.max_epochs {trainer.max_epochs}"
    batches = plural(length.to_validation, "batch", "batches")
    return f"the first validation comes after {batches} ({first}), but the training has {length.total} ({end})"


def idle_patience(patience: int, length: TrainingLength, closing: int) -> str | None:
    """Return why ``patience`` changes nothing; None if it may. The last ``closing`` epochs have no mosaic."""
    if length.total == math.inf:
        return None
    epochs = math.ceil(length.total / length.epoch)
    earliest = earliest_end(patience, math.ceil(length.to_validation / length.epoch), closing)
    if earliest < epochs:
        return None
    closed = f", the last {closing} of them without mosaic" if closing else ""
    return (
        f"patience {patience} changes nothing in a training of {plural(epochs, 'epoch')}: the earliest end would be after "
        f"{plural(earliest, 'epoch')}{closed}"
    )
