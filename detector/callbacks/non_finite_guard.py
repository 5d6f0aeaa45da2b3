"""Guard against losses that are not finite: warn, skip the step, and stop if it happens again and again."""

import warnings
from collections.abc import Mapping
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from detector.batch import Batch, ClassBatch
from detector.text import plural

# Loss terms (scalars) and images of a batch, for the warnings: ids of detection data, or numbers in the training split
BatchRecord = tuple[dict[str, Tensor], list[int] | Tensor]
MOST_IMAGES = 8  # in a warning about a classifier, whose batches are large


class NonFiniteLoss(RuntimeError):
    """The loss or gradient was not finite in too many steps in a row."""


class NonFiniteGuard(L.Callback):
    """Skip optimizer steps whose loss or gradient is not finite, and stop training after ``max_skips`` of them in a row.

    A warning names the loss terms and image ids, on the process that has them. A skipped step changes nothing: it leaves no
    gradients, all buffers (the statistics of normalization) are restored, and the averaged weights are not updated. All
    processes skip together. With 16-mixed precision, the gradient scaler handles infinite gradients of a finite loss until
    its scale is below 1; then the range of float16 cannot be the cause, and this callback skips the step.

    The module must keep the terms of its latest loss in ``latest_terms``, as DetectorModule does. This callback sets its
    ``step_skipped``, which ``RampedEMA`` reads.
    """

    def __init__(self, max_skips: int = 10) -> None:
        if max_skips < 1:
            raise ValueError(f"max_skips is {max_skips}; expected 1 or more")
        self.max_skips = max_skips
        self.skipped = 0  # steps in the whole run
        self._skipped_in_a_row = 0
        self._batches: list[BatchRecord] = []  # of the current step
        self._saved_buffers: list[Tensor] = []  # at the start of the step

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Drop the records of a training that was interrupted before."""
        self._batches, self._saved_buffers = [], []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch | ClassBatch, *_: Any
    ) -> None:
        """Save all buffers before the first batch of a step, and record the images of every batch."""
        if not self._batches:
            self._saved_buffers = [buffer.clone() for buffer in pl_module.buffers()]
        content: Mapping[str, Any] = batch
        images = [t.get("image_id", -1) for t in content["targets"]] if "targets" in content else content["indices"]
        self._batches.append(({}, images))

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the loss terms of the batch."""
        terms, _ = self._batches[-1]
        terms.update(cast(Any, pl_module).latest_terms)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Skip the step on all processes if its loss or gradient is not finite on one of them."""
        batches, self._batches = self._batches, []
        skip = self._is_bad(trainer, pl_module, batches)
        if trainer.world_size > 1:  # a loss that is not finite on one process need not show on the others
            skip = trainer.strategy.reduce_boolean_decision(skip, all=False)
        cast(Any, pl_module).step_skipped = skip
        if not skip:
            self._skipped_in_a_row = 0
            return
        self._discard_step(pl_module)
        if self._skipped_in_a_row >= self.max_skips:
            raise NonFiniteLoss(
                f"{plural(self._skipped_in_a_row, 'step')} in a row had a loss or gradient that is not finite; in the last "
                f"one {describe(batches, trainer)}. The checkpoints written before are intact. Resume from last.ckpt with a "
                "lower model.lr, a longer model.warmup_epochs, or trainer.precision bf16-mixed or 32-true instead of "
                f"16-mixed. Look at these images{_how_to_look(batches)}"
            )

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the buffers if the validation is within a step that already has a loss that is not finite.

        Otherwise it would use statistics that are not numbers, and a checkpoint of it would keep them.
        """
        if not _all_finite([term for terms, _ in self._batches for term in terms.values()]):
            self._restore_buffers(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log how many steps were skipped."""
        if self.skipped:
            steps = plural(self.skipped, "optimizer step was", "optimizer steps were")
            rank_zero_warn(f"{steps} skipped, for a loss or gradient that was not finite")

    def _is_bad(self, trainer: L.Trainer, module: L.LightningModule, batches: list[BatchRecord]) -> bool:
        """Return True, with a warning, if the loss or gradient of a step is not finite on this process."""
        terms = [term for batch_terms, _ in batches for term in batch_terms.values()]
        gradient_norms = torch._foreach_norm([p.grad for p in module.parameters() if p.grad is not None])
        if _all_finite([*terms, *gradient_norms]):  # one GPU sync per step
            return False
        if not _all_finite(terms):
            warnings.warn(f"{describe(batches, trainer)}; this step is skipped", stacklevel=2)
            return True
        if trainer.scaler is not None and trainer.scaler.get_scale() >= 1:
            return False  # the scaler skips the step and lowers its scale
        if trainer.is_global_zero:  # gradients are the same on all processes
            gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
            first_bad = next(name for name, gradient in gradients.items() if not gradient.isfinite().all())
            warnings.warn(f"the gradient of {first_bad} is not finite; this step is skipped", stacklevel=2)
        return True

    def _discard_step(self, module: L.LightningModule) -> None:
        self.skipped, self._skipped_in_a_row = self.skipped + 1, self._skipped_in_a_row + 1
        for p in module.parameters():
            p.grad = None  # optimizers leave out parameters without a gradient
        self._restore_buffers(module)

    def _restore_buffers(self, module: L.LightningModule) -> None:
        for buffer, saved in zip(module.buffers(), self._saved_buffers, strict=True):
            buffer.copy_(saved)


def describe(batches: list[BatchRecord], trainer: L.Trainer | None = None) -> str:
    """Name the loss terms that are not finite, and the images of their batches."""
    problems = []
    for terms, images in batches:
        if bad_terms := [f"{name} {value.item()}" for name, value in terms.items() if not value.isfinite()]:
            problems.append(f"the loss has {', '.join(bad_terms)} with the images {_names(images, trainer)}")
    if problems:
        return "; ".join(problems)
    all_images = [name for _, images in batches for name in images]
    if any(isinstance(images, Tensor) for _, images in batches):
        all_images = _names(torch.tensor(all_images), trainer)
    return f"the loss of this process is finite, its images are {all_images}"


def _names(images: list[int] | Tensor, trainer: L.Trainer | None) -> Any:
    """Return image ids as they are; of numbers in the training split the first few, by name if the data know names."""
    if not isinstance(images, Tensor):
        return images
    name = getattr(getattr(trainer, "datamodule", None), "image_name", lambda split, number: str(number))
    more = f" and {len(images) - MOST_IMAGES} more" if len(images) > MOST_IMAGES else ""
    return ", ".join(name("train", number) for number in images[:MOST_IMAGES].tolist()) + more


def _how_to_look(batches: list[BatchRecord]) -> str:
    return "" if any(isinstance(images, Tensor) for _, images in batches) else ": python -m data show"


def _all_finite(values: list[Tensor]) -> bool:
    return not values or bool(torch.stack([value.detach().float() for value in values]).isfinite().all())
