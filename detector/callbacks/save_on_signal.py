"""Stopping in good order: a signal writes ``last.ckpt`` at the next optimizer step, and the run can go on from there."""

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments import SLURMEnvironment

from detector.runs.slurm import requeue

STOPPING = (signal.SIGTERM, signal.SIGINT)
REQUEUE = signal.SIGUSR1  # `#SBATCH --signal=USR1@120`: sent two minutes before the time limit


class StoppedBySignal(Exception):
    """Training has stopped because of the signal ``signum``; ``checkpoint`` is where it goes on, or None."""

    def __init__(self, signum: int, checkpoint: Path | None) -> None:
        self.signum, self.checkpoint = signum, checkpoint
        where = "nothing was saved" if checkpoint is None else f"it goes on from {checkpoint}"
        super().__init__(f"training was stopped by {signal.Signals(signum).name}; {where}")


class SaveOnSignal(L.Callback):
    """On SIGTERM or SIGINT saves ``path`` after the next optimizer step and stops the training of all processes.

    A signal to any process does. ``trainer.fit`` then raises :class:`StoppedBySignal`. A run that is resumed from there
    equals one that was never stopped: nothing is saved between a step and the validation that follows it, because resuming
    would leave that validation out. A signal during the last step of an epoch or in a validation therefore acts after it,
    when ``last.ckpt`` of that epoch is written. A second SIGINT (Ctrl-C) stops at once and saves nothing.

    ``path`` is what a ``ModelCheckpoint`` writes at the end of every epoch, ``last.ckpt``; None saves nothing. Give this to
    the Trainer after the callbacks that have a state to save, like ``RampedEMA``.

    In a SLURM job SIGUSR1 does the same and puts the job into the queue again.

    Handlers must only take note: what Lightning's own do, collectives and writing files, can meet any state of the program.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path)
        self._received = 0
        self._steps = 0  # optimizer steps so far, to see that one was made
        self._first_step = 0
        self._saved = False  # whether ``path`` has been written since the training began
        self._process = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._received = 0

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen()
        self._steps = self._first_step = trainer.global_step

    def _listen(self) -> None:
        """Take the place of Lightning's handlers; it gives back those before them when training ends."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._process = os.getpid()
        for signum in (*STOPPING, *([REQUEUE] if SLURMEnvironment.job_id() is not None else [])):
            signal.signal(signum, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker process, forked from this one: for its parent to decide
            return
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if not self._received:
            again = " (Ctrl-C again: at once, without saving)" if signum == signal.SIGINT else ""
            os.write(2, f"\n{signal.Signals(signum).name}: stopping after the next optimizer step{again}\n".encode())
        self._received = signum

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop if a signal has come and this batch ended in an optimizer step."""
        if trainer.global_step == self._steps:  # in the middle of an accumulation
            return
        self._steps = trainer.global_step
        done = batch_idx + 1
        if done == trainer.num_training_batches or (trainer.enable_validation and _validates_after(trainer, done)):
            return
        if signum := self._agreed(trainer):
            if self.path is not None:
                trainer.save_checkpoint(self.path)
                self._saved = True
            self._stop(trainer, signum)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Act on a signal that came in the last step of the epoch before or later: its checkpoint has been written."""
        self._saved = self.path is not None and trainer.global_step > self._first_step
        if trainer.global_step and (signum := self._agreed(trainer)):
            self._stop(trainer, signum)

    def _agreed(self, trainer: L.Trainer) -> int:
        """Return the signal that any process has received, or 0; a process that has none itself takes it for SIGTERM."""
        if trainer.world_size == 1:
            return self._received
        if not trainer.strategy.reduce_boolean_decision(bool(self._received), all=False):
            return 0
        # Which of them matters: only one says that the job is to go on.
        requeued = trainer.strategy.reduce_boolean_decision(self._received == REQUEUE, all=False)
        return REQUEUE if requeued else self._received or signal.SIGTERM

    def _stop(self, trainer: L.Trainer, signum: int) -> None:
        if signum == REQUEUE:
            requeue()
            trainer.strategy.barrier()  # srun may kill all processes of a job when one of them has ended
        # A signal to a run that has only just been resumed: it goes on from where it would have.
        resumed = Path(trainer.ckpt_path) if trainer.ckpt_path else None
        raise StoppedBySignal(signum, self.path if self._saved else resumed)


def _validates_after(trainer: L.Trainer, done: int) -> bool:
    """Whether a validation follows the ``done``-th batch of the epoch."""
    if trainer.val_check_batch is None:  # by time: a resumed run has it when its own time has come
        return False
    every = trainer.check_val_every_n_epoch
    if every is None:  # batches are counted through all epochs
        done = trainer.fit_loop.total_batch_idx + 1
    elif (trainer.current_epoch + 1) % every:
        return False
    return done % trainer.val_check_batch == 0
