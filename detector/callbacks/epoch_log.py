"""Write one line per epoch to train.log."""

import math
import sys
import time
from pathlib import Path
from typing import Any, cast

import lightning as L

from detector.batch import Batch, ClassBatch, num_images
from detector.callbacks.of_trainer import callbacks_of, epochs_left
from detector.runs.folder import TRAIN_LOG
from detector.text import plural, short_duration, short_number

PROGRESS_SECONDS = 5.0, 60.0  # between progress lines, without a progress bar: at the start of a training, after an hour
MAX_WIDTH = 120  # characters of a line
MIN_WIDTHS = {"left": 4, "wait": 4, "lr": 7}  # of columns; others have 5
# The values of a validation, by column. An evaluation says in ``epoch_columns`` which of them it has.
SCORES = {"AP": "val/AP", "AP50": "val/AP50", "AP_nms": "val/one2many/AP", "top1": "val/top1", "top5": "val/top5"}
VALIDATION_LOSSES = ("val/total", "val/loss")  # of a detector, of a classifier
ALWAYS = ("epoch", *SCORES, "val_loss", "left", "wait", "lr", "img/s", "train_s", "val_s")  # columns that are never left out


class EpochLog(L.Callback):
    """Append one line per epoch to ``<trainer.default_root_dir>/train.log``, and print it if there is no terminal.

    A line has at most ``MAX_WIDTH`` characters. Its columns are:

    - ``epoch``: "3/100" is the third of 100. (In metrics.csv epochs count from 0.)
    - ``AP``, ``AP50``: of the validation; "-" without a validation, "none" without objects. ``AP_nms``: AP of the branch
      with NMS (one2many), if both branches are evaluated.
    - ``top1``, ``top5``, of a classifier: the share of the validation images whose class has the highest score, or one of
      the five highest.
    - ``left``: time until the last epoch ends, from the mean of the epochs of this start; "-" if training may be endless.
    - ``wait``: share of the training time that steps waited for data.
    - ``loss``, ``val_loss``: totals of training and validation.
    - ``box``, ``cls``, ``l1``: training losses of the branch one2one; ``box_nms``, ...: of one2many. Means over the epoch.
    - ``lr``: learning rate of the first parameter group at the end of the epoch.
    - ``img/s``: training images per second of all processes. ``train_s``, ``val_s``: seconds of training and validation.

    If that is too wide, ``loss`` is left out, then the last of the other losses: metrics.csv has all of them. A header line
    comes first, and again when a run is resumed. Without a progress bar, long epochs and validations
    print progress lines: every 5 seconds in the first 5 minutes, when a user waits to see that it works, then more rarely,
    and every minute after an hour.
    """

    def __init__(self, file_name: str = TRAIN_LOG) -> None:
        self.file_name = file_name
        self._widths: dict[str, int] = {}  # of the columns
        self._started = self._epoch_started = self._validation_started = 0.0
        self._validation_seconds = self._progress_printed = 0.0
        self._seconds = self._epochs = 0.0  # of this start; an epoch that was resumed in its middle counts in part
        self._num_images = self._num_batches = 0
        self._validated = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._widths, self._seconds, self._epochs, self._started = {}, 0.0, 0.0, time.perf_counter()
        self.on_train_epoch_start(trainer, pl_module)  # Lightning does not call it if a run is resumed within an epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epoch_started, self._validation_seconds = time.perf_counter(), 0.0
        self._num_images, self._num_batches, self._validated = 0, 0, False
        self._progress_printed = self._epoch_started

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch | ClassBatch, batch_idx: int
    ) -> None:
        """Count the batch and, without a progress bar, print a progress line if one is due."""
        self._num_images += num_images(batch)
        self._num_batches += 1
        if self._progress_due(trainer):
            batches, speed = cast(int, trainer.num_training_batches), self.images_per_second(trainer)
            progress = f"{batch_idx + 1} of {plural(batches, 'batch', 'batches')}, {speed:.1f} images/s"
            print(f"epoch {epoch_text(trainer)}: {progress}, {self.time_left(trainer)} left in all", flush=True)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation_started = time.perf_counter()

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """In a training without a progress bar, print a progress line of the validation if one is due."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and self._progress_due(trainer):
            batches = plural(cast(int, trainer.num_val_batches[dataloader_idx]), "batch", "batches")
            print(f"epoch {epoch_text(trainer)}: validation, {batch_idx + 1} of {batches}", flush=True)

    def _progress_due(self, trainer: L.Trainer) -> bool:
        """Return True, and note the time, if this process shall print a progress line now."""
        now = time.perf_counter()
        shortest, longest = PROGRESS_SECONDS
        due = now - self._progress_printed > min(max((now - self._started) / 60, shortest), longest)
        if not due or trainer.progress_bar_callback is not None or not trainer.is_global_zero:
            return False
        self._progress_printed = now
        return True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._validation_seconds += time.perf_counter() - self._validation_started
            self._validated = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        values = self._values(trainer)  # on every rank: reading a metric may average it over the processes
        if not trainer.is_global_zero:
            return
        if not self._widths:  # the first epoch has logged all values
            self._widths = column_widths(values, trainer.max_epochs)
            self._write(trainer, {name: name for name in self._widths})
        self._write(trainer, values)

    def _values(self, trainer: L.Trainer) -> dict[str, str]:
        """Return the texts of all columns in their order, and count this epoch for ``time_left``."""
        seconds, left = time.perf_counter() - self._epoch_started, self.time_left(trainer)
        self._seconds, self._epochs = self._seconds + seconds, self._epochs + self._epoch_share(trainer)
        metrics = trainer.callback_metrics
        losses = {name: short_number(value, 5) for name, value in _losses(metrics).items()}
        values: dict[str, str | None] = {
            "epoch": epoch_text(trainer),
            **{name: self._validation_text(trainer, name) for name in SCORES},
            "left": left,
            "wait": f"{float(metrics['train/data_wait']):.0%}" if "train/data_wait" in metrics else None,
            "loss": losses.pop("loss", None),
            "val_loss": self._validation_text(trainer, "val_loss"),
            **losses,
            "lr": short_number(trainer.optimizers[0].param_groups[0]["lr"], 7) if trainer.optimizers else "-",
            "img/s": short_number(self.images_per_second(trainer), 5),
            "train_s": short_number(seconds - self._validation_seconds, 5),
            "val_s": short_number(self._validation_seconds, 5) if trainer.enable_validation else None,
        }
        return {name: text for name, text in values.items() if text is not None}

    def _validation_text(self, trainer: L.Trainer, name: str) -> str | None:
        """Return a value of the validation as text, or None if the run has no such value."""
        metrics = trainer.callback_metrics
        names = VALIDATION_LOSSES if name == "val_loss" else (SCORES[name],)
        metric = next((metric for metric in names if metric in metrics), None)
        if self._validated and metric is not None:
            value = float(metrics[metric])
            return short_number(value, 5) if name == "val_loss" else "none" if value == -1 else f"{value:.3f}"
        expected = {"val_loss"}.union(*(getattr(callback, "epoch_columns", ()) for callback in callbacks_of(trainer)))
        return "-" if trainer.enable_validation and (name in expected or metric is not None) else None

    def images_per_second(self, trainer: L.Trainer) -> float:
        """Return the training speed of all processes in this epoch so far, without its validations."""
        seconds = time.perf_counter() - self._epoch_started - self._validation_seconds
        return self._num_images * trainer.world_size / max(seconds, 1e-9)

    def time_left(self, trainer: L.Trainer) -> str:
        """Return the time until the end of training, by the epochs of this start so far; "-" if it may be endless."""
        epochs, left = self._epochs + self._epoch_share(trainer), epochs_left(trainer)
        if left is None or not epochs:
            return "-"
        seconds = self._seconds + time.perf_counter() - self._epoch_started
        return short_duration(seconds / epochs * left)

    def _epoch_share(self, trainer: L.Trainer) -> float:
        """Return the share of the current epoch that this start has trained; 1 if its length is not known."""
        batches = trainer.num_training_batches
        return self._num_batches / batches if 0 < batches < math.inf else 1.0

    def _write(self, trainer: L.Trainer, cells: dict[str, str]) -> None:
        line = " ".join(f"{cells.get(name, '-'):>{width}}" for name, width in self._widths.items())
        path = Path(trainer.default_root_dir) / self.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if not sys.stdout.isatty():  # a terminal has the progress bar
            print(line, flush=True)


def epoch_text(trainer: L.Trainer) -> str:
    """Return the current epoch, counted from 1, and the number of epochs: "3/100"; "3" if there is no limit."""
    number = trainer.current_epoch + 1
    return f"{number}/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else str(number)


def column_widths(values: dict[str, str], max_epochs: int | None) -> dict[str, int]:
    """Return the widths of the columns of ``values``; losses that do not fit into ``MAX_WIDTH`` are left out."""
    widths = {name: max(len(name), MIN_WIDTHS.get(name, 5)) for name in values}
    widths["epoch"] = 2 * len(str(max_epochs)) + 1 if (max_epochs or -1) > 9 else 6
    losses = [name for name in values if name not in ALWAYS]
    removable = sorted(losses, key="loss".__eq__)  # the total last: it is left out first
    while sum(widths.values()) + len(widths) - 1 > MAX_WIDTH and removable:
        del widths[removable.pop()]
    return widths


def _losses(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the training losses of the epoch by column: those of the branch one2one first, of one2many last."""
    # A value logged both by step and by epoch also appears as name_step and name_epoch.
    names = [name for name in metrics if name.startswith("train/") and name not in ("train/lr", "train/data_wait")]
    names = [name for name in names if not any(name in (f"{other}_step", f"{other}_epoch") for other in metrics)]
    names.sort(key=lambda name: ("one2many/" in name, "one2one/" not in name))
    return {_column(name.removeprefix("train/")): float(metrics[name]) for name in names}


def _column(name: str) -> str:
    if name == "total":
        return "loss"
    branch, _, term = name.rpartition("/")
    return {"one2one": term, "one2many": f"{term}_nms"}.get(branch, name)
