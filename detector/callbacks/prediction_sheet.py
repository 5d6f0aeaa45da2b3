"""Draw a sheet of validation images, ground truth beside detections."""

from pathlib import Path

import cv2
import lightning as L
import numpy as np
from torch import Tensor

from detector.batch import Batch, Target
from detector.imaging.draw import draw_boxes, fit_longer_side, sheet
from detector.network.decode import DetectionDict, decode
from detector.network.head import BranchName, RawOutput
from detector.runs.folder import sheet_file
from detector.text import plural


class PredictionSheet(L.Callback):
    """Writes the first images of the validation or test set, ground truth beside detections, whenever they are run.

    The sheet, ``<trainer.default_root_dir>/val_predictions.jpg`` or ``test_predictions.jpg``, shows the network's input,
    letterboxing included, and the detections of ``branch`` with scores above ``score_threshold``. With several processes
    it has the images that rank 0 sees.
    """

    def __init__(
        self,
        num_images: int = 16,
        score_threshold: float = 0.3,
        branch: BranchName = "one2one",
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
        """Keep the images that the sheet will show."""
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
        path = Path(trainer.default_root_dir) / sheet_file("test" if trainer.testing else "val")
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), page[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        self._pairs = []

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end


def compare(image: Tensor, target: Target, detections: DetectionDict, names: list[str], size: int = 480) -> np.ndarray:
    """Return one RGB image of ``image`` (3, H, W), uint8 or in 0..1: its objects left, the detections right.

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
    captions = [which + plural(len(truth_boxes), "object"), plural(len(guess_boxes), "detection")]
    return sheet([[truth, guess]], [captions], margin=4)
