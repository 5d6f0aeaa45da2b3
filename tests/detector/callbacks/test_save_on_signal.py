"""When SaveOnSignal stops a run, and which checkpoint it names. Signals to whole runs are in tests/test_resume.py."""

import math
import os
import signal
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning as L
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import Tensor

from detector.callbacks.ema import RampedEMA
from detector.callbacks.save_on_signal import REQUEUE, SaveOnSignal, StoppedBySignal, _validation_follows
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


class KillInStep(L.Callback):
    """Send ``signum`` to this process in the middle of batch ``index`` of the first epoch."""

    def __init__(self, signum: int, index: int) -> None:
        self.signum, self.index = signum, index

    def on_after_backward(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.fit_loop.total_batch_idx == self.index:
            os.kill(os.getpid(), self.signum)


class RawWeights(L.Callback):
    """Keeps the weights after every optimizer step."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step > len(self.values):
            self.values.append(module.layer.weight.detach().clone())


def run_with_average(tmp_path: Path, *callbacks: L.Callback, **kwargs: Any) -> L.Trainer:
    """Train 4 steps of two batches each with averaged weights."""
    torch.manual_seed(0)
    callbacks = [RampedEMA(decay=0.9, tau=2.0), *callbacks]
    settings = {"accumulate_grad_batches": 2, "limit_train_batches": 8, "limit_val_batches": 0, "callbacks": callbacks}
    fitted = trainer(tmp_path, **settings | kwargs)
    fitted.fit(BoringModel())
    return fitted


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("batch", "step"), [(0, 1), (2, 2), (3, 2)])
def test_the_checkpoint_of_a_signal_has_the_average_of_its_step(signum: int, batch: int, step: int, tmp_path: Path) -> None:
    """The signal comes in the first or second batch of a step. Raw and averaged weights are those of a run without it."""
    run_with_average(tmp_path, straight := RawWeights())
    torch.manual_seed(0)
    average = BoringModel().layer.weight.detach()
    for n, raw in enumerate(straight.values[:step], start=1):
        decay = 0.9 * (1 - math.exp(-n / 2))
        average = decay * average + (1 - decay) * raw

    with pytest.raises(StoppedBySignal) as stop:
        run_with_average(tmp_path, SaveOnSignal(tmp_path / "last.ckpt"), KillInStep(signum, batch))
    assert (stop.value.signum, stop.value.checkpoint) == (signum, tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == saved["averaging_state"]["n_averaged"] == step
    assert torch.equal(saved["current_model_state"]["layer.weight"], straight.values[step - 1])
    torch.testing.assert_close(saved["state_dict"]["layer.weight"], average)


def test_the_average_must_be_updated_before_it_is_saved(tmp_path: Path) -> None:
    callbacks = [SaveOnSignal(tmp_path / "last.ckpt"), RampedEMA()]
    with pytest.raises(ValueError, match="SaveOnSignal comes before RampedEMA"):
        run_with_average(tmp_path, callbacks=callbacks)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("batch", "validation", "steps"), [(3, None, 4), (1, 2, 3)])
def test_nothing_is_saved_before_the_end_of_an_epoch_or_a_validation(
    batch: int, validation: int | None, steps: int, tmp_path: Path
) -> None:
    """After the last of four steps of an epoch, the run stops with the epoch; after the second, with the third step."""
    settings = {"accumulate_grad_batches": 1, "limit_train_batches": 4, "max_epochs": 2}
    settings |= {"limit_val_batches": 1, "val_check_interval": validation} if validation else {}
    callbacks = [RawWeights(), SaveOnSignal(tmp_path / "last.ckpt"), KillInStep(signal.SIGTERM, batch)]
    with pytest.raises(StoppedBySignal):
        run_with_average(tmp_path, callbacks=callbacks, **settings)
    assert len(callbacks[0].values) == steps
    assert (tmp_path / "last.ckpt").is_file() == bool(validation)  # of an epoch, ModelCheckpoint writes it


@pytest.mark.filterwarnings("ignore")
def test_a_second_interrupt_stops_at_once_and_a_later_run_is_not_stopped(tmp_path: Path) -> None:
    class KillTwice(KillInStep):
        def on_after_backward(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            if trainer.fit_loop.total_batch_idx == self.index:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)

    callback = SaveOnSignal(tmp_path / "last.ckpt")
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        run_with_average(tmp_path, callback, KillTwice(signal.SIGINT, 0))
    assert not callback.path.exists()
    run_with_average(tmp_path, callback)
    assert not callback.path.exists()


@pytest.mark.parametrize(
    ("here", "elsewhere", "expected"),
    [
        (0, [False, False], 0),
        (0, [True, False], signal.SIGTERM),
        (0, [True, True], REQUEUE),
        (signal.SIGINT, [True, False], signal.SIGINT),
        (signal.SIGTERM, [True, True], REQUEUE),
    ],
)
def test_a_signal_to_any_process_counts(here: int, elsewhere: list[bool], expected: int) -> None:
    """``elsewhere``: another process has a signal, and has the one that continues the job."""
    callback, trainer, answers = SaveOnSignal(None), Mock(world_size=2), iter(elsewhere)
    trainer.strategy.reduce_boolean_decision = lambda decision, all: decision and next(answers) if all else next(answers)
    callback._received = here
    assert callback._signal_of_any_process(trainer) == expected


def test_handlers_count_from_the_sanity_check_on_and_not_in_other_processes() -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)]
    callback = SaveOnSignal(None)
    try:
        callback.on_sanity_check_start(Mock(), Mock())
        assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)] == [callback._set_flag] * 2
        callback._process += 1  # as in a process that has inherited the handlers
        signal.raise_signal(signal.SIGTERM)
        assert callback._received == 0
        callback._process -= 1
        signal.raise_signal(signal.SIGTERM)
        assert callback._received == signal.SIGTERM
    finally:
        for signum, handler in zip((signal.SIGTERM, signal.SIGINT), before):
            signal.signal(signum, handler)


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
