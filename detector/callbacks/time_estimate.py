"""Say soon how long a training will take."""

import math
import time
from typing import Any, cast

import lightning as L
from lightning.pytorch.utilities import rank_zero_info

from detector.batch import Batch, ClassBatch, num_images
from detector.callbacks.of_trainer import epochs_left
from detector.text import plural, short_duration

MEASURED_BATCHES = 10  # after the first one, which is slower than the others
LONG_ON_CPU = 2 * 3600.0  # seconds: a longer training on a CPU gets the advice of smaller images


class TimeEstimate(L.Callback):
    """Log, after the first batches of a start, how long the rest will take; for hours on a CPU, with smaller images, too.

    Epochs with fewer batches are measured up to their end. There is no estimate for a training without a known end, for
    epochs of one batch, and if nothing is left.
    """

    def __init__(self) -> None:
        self._is_due = True
        self._num_batches, self._num_images = 0, 0  # of this start and epoch: batches, and images of the largest one
        self._first_ended = self._validation_started = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._is_due, self._num_batches = True, 0

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation_started = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave out the time of a validation between the batches of an epoch."""
        self._first_ended += time.perf_counter() - self._validation_started

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch | ClassBatch, batch_idx: int
    ) -> None:
        """Log the estimate once, after the measured batches, which are all of one epoch."""
        if batch_idx == 0 or self._num_batches == 0:
            self._num_batches, self._num_images, self._first_ended = 0, 0, time.perf_counter()
        self._num_batches, self._num_images = self._num_batches + 1, max(self._num_images, num_images(batch))
        per_epoch, measured = cast(int, trainer.num_training_batches), self._num_batches - 1
        if not self._is_due or measured < (1 if batch_idx + 1 == per_epoch else MEASURED_BATCHES):
            return
        self._is_due = False
        if not (epochs := epochs_left(trainer)) or not per_epoch < math.inf:
            return
        left = round(epochs * per_epoch)
        seconds = (time.perf_counter() - self._first_ended) / measured * left
        images = batch["images"]
        # The size of a batch varies with data.augment.multi_scale. A module of the user may not know its size.
        height, width = getattr(pl_module.hparams, "image_size", None) or images.shape[-2:]
        stride = getattr(getattr(pl_module, "model", None), "strides", [32])[-1]
        for text in estimate_texts(seconds, left, self._num_images, (height, width), images.device.type, stride):
            rank_zero_info(text)


def estimate_texts(
    seconds: float, batches: int, images: int, size: tuple[int, int], device: str, stride: int = 32
) -> list[str]:
    """Return the time of ``batches`` batches of ``images`` images and, if it is long on a CPU, that of half the side.

    ``size`` is (height, width) of the network input in pixels, and ``stride`` divides the sizes that are proposed.
    """
    height, width = size
    shape = f"{width} px" if height == width else f"{height} x {width} px"
    what = f"{plural(batches, 'batch', 'batches')} of {plural(images, 'image')} at {shape}"
    texts = [f"estimate by the first batches: {short_duration(seconds)} for {what}, without validations"]
    smaller = [max(round(side / 2 / stride), 1) * stride for side in size]
    share = math.prod(smaller) / math.prod(size)
    if device == "cpu" and seconds > LONG_ON_CPU and max(smaller) >= 64 and share < 1:
        value = f"{smaller[1]}" if height == width else f"'[{smaller[0]}, {smaller[1]}]'"
        less = short_duration(seconds * share)
        texts.append(f"on a CPU, smaller images save most of the time: about {less} with --data.image_size {value}")
    return texts
