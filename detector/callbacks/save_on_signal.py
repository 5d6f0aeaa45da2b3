"""Stop a training on a signal: save ``last.ckpt`` after the next optimizer step, from which the run can be resumed."""

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.callbacks import WeightAveraging

from detector.callbacks.of_trainer import callbacks_of
from detector.runs.slurm import requeue

REQUEUE = signal.SIGUSR1  # `#SBATCH --signal=USR1@120`: sent two minutes before the time limit


class StoppedBySignal(Exception):
    """The signal ``signum`` has stopped the training; ``checkpoint`` is the one to resume from, or None."""

    def __init__(self, signum: int, checkpoint: Path | None) -> None:
        self.signum, self.checkpoint = signum, checkpoint
        remedy = "nothing was saved" if checkpoint is None else f"resume it from {checkpoint}"
        super().__init__(f"training was stopped by {signal.Signals(signum).name}; {remedy}")


class SaveOnSignal(L.Callback):
    """Save ``path`` after the next optimizer step and stop all processes when SIGTERM or SIGINT comes.

    A signal to one process is enough. ``trainer.fit`` then raises :class:`StoppedBySignal`. A run that is resumed from
    ``path`` equals a run that was never stopped. Therefore nothing is saved between a step and the validation that follows
    it: resuming would skip that validation. A signal during the last step of an epoch or in a validation stops the run after
    the epoch, whose checkpoint is then written. A second SIGINT (Ctrl-C) stops at once and saves nothing.

    ``path`` is the file that a ``ModelCheckpoint`` writes after every epoch, ``last.ckpt``; None saves nothing. Give this
    callback to the Trainer after the callbacks that have a state to save; ``trainer.fit`` raises ValueError if a
    ``WeightAveraging``, like ``RampedEMA``, comes later.

    In a SLURM job SIGUSR1 does the same and puts the job into the queue again.

    Signal handlers only set a flag: Lightning's own run collectives and write files, which is unsafe inside a handler.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path)
        self._received = 0  # the signal
        self._steps = self._first_step = 0  # optimizer steps so far, and when this training started
        self._saved = False  # True once ``path`` has been written in this training
        self._process = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        later = callbacks_of(trainer)[callbacks_of(trainer).index(self) :]
        if wrong := [type(callback).__name__ for callback in later if isinstance(callback, WeightAveraging)]:
            raise ValueError(
                f"the callback SaveOnSignal comes before {wrong[0]}, so it would save the average of the step before: give "
                f"{wrong[0]} to the Trainer first"
            )
        self._received = 0

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._set_handlers()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._set_handlers()
        self._steps = self._first_step = trainer.global_step

    def _set_handlers(self) -> None:
        """Replace Lightning's handlers. When training ends, Lightning restores the handlers from before the training."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._process = os.getpid()
        for signum in (signal.SIGTERM, signal.SIGINT, *([REQUEUE] if SLURMEnvironment.job_id() is not None else [])):
            signal.signal(signum, self._set_flag)

    def _set_flag(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a dataloader's worker process, which has inherited the handler
            return
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if not self._received:
            hint = " (Ctrl-C again: at once, without saving)" if signum == signal.SIGINT else ""
            os.write(2, f"\n{signal.Signals(signum).name}: stopping after the next optimizer step{hint}\n".encode())
        self._received = signum

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop if a signal has come and this batch ended in an optimizer step."""
        if trainer.global_step == self._steps:  # gradients are still accumulated
            return
        self._steps = trainer.global_step
        batches = batch_idx + 1
        is_last = batches == trainer.num_training_batches
        if is_last or (trainer.enable_validation and _validation_follows(trainer, batches)):
            return
        if signum := self._signal_of_any_process(trainer):
            if self.path is not None:
                trainer.save_checkpoint(self.path, weights_only=False)  # with all states; unset, Lightning logs a hint
                self._saved = True
            self._stop(trainer, signum)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop if a signal has come since the last step of the epoch before, whose checkpoint has been written."""
        self._saved = self.path is not None and trainer.global_step > self._first_step
        if trainer.global_step and (signum := self._signal_of_any_process(trainer)):
            self._stop(trainer, signum)

    def _signal_of_any_process(self, trainer: L.Trainer) -> int:
        """Return the signal that any process has received, or 0; SIGTERM stands for a signal to another process."""
        if trainer.world_size == 1:
            return self._received
        if not trainer.strategy.reduce_boolean_decision(bool(self._received), all=False):
            return 0
        # All processes must know of REQUEUE, which alone continues the job.
        is_requeue = trainer.strategy.reduce_boolean_decision(self._received == REQUEUE, all=False)
        return REQUEUE if is_requeue else self._received or signal.SIGTERM

    def _stop(self, trainer: L.Trainer, signum: int) -> None:
        if signum == REQUEUE:
            requeue()
            trainer.strategy.barrier()  # srun may kill all processes of a job when one of them has ended
        # A run that was stopped just after it was resumed is resumed from the same checkpoint again.
        resumed_from = Path(trainer.ckpt_path) if trainer.ckpt_path else None
        raise StoppedBySignal(signum, self.path if self._saved else resumed_from)


def _validation_follows(trainer: L.Trainer, batches: int) -> bool:
    """Return True if a validation follows after ``batches`` batches of the epoch."""
    if trainer.val_check_batch is None:  # validation by time: a resumed run validates at its own times
        return False
    every_n_epochs = trainer.check_val_every_n_epoch
    if every_n_epochs is None:  # batches count through all epochs
        batches = trainer.fit_loop.total_batch_idx + 1
    elif (trainer.current_epoch + 1) % every_n_epochs:
        return False
    return batches % trainer.val_check_batch == 0
