"""How long training waits for data."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn

WARN_ABOVE = 0.2
MIN_BATCHES = 10  # an epoch with fewer says little


class DataWait(L.Callback):
    """Logs ``train/data_wait``, the share (0..1) of an epoch's training time that steps waited for their batch.

    Counted is the time between the end of a step and the start of the next, validation left out; the first batch of an
    epoch is not, since workers start then. Above a fifth a warning tells what to do, once in a run.
    """

    def __init__(self) -> None:
        self._warned = False
        self._ended: float | None = None  # when the last step did
        self._waited = self._worked = 0.0
        self._started, self._num_batches = 0.0, 0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._ended, self._waited, self._worked, self._num_batches = None, 0.0, 0.0, 0

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        self._started = time.perf_counter()
        if self._ended is not None:
            self._waited += self._started - self._ended
            self._num_batches += 1

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if self._ended is not None:
            self._worked += now - self._started
        self._ended = now

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._ended = None  # the wait after a validation in the middle of an epoch is not counted either

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._num_batches:
            return
        share = self._waited / max(self._waited + self._worked, 1e-9)
        pl_module.log("train/data_wait", share, sync_dist=True)
        if share > WARN_ABOVE and self._num_batches >= MIN_BATCHES and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"{share:.0%} of the training time is spent waiting for data; raise data.num_workers if there are idle CPU "
                "cores, or set data.cache to ram (python -m benchmarks.data shows what a core can do)"
            )
