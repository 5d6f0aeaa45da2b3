"""The progress bar of a training: epoch, AP or top-1, time left and data wait first, then the loss."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar

from detector.callbacks.data_wait import DataWait
from detector.callbacks.epoch_log import SCORES, EpochLog, epoch_text
from detector.callbacks.of_trainer import callbacks_of


class RunProgressBar(TQDMProgressBar):
    """A progress bar in the order of the lines of ``EpochLog``.

    Lightning puts the bar, its speed and the time left in the epoch between the number of the epoch and the values.
    """

    def on_train_epoch_start(self, trainer: L.Trainer, *args: Any) -> None:
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description(f"epoch {epoch_text(trainer)}")

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Return the values that follow the bar, in their order."""
        metrics = trainer.callback_metrics
        values = {name: f"{float(metrics[metric]):.3f}" for name, metric in SCORES.items() if metric in metrics}
        callbacks: dict[type, Any] = {type(callback): callback for callback in callbacks_of(trainer)}
        if EpochLog in callbacks:
            values["left"] = callbacks[EpochLog].time_left(trainer)
        if DataWait in callbacks and (share := callbacks[DataWait].share) is not None:
            values["wait"] = f"{share:.0%}"
        others = super().get_metrics(trainer, pl_module)
        shown = ("v_num", *SCORES.values())  # v_num: runs are known by their folders
        return values | {name: value for name, value in others.items() if name not in shown}
