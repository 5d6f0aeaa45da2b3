"""End a training early when its validation gets no better: first the mosaic, then the training."""

import json
import math
from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from detector.arguments import as_whole_number
from detector.callbacks.of_trainer import data_module_of
from detector.files import atomic_write
from detector.runs.folder import RECORD, numbered_files
from detector.text import plural


def earliest_end(patience: int, every: int, closing: int) -> int:
    """Return after how many epochs ``patience`` can end a training: the first value is the best, the later ones are worse.

    A validation comes after ``every`` epochs, and ``closing`` epochs without mosaic follow the decision.
    """
    return every + math.ceil(patience / every) * every + closing


class Patience(L.Callback):
    """End the mosaic phase, and then the training, after ``patience`` epochs in which ``monitor`` was no better than before.

    The closing phase that follows has as many epochs as the data module closes mosaic for; without one, training ends at
    once. Within it, the learning rate and the weights of the branches run through the rest of their schedules, so a run that
    ends early ends like a complete one. Nothing changes if the closing phase has begun already, or would not end earlier.

    The log says when and why, and so does ``patience`` in the run's ``run.json``. The state is saved in checkpoints: a
    resumed run decides the same. ``mode`` is "max" or "min"; anything else is a ValueError.
    """

    def __init__(self, patience: int, monitor: str = "val/AP", mode: str = "max") -> None:
        self.patience = as_whole_number(patience, "patience")
        if mode not in ("max", "min"):
            raise ValueError(f"mode is {mode!r}; expected 'max' or 'min'")
        self.monitor, self.sign = monitor, 1 if mode == "max" else -1
        self.best: float | None = None
        self.best_epoch = 0
        self.first_epoch: int | None = None  # of the closing phase; None before the decision
        self.end_epoch: int | None = None  # the first epoch after the training
        self.planned_epochs: int | None = None  # before the decision

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember a better value, or decide to end the training."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self.monitor not in trainer.callback_metrics:
            raise ValueError(f"the validation has not logged {self.monitor}; set monitor to one of its numbers")
        value = float(trainer.callback_metrics[self.monitor])
        if value == value and (self.best is None or self.sign * value > self.sign * self.best):  # not for NaN
            self.best, self.best_epoch = value, trainer.current_epoch
        elif self.end_epoch is None and trainer.current_epoch - self.best_epoch >= self.patience:
            self._decide(trainer, pl_module)

    def _decide(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        first, planned = trainer.current_epoch + 1, trainer.max_epochs
        closing = getattr(data_module_of(trainer), "num_closing_epochs", 0)
        if planned is not None and planned != -1 and first + closing >= planned:
            return
        self.first_epoch, self.end_epoch, self.planned_epochs = first, first + closing, planned
        self._apply(trainer, pl_module)
        best = "no value yet" if self.best is None else f"the best is {self.best:.4g} of epoch {self.best_epoch + 1}"
        what = f"mosaic ends now, and training after {plural(closing, 'epoch')}" if closing else "training ends now"
        reason = f"patience: {self.monitor} was no better for {plural(first - 1 - self.best_epoch, 'epoch')} ({best})"
        rank_zero_info(f"{reason}: {what}, with epoch {self.end_epoch}")
        self._record(Path(trainer.default_root_dir), f"{reason}: {what}")

    def _apply(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Shorten the training, close mosaic, and tell the module how its schedules go on."""
        planned, end = trainer.max_epochs, cast(int, self.end_epoch)
        if planned is None or planned == -1 or planned > end:
            trainer.fit_loop.max_epochs = end
        data, module = data_module_of(trainer), cast(Any, pl_module)
        if hasattr(data, "close_mosaic_from"):
            data.close_mosaic_from(self.first_epoch)
        if hasattr(module, "end_early"):
            module.end_early(self.first_epoch, self.end_epoch, self.planned_epochs)

    @rank_zero_only
    def _record(self, folder: Path, text: str) -> None:
        for path in numbered_files(folder, RECORD)[-1:]:
            decision = {"decided_after_epoch": self.first_epoch, "last_epoch": self.end_epoch, "reason": text}
            content = json.loads(path.read_text()) | {"patience": decision}  # epochs counted from 1
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps(content, indent=1) + "\n")

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the decision of the run that is resumed: now, before optimizer and dataloader are built."""
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        if trainer.state.fn == "fit" and state is not None:
            self.load_state_dict(state)
            if self.end_epoch is not None:
                rank_zero_info(
                    f"patience has decided after epoch {self.first_epoch} that this run ends with epoch {self.end_epoch}; "
                    "it goes on as planned with --patience null"
                )
                self._apply(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        names = ("monitor", "best", "best_epoch", "first_epoch", "end_epoch", "planned_epochs")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value and the decision; not if another number is monitored now."""
        if state_dict["monitor"] == self.monitor:
            for name, value in state_dict.items():
                setattr(self, name, value)
