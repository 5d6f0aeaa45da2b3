"""Say soon how long a training will take."""

import math
import time
from typing import Any, cast

import lightning as L
from lightning.pytorch.utilities import rank_zero_info

from detector.batch import Batch, ClassBatch, num_images
from detector.text import plural, short_duration

MEASURED_BATCHES = 10  # after the first one, which is slower than the others
LONG_ON_CPU = 2 * 3600.0  # seconds: a longer training on a CPU gets the advice of smaller images


class TimeEstimate(L.Callback):
    """Log, after the first batches of a start, how long the rest will take; for hours on a CPU, with smaller images, too.

    There is no estimate for a training without a known end, or limited by ``max_steps``, or with fewer batches in an epoch.
    """

    def __init__(self) -> None:
        self._is_due = True
        self._num_batches, self._first_ended = 0, 0.0  # of this start and epoch

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._is_due, self._num_batches = True, 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch | ClassBatch, batch_idx: int
    ) -> None:
        """Log the estimate once, after the measured batches, which are all of one epoch."""
        if batch_idx == 0 or self._num_batches == 0:
            self._num_batches, self._first_ended = 0, time.perf_counter()
        self._num_batches += 1
        per_epoch, max_epochs = cast(int, trainer.num_training_batches), trainer.max_epochs or -1
        endless = max_epochs < 0 or trainer.max_steps > 0 or not per_epoch < math.inf
        if not self._is_due or self._num_batches <= MEASURED_BATCHES or endless:
            return
        self._is_due = False
        left = (max_epochs - trainer.current_epoch) * per_epoch - batch_idx - 1
        seconds = (time.perf_counter() - self._first_ended) / MEASURED_BATCHES * left
        images = batch["images"]
        for text in estimate_texts(seconds, left, num_images(batch), images.shape[-1], images.device.type):
            rank_zero_info(text)


def estimate_texts(seconds: float, batches: int, images: int, side: int, device: str) -> list[str]:
    """Return the time of ``batches`` batches of ``images`` images and, if it is long on a CPU, that of half the side."""
    what = f"{plural(batches, 'batch', 'batches')} of {plural(images, 'image')} at {side} px"
    texts = [f"estimate by the first batches: {short_duration(seconds)} for {what}, without validations"]
    smaller = max(round(side / 2 / 64) * 64, 64)
    if device == "cpu" and seconds > LONG_ON_CPU and smaller < side:
        less = short_duration(seconds * (smaller / side) ** 2)
        texts.append(f"on a CPU, smaller images save most of the time: about {less} with --data.image_size {smaller}")
    return texts
