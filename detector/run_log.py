"""What a run leaves behind for people to look at: a line for each epoch, and a sheet of validation pictures."""

import sys
import time
from pathlib import Path
from typing import Any, Literal

import cv2
import lightning as L
import numpy as np
from torch import Tensor

from detector.batch import Batch, Target
from detector.drawing import draw_boxes, fit_longer_side, sheet
from detector.head import RawOutput
from detector.postprocess import Detection, decode
from detector.wording import counted

VALIDATION_COLUMNS = ("val/total", "val/AP", "val/AP50")
SIGN_OF_LIFE_SECONDS = 60.0  # in a long epoch that no progress bar shows


class EpochLog(L.Callback):
    """Appends one line an epoch to ``<trainer.default_root_dir>/train.log``, and prints it where there is no terminal.

    A line has the epoch, every ``train/...`` value that was logged (losses of both branches; the mean over the epoch if
    it was logged so), the learning rate of the first parameter group at the end of the epoch, loss, AP and AP50 of the
    epoch's validation ("-" if there was none), the seconds of training and of validation, and the images trained on per
    second, all processes together. A header line comes first, and again after a resume. In long epochs without a
    progress bar, a line a minute says how far training is.
    """

    def __init__(self, file_name: str = "train.log") -> None:
        self.file_name = file_name
        self._columns: list[str] = []
        self._epoch_started = self._validation_started = self._validation_seconds = self._spoke = 0.0
        self._num_images = 0
        self._validated = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._columns = []
        self.on_train_epoch_start(trainer, pl_module)  # Lightning leaves it out when a run goes on in the middle of an epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epoch_started, self._validation_seconds = time.perf_counter(), 0.0
        self._num_images, self._validated, self._spoke = 0, False, self._epoch_started

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._num_images += len(batch["targets"])
        now = time.perf_counter()
        if trainer.progress_bar_callback is None and trainer.is_global_zero and now - self._spoke > SIGN_OF_LIFE_SECONDS:
            self._spoke = now
            speed = self._num_images * trainer.world_size / (now - self._epoch_started)
            done = f"{batch_idx + 1} of {counted(trainer.num_training_batches, 'batch', 'batches')}"
            print(f"epoch {trainer.current_epoch}: {done}, {speed:.1f} images/s", flush=True)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation_started = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._validation_seconds += time.perf_counter() - self._validation_started
            self._validated = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        values = self._values(trainer)  # on every rank: reading a metric may average it over the processes
        if not trainer.is_global_zero:
            return
        if not self._columns:  # what is logged is known only now
            self._columns = list(values)
            self._write(trainer, "  ".join(_cell(name, name) for name in self._columns))
        self._write(trainer, "  ".join(_cell(name, values.get(name, "-")) for name in self._columns))

    def _values(self, trainer: L.Trainer) -> dict[str, str]:
        train_seconds = time.perf_counter() - self._epoch_started - self._validation_seconds
        metrics = trainer.callback_metrics
        # A value logged both by step and by epoch also appears as name_step and name_epoch.
        repeats = {f"{name}_{end}" for name in metrics for end in ("step", "epoch")}
        values = {"epoch": f"{trainer.current_epoch}"}
        for name, value in metrics.items():
            if name.startswith("train/") and name not in repeats:
                values[name.removeprefix("train/")] = f"{float(value):.4g}"
        values.pop("lr", None)  # of the epoch before, if the module logs it: its hook comes after this one
        values["lr"] = f"{trainer.optimizers[0].param_groups[0]['lr']:.3g}" if trainer.optimizers else "-"
        for name in VALIDATION_COLUMNS:
            values[name] = f"{float(metrics[name]):.4f}" if self._validated and name in metrics else "-"
        values["train_s"], values["val_s"] = f"{train_seconds:.1f}", f"{self._validation_seconds:.1f}"
        values["images/s"] = f"{self._num_images * trainer.world_size / max(train_seconds, 1e-9):.1f}"
        return values

    def _write(self, trainer: L.Trainer, line: str) -> None:
        path = Path(trainer.default_root_dir) / self.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if not sys.stdout.isatty():  # in a terminal the progress bar says the same
            print(line, flush=True)


class PredictionSheet(L.Callback):
    """Writes the first pictures of the validation or test set, ground truth beside detections, whenever they are run.

    The sheet, ``<trainer.default_root_dir>/val_predictions.jpg`` or ``test_predictions.jpg``, shows the network's input,
    letterboxing included, and the detections of ``branch`` with scores above ``score_threshold``. With several processes
    it has the pictures that rank 0 sees.
    """

    def __init__(
        self,
        num_images: int = 16,
        score_threshold: float = 0.3,
        branch: Literal["one2one", "one2many"] = "one2one",
    ) -> None:
        self.num_images, self.score_threshold = num_images, score_threshold
        self.branch = branch
        self._pairs: list[np.ndarray] = []

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._pairs = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: RawOutput,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the pictures that the sheet will show."""
        missing = self.num_images - len(self._pairs)
        if trainer.sanity_checking or not trainer.is_global_zero or missing <= 0:
            return
        found = decode(outputs, self.branch, score_threshold=self.score_threshold)
        for image, target, detections in list(zip(batch["images"], batch["targets"], found))[:missing]:
            self._pairs.append(compare(image, target, detections, pl_module.class_names))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._pairs:  # the sanity check, or a rank other than 0
            return
        page = sheet([self._pairs[i : i + 2] for i in range(0, len(self._pairs), 2)])
        path = Path(trainer.default_root_dir) / f"{'test' if trainer.testing else 'val'}_predictions.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), page[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        self._pairs = []

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end


def compare(image: Tensor, target: Target, detections: Detection, names: list[str], size: int = 480) -> np.ndarray:
    """Return one RGB picture of ``image`` (3, H, W), uint8 or in 0..1: its objects left, the detections right.

    The longer side of each half is ``size`` pixels, so that labels can be read on small inputs too.
    """
    pixels = image.cpu() if not image.is_floating_point() else image.float().cpu().mul(255).round().clamp(0, 255)
    pixels = np.ascontiguousarray(pixels.byte().permute(1, 2, 0).numpy())
    truth, truth_boxes = fit_longer_side(pixels, target["boxes"].float().cpu().numpy(), size)
    truth = draw_boxes(truth, truth_boxes, target["labels"].cpu().numpy(), names)
    guess, guess_boxes = fit_longer_side(pixels, detections["boxes"].float().cpu().numpy(), size)
    scores = detections["scores"].float().cpu().numpy()
    guess = draw_boxes(guess, guess_boxes, detections["labels"].cpu().numpy(), names, scores)
    which = f"image {target['image_id']}: " if "image_id" in target else ""
    captions = [which + counted(len(truth_boxes), "object"), counted(len(guess_boxes), "detection")]
    return sheet([[truth, guess]], [captions], margin=4)


def _cell(name: str, text: str) -> str:
    return f"{text:>{max(len(name), 8)}}"
