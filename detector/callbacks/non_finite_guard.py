"""What to do when a loss is not a number: say where, leave that step out, and stop when it goes on."""

import warnings

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from detector.batch import Batch
from detector.text import plural


class NonFiniteLoss(RuntimeError):
    """The loss was not finite in too many steps in a row."""


class NonFiniteGuard(L.Callback):
    """Skips optimizer steps whose loss, or gradient, is not finite, and after ``max_skips`` in a row stops the training.

    Loss terms and image ids are named in a warning on the process that met them. Of a step that is skipped nothing stays:
    neither gradients nor what the images did to the statistics of normalization, and the average is not updated. All
    processes skip together. With 16-mixed precision infinite gradients of a finite loss are left to the gradient scaler,
    whose business they are, until its scale has fallen below 1: then float16's range is not the reason.

    The module keeps the terms of its latest loss in ``latest_terms``, as DetectorModule does, and is told ``step_skipped``,
    by which ``RampedEMA`` leaves its average alone.
    """

    def __init__(self, max_skips: int = 10) -> None:
        if max_skips < 1:
            raise ValueError(f"max_skips is {max_skips}; expected 1 or more")
        self.max_skips = max_skips
        self.skipped = 0  # in the whole run
        self._in_a_row = 0
        self._seen: list[tuple[dict[str, Tensor], list[int]]] = []  # terms and image ids of the batches of this step
        self._kept: list[Tensor] = []  # float buffers at its start

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget what a training before this one may have left when it was interrupted."""
        self._seen, self._kept = [], []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int) -> None:
        """Keep what the batch may spoil, and note its images."""
        if not self._seen:
            self._kept = [buffer.clone() for buffer in _float_buffers(pl_module)]
        self._seen.append(({}, [target.get("image_id", -1) for target in batch["targets"]]))

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the loss terms of the batch."""
        self._seen[-1][0].update(pl_module.latest_terms)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Judge the step, and take away its gradients if it is bad."""
        seen, self._seen = self._seen, []
        terms = [value for of_batch, _ in seen for value in of_batch.values()]
        # One word from the device on most steps: asking for each, or for the scale, would make it wait twice.
        bad = not _finite(terms + _gradient_norms(pl_module))
        if bad and not _finite(terms):
            warnings.warn(f"{describe(seen)}; this step is skipped", stacklevel=2)
        elif bad and trainer.scaler is not None and trainer.scaler.get_scale() >= 1:
            bad = False
        elif bad and trainer.is_global_zero:  # gradients are those of all processes
            warnings.warn(f"the gradient of {_first_bad(pl_module)} is not finite; this step is skipped", stacklevel=2)
        if trainer.world_size > 1:  # what is wrong on one process need not show in what the others got of its gradients
            bad = trainer.strategy.reduce_boolean_decision(bad, all=False)
        pl_module.step_skipped = bad
        if not bad:
            self._in_a_row = 0
            return
        self._skip(pl_module)
        if self._in_a_row >= self.max_skips:
            raise NonFiniteLoss(
                f"{plural(self._in_a_row, 'step')} in a row had a loss or gradient that is not finite; in the last one "
                f"{describe(seen)}. The checkpoints written before are whole. Resume from last.ckpt with a lower model.lr, "
                "a longer model.warmup_epochs, or trainer.precision bf16-mixed or 32-true instead of 16-mixed, and look at "
                "these images (python -m data show)"
            )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say how many steps were skipped."""
        if self.skipped:
            many = plural(self.skipped, "optimizer step was", "optimizer steps were")
            rank_zero_warn(f"{many} skipped, for a loss or gradient that was not finite")

    def _skip(self, module: L.LightningModule) -> None:
        self.skipped, self._in_a_row = self.skipped + 1, self._in_a_row + 1
        for p in module.parameters():
            p.grad = None  # optimizers leave out what has no gradient
        for buffer, kept in zip(_float_buffers(module), self._kept, strict=True):
            buffer.copy_(kept)


def describe(batches: list[tuple[dict[str, Tensor], list[int]]]) -> str:
    """Name the terms that are not finite, and the images of the batches they came from."""
    found = []
    for terms, image_ids in batches:
        if wrong := [f"{name} {value.item()}" for name, value in terms.items() if not value.isfinite()]:
            found.append(f"the loss has {', '.join(wrong)} with the images {image_ids}")
    images = [image_id for _, image_ids in batches for image_id in image_ids]
    return "; ".join(found) or f"the loss of this process is finite, its images are {images}"


def _finite(values: list[Tensor]) -> bool:
    return not values or bool(torch.stack([value.detach().float() for value in values]).isfinite().all())


def _gradient_norms(module: L.LightningModule) -> list[Tensor]:
    return list(torch._foreach_norm([p.grad for p in module.parameters() if p.grad is not None]))


def _first_bad(module: L.LightningModule) -> str:
    return next(name for name, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all())


def _float_buffers(module: L.LightningModule) -> list[Tensor]:
    return [buffer for buffer in module.buffers() if buffer.is_floating_point()]
