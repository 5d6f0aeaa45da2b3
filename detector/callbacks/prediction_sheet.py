"""Write a sheet of validation images, with ground truth and detections side by side."""

from itertools import islice
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
    """Write a sheet with the first ``num_images`` images after every validation or test.

    The sheet is ``<trainer.default_root_dir>/val_predictions.jpg`` or ``test_predictions.jpg``. It shows each network input,
    letterbox borders included: its objects on the left, and on the right the detections of ``branch`` with scores above
    ``score_threshold``. With several processes it has the images of rank 0.
    """

    def __init__(self, num_images: int = 16, score_threshold: float = 0.3, branch: BranchName = "one2one") -> None:
        self.num_images, self.score_threshold, self.branch = num_images, score_threshold, branch
        self._pairs: list[np.ndarray] = []

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._pairs = []

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: RawOutput, batch: Batch, *indices: int
    ) -> None:
        """Draw the images of the batch that go on the sheet."""
        num_missing = self.num_images - len(self._pairs)
        if trainer.sanity_checking or not trainer.is_global_zero or num_missing <= 0:
            return
        detections_per_image = decode(outputs, self.branch, score_threshold=self.score_threshold)
        for image, target, detections in islice(zip(batch["images"], batch["targets"], detections_per_image), num_missing):
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
    """Return an RGB image: ``image`` (3, H, W), uint8 or in 0..1, with its objects on the left and detections on the right.

    The longer side of each half is ``size`` pixels, so that labels are readable on small inputs too.
    """
    pixels = image.float().mul(255).round().clamp(0, 255).byte() if image.is_floating_point() else image
    pixels = np.ascontiguousarray(pixels.cpu().permute(1, 2, 0).numpy())
    left, true_boxes = fit_longer_side(pixels, target["boxes"].float().cpu().numpy(), size)
    left = draw_boxes(left, true_boxes, target["labels"].cpu().numpy(), names)
    right, boxes = fit_longer_side(pixels, detections["boxes"].float().cpu().numpy(), size)
    scores = detections["scores"].float().cpu().numpy()
    right = draw_boxes(right, boxes, detections["labels"].cpu().numpy(), names, scores)
    prefix = f"image {target['image_id']}: " if "image_id" in target else ""
    captions = [prefix + plural(len(true_boxes), "object"), plural(len(boxes), "detection")]
    return sheet([[left, right]], [captions], margin=4)
