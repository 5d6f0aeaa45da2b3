"""Processes that end with others. Signals to whole runs are in tests/test_resume.py and tests/test_train.py."""

import os
import select
import signal
import time
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel

from detector.callbacks.save_on_signal import SaveOnSignal, StoppedBySignal, _validates_after
from detector.runs.launch import end_with_parent
from tests.detector.training.test_module import trainer


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_process_whose_parent_was_killed_ends() -> None:
    """The grandchild holds the end of a pipe that closes when it is gone."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        parent = os.getpid()
        if os.fork() == 0:
            end_with_parent(parent, seconds=0.05)
            os.write(writing, b"here")
            time.sleep(60)
            os._exit(0)
        time.sleep(1)
        os._exit(0)  # without a word to its child
    os.close(writing)
    assert os.read(reading, 4) == b"here"
    os.waitpid(child, 0)
    ready, _, _ = select.select([reading], [], [], 30)
    assert ready
    assert os.read(reading, 1) == b""
    os.close(reading)


class Validations(L.Callback):
    """Notes after which steps a validation is foretold, and after which there is one."""

    def __init__(self) -> None:
        self.foretold: list[int] = []
        self.seen: list[int] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if _validates_after(trainer, index + 1):
            self.foretold.append(trainer.global_step)

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.seen.append(trainer.global_step)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("every", "interval", "after"), [(1, 2, [2, 4, 6, 8]), (2, 2, [6, 8]), (None, 3, [3, 6])])
def test_validations_are_foretold(every: int | None, interval: int, after: list[int], tmp_path: Path) -> None:
    """A signal must not stop a run between a step and its validation; with None, batches count through all epochs."""
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
    assert callback.foretold == callback.seen == after


class KillAtStart(L.Callback):
    """Sends SIGTERM to this process when the training begins."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_is_stopped_just_after_resuming_goes_on_from_where_it_would_have(tmp_path: Path) -> None:
    """Its own last.ckpt is not there yet, or is that of another run."""
    first = trainer(tmp_path, limit_train_batches=2, limit_val_batches=0)
    first.fit(BoringModel())
    first.save_checkpoint(start := tmp_path / "start.ckpt")
    (last := tmp_path / "last.ckpt").write_text("of another run")
    again = trainer(tmp_path, max_epochs=2, limit_val_batches=0, callbacks=[SaveOnSignal(last), KillAtStart()])
    with pytest.raises(StoppedBySignal, match=r"it goes on from .*start\.ckpt") as stop:
        again.fit(BoringModel(), ckpt_path=start)
    assert stop.value.checkpoint == start
    assert again.global_step == 2
    assert last.read_text() == "of another run"
