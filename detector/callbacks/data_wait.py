"""Log how long training waits for data."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn

WARN_ABOVE = 0.2  # share of the training time
MIN_BATCHES = 10  # shorter epochs are not warned about
CACHE_ADVICE = "set data.cache to ram (python -m benchmarks.data shows what a core can do)"  # for CocoDataModule


class DataWait(L.Callback):
    """Log ``train/data_wait``, the share (0..1) of an epoch's training time that steps waited for their batch.

    The wait is the time from the end of a step to the start of the next. Validation is not part of it, nor is the first
    batch of an epoch, because workers start then. A share above ``WARN_ABOVE`` gives a warning, once in a run. It says what
    to do: to raise data.num_workers, or ``advice``.
    """

    def __init__(self, advice: str = CACHE_ADVICE) -> None:
        self.advice = advice
        self._warned = False
        self._step_ended: float | None = None  # time; None before the first step and after a validation
        self._waited = self._worked = 0.0
        self._step_started, self._num_batches = 0.0, 0

    @property
    def share(self) -> float | None:
        """The share of this epoch so far; None before its second step."""
        return self._waited / max(self._waited + self._worked, 1e-9) if self._num_batches else None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step_ended, self._waited, self._worked, self._num_batches = None, 0.0, 0.0, 0

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self._step_started = time.perf_counter()
        if self._step_ended is not None:
            self._waited += self._step_started - self._step_ended
            self._num_batches += 1

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        now = time.perf_counter()
        if self._step_ended is not None:
            self._worked += now - self._step_started
        self._step_ended = now

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step_ended = None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        share = self.share
        if share is None:
            return
        pl_module.log("train/data_wait", share, sync_dist=True)
        if share > WARN_ABOVE and self._num_batches >= MIN_BATCHES and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"{share:.0%} of the training time is spent waiting for data; raise data.num_workers if there are idle CPU "
                f"cores, or {self.advice}"
            )
