"""Guard against losses that are not finite: warn, skip the step, and stop if it happens again and again."""

import warnings
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from detector.batch import Batch
from detector.text import plural

BatchRecord = tuple[dict[str, Tensor], list[int]]  # loss terms (scalars) and image ids of a batch, for the warnings


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

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int) -> None:
        """Save all buffers before the first batch of a step, and record the image ids of every batch."""
        if not self._batches:
            self._saved_buffers = [buffer.clone() for buffer in pl_module.buffers()]
        self._batches.append(({}, [target.get("image_id", -1) for target in batch["targets"]]))

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the loss terms of the batch."""
        terms, _ = self._batches[-1]
        terms.update(pl_module.latest_terms)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Skip the step on all processes if its loss or gradient is not finite on one of them."""
        batches, self._batches = self._batches, []
        skip = self._is_bad(trainer, pl_module, batches)
        if trainer.world_size > 1:  # a loss that is not finite on one process need not show on the others
            skip = trainer.strategy.reduce_boolean_decision(skip, all=False)
        pl_module.step_skipped = skip
        if not skip:
            self._skipped_in_a_row = 0
            return
        self._discard_step(pl_module)
        if self._skipped_in_a_row >= self.max_skips:
            raise NonFiniteLoss(
                f"{plural(self._skipped_in_a_row, 'step')} in a row had a loss or gradient that is not finite; in the last "
                f"one {describe(batches)}. The checkpoints written before are intact. Resume from last.ckpt with a lower "
                "model.lr, a longer model.warmup_epochs, or trainer.precision bf16-mixed or 32-true instead of 16-mixed. "
                "Look at these images: python -m data show"
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
            warnings.warn(f"{describe(batches)}; this step is skipped", stacklevel=2)
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


def describe(batches: list[BatchRecord]) -> str:
    """Name the loss terms that are not finite, and the images of their batches."""
    problems = []
    for terms, image_ids in batches:
        if bad_terms := [f"{name} {value.item()}" for name, value in terms.items() if not value.isfinite()]:
            problems.append(f"the loss has {', '.join(bad_terms)} with the images {image_ids}")
    all_image_ids = [image_id for _, image_ids in batches for image_id in image_ids]
    return "; ".join(problems) or f"the loss of this process is finite, its images are {all_image_ids}"


def _all_finite(values: list[Tensor]) -> bool:
    return not values or bool(torch.stack([value.detach().float() for value in values]).isfinite().all())
