"""Optimizer steps of a training: images of a batch, and what the log says about steps."""

import math
from typing import Any, cast

import lightning as L

from detector.text import plural

FEW_STEPS = 1000  # a run with fewer optimizer steps logs how to get more


def steps_texts(trainer: L.Trainer, optimizer: str, nominal_batch: int, batch_size: int, images_per_step: int) -> list[str]:
    """Return how many images and batches make a step, and what to change if steps are few or large."""
    accumulated, batches = trainer.accumulate_grad_batches, cast(int, trainer.num_training_batches)
    processes = trainer.world_size
    steps = math.ceil(batches / accumulated)
    texts = [
        f"{optimizer}: {plural(images_per_step, 'image')} a step = {batch_size} a device x "
        f"{plural(processes, 'process', 'processes')} on {plural(trainer.num_nodes, 'node')} x {accumulated} "
        f"accumulated; {plural(batches, 'batch', 'batches')} and {plural(steps, 'step')} an epoch"
    ]
    epochs = -1 if trainer.max_epochs is None else trainer.max_epochs
    total = steps_of_run(batches, accumulated, epochs, trainer.max_steps)  # not above 0: endless
    if total > 0:
        is_limited = epochs < 0 or total < epochs * steps
        end = f"all (trainer.max_steps {trainer.max_steps})" if is_limited else plural(epochs, "epoch")
        texts[0] += f", {plural(total, 'step')} in {end}"
    if accumulated > 1 and 0 < total < FEW_STEPS:
        texts.append(
            f"the whole run has only {plural(total, 'optimizer step')}; on a small set a lower model.nominal_batch "
            f"(now {nominal_batch}{', say 16' if nominal_batch > 16 else ''}) or more epochs make more"
        )
    if images_per_step > nominal_batch:
        texts.append(
            f"{images_per_step} images a step are more than model.nominal_batch ({nominal_batch}): there are fewer "
            "steps, with more weight decay; a lower data.batch_size keeps them as they were"
        )
    return texts


def accumulated_batches(nominal_batch: int, images_per_batch: int) -> int:
    """Return how many batches of ``images_per_batch`` images, on all devices together, make a step of ``nominal_batch``."""
    return max(round(nominal_batch / images_per_batch), 1)


def batches_of_epoch(num_samples: int, images_per_batch: int, limit: int | float | None = None) -> int:
    """Return the batches of an epoch on each device; ``images_per_batch`` are those on all devices together.

    ``limit`` is the Trainer's ``limit_train_batches``: a number of batches, or as a float a share of them.
    """
    return limited_batches(math.ceil(num_samples / images_per_batch), limit)


def limited_batches(batches: int, limit: int | float | None) -> int:
    """Return how many of the ``batches`` of an epoch the Trainer takes; see ``batches_of_epoch`` for ``limit``."""
    if limit is None:
        return batches
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)


def steps_of_run(epoch_batches: int, accumulated: int, epochs: int, max_steps: int = -1) -> int:
    """Return the optimizer steps of a run. The last batches of an epoch make a step, too, however few they are.

    ``max_steps`` is the Trainer's limit, -1 for none. ``epochs`` are -1 for a run that only ``max_steps`` ends.
    """
    if epochs < 0:
        return max_steps
    steps = math.ceil(epoch_batches / accumulated) * epochs
    return steps if max_steps < 0 else min(steps, max_steps)


def epochs_of_steps(steps: int, epoch_batches: int, accumulated: int) -> int | None:
    """Return in how many epochs a run makes ``steps`` optimizer steps, 1 or more; None for -1 steps, which are no limit."""
    return None if steps < 0 else max(math.ceil(steps / max(math.ceil(epoch_batches / accumulated), 1)), 1)


def batches_of_run(epoch_batches: int, accumulated: int, epochs: int, max_steps: int = -1) -> float:
    """Return the batches of a run on each device; infinity for an endless one. See ``steps_of_run`` for the arguments."""
    if epochs < 0 and max_steps < 0:
        return math.inf
    steps_of_epoch = math.ceil(epoch_batches / accumulated)
    complete, others = divmod(steps_of_run(epoch_batches, accumulated, epochs, max_steps), max(steps_of_epoch, 1))
    return complete * epoch_batches + others * accumulated


def batches_to_validation(epoch_batches: int, every: int | None, interval: int | float) -> int:
    """Return after how many batches a run has its first validation.

    ``every`` and ``interval`` are the Trainer's ``check_val_every_n_epoch`` and ``val_check_interval``: batches, or as a
    float a share of those of an epoch.
    """
    within_epoch = interval if isinstance(interval, int) else max(int(epoch_batches * interval), 1)
    return within_epoch if every is None else (every - 1) * epoch_batches + within_epoch


def loader_batch_size(loader: Any) -> int:
    """Return the images of a batch of ``loader``. Raises ValueError if it has no attribute that says so."""
    size = getattr(loader, "batch_size", None) or getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    if not size:
        raise ValueError(
            f"the training dataloader ({type(loader).__name__}) has no batch_size, by which nominal_batch is "
            "divided; give the DataLoader or its batch sampler a batch_size attribute"
        )
    return int(size)
