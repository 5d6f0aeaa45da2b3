"""When SaveOnSignal stops a run, and which checkpoint it names. Signals to whole runs are in tests/test_resume.py."""

import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel

from detector.callbacks.save_on_signal import SaveOnSignal, StoppedBySignal, _validation_follows
from tests.detector.training.test_module import trainer


class Validations(L.Callback):
    """Note the steps after which a validation is predicted, and those after which there is one."""

    def __init__(self) -> None:
        self.predicted: list[int] = []
        self.validated: list[int] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if _validation_follows(trainer, index + 1):
            self.predicted.append(trainer.global_step)

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.validated.append(trainer.global_step)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("every", "interval", "after"), [(1, 2, [2, 4, 6, 8]), (2, 2, [6, 8]), (None, 3, [3, 6])])
def test_validations_are_predicted(every: int | None, interval: int, after: list[int], tmp_path: Path) -> None:
    """A signal must not stop a run between a step and its validation. With None, batches count through all epochs."""
    callback = Validations()
    fitted = trainer(
        tmp_path,
        max_epochs=2,
        limit_train_batches=4,
        limit_val_batches=1,
        val_check_interval=interval,
        check_val_every_n_epoch=every,
        callbacks=[callback],
    )
    fitted.fit(BoringModel())
    assert callback.predicted == callback.validated == after


class KillAtStart(L.Callback):
    """Send SIGTERM to this process when the training begins."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_is_stopped_just_after_resuming_resumes_from_the_same_checkpoint(tmp_path: Path) -> None:
    """Its last.ckpt does not exist yet, or is that of another run."""
    first = trainer(tmp_path, limit_train_batches=2, limit_val_batches=0)
    first.fit(BoringModel())
    first.save_checkpoint(start := tmp_path / "start.ckpt")
    (last := tmp_path / "last.ckpt").write_text("of another run")
    again = trainer(tmp_path, max_epochs=2, limit_val_batches=0, callbacks=[SaveOnSignal(last), KillAtStart()])
    with pytest.raises(StoppedBySignal, match=r"resume it from .*start\.ckpt") as stop:
        again.fit(BoringModel(), ckpt_path=start)
    assert stop.value.checkpoint == start
    assert again.global_step == 2
    assert last.read_text() == "of another run"
