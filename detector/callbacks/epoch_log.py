"""Write one line per epoch to train.log."""

import sys
import time
from pathlib import Path
from typing import Any

import lightning as L

from detector.batch import Batch
from detector.runs.folder import TRAIN_LOG
from detector.text import plural

PROGRESS_LINE_SECONDS = 60.0  # between progress lines, without a progress bar


class EpochLog(L.Callback):
    """Append one line per epoch to ``<trainer.default_root_dir>/train.log``, and print it if there is no terminal.

    A line has the epoch, every logged ``train/...`` value (losses of both branches; the mean over the epoch if it was
    logged by epoch), the learning rate of the first parameter group at the end of the epoch, loss, AP and AP50 of the
    epoch's validation ("-" without a validation), the seconds of training and of validation, and the training images per
    second of all processes. A header line comes first, and again when a run is resumed. Without a progress bar, long
    epochs print a progress line every minute.
    """

    def __init__(self, file_name: str = TRAIN_LOG) -> None:
        self.file_name = file_name
        self._columns: list[str] = []
        self._epoch_started = self._validation_started = self._validation_seconds = self._progress_printed = 0.0
        self._num_images = 0
        self._validated = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._columns = []
        self.on_train_epoch_start(trainer, pl_module)  # Lightning does not call it if a run is resumed within an epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epoch_started, self._validation_seconds = time.perf_counter(), 0.0
        self._num_images, self._validated, self._progress_printed = 0, False, self._epoch_started

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._num_images += len(batch["targets"])
        now = time.perf_counter()
        due = now - self._progress_printed > PROGRESS_LINE_SECONDS
        if due and trainer.progress_bar_callback is None and trainer.is_global_zero:
            self._progress_printed = now
            speed = self._num_images * trainer.world_size / (now - self._epoch_started)
            progress = f"{batch_idx + 1} of {plural(trainer.num_training_batches, 'batch', 'batches')}"
            print(f"epoch {trainer.current_epoch}: {progress}, {speed:.1f} images/s", flush=True)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation_started = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._validation_seconds += time.perf_counter() - self._validation_started
            self._validated = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        values = self._values(trainer)  # on every rank: reading a metric may average it over the processes
        if not trainer.is_global_zero:
            return
        if not self._columns:  # the first epoch has logged all values
            self._columns = list(values)
            self._write(trainer, {name: name for name in self._columns})
        self._write(trainer, values)

    def _values(self, trainer: L.Trainer) -> dict[str, str]:
        train_seconds = time.perf_counter() - self._epoch_started - self._validation_seconds
        metrics = trainer.callback_metrics
        # A value logged both by step and by epoch also appears as name_step and name_epoch.
        duplicates = {f"{name}_{end}" for name in metrics for end in ("step", "epoch")}
        values = {"epoch": f"{trainer.current_epoch}"}
        for name, value in metrics.items():
            if name.startswith("train/") and name not in duplicates:
                values[name.removeprefix("train/")] = f"{float(value):.4g}"
        values.pop("lr", None)  # still that of the epoch before: the hook of the module runs after this one
        values["lr"] = f"{trainer.optimizers[0].param_groups[0]['lr']:.3g}" if trainer.optimizers else "-"
        for name in ("val/total", "val/AP", "val/AP50"):
            values[name] = f"{float(metrics[name]):.4f}" if self._validated and name in metrics else "-"
        values["train_s"], values["val_s"] = f"{train_seconds:.1f}", f"{self._validation_seconds:.1f}"
        values["images/s"] = f"{self._num_images * trainer.world_size / max(train_seconds, 1e-9):.1f}"
        return values

    def _write(self, trainer: L.Trainer, cells: dict[str, str]) -> None:
        line = "  ".join(f"{cells.get(name, '-'):>{max(len(name), 8)}}" for name in self._columns)
        path = Path(trainer.default_root_dir) / self.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if not sys.stdout.isatty():  # a terminal has the progress bar
            print(line, flush=True)
