"""Write a sheet of validation images, with ground truth and detections side by side."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import lightning as L
import numpy as np
from torch import Tensor

from detector.arguments import as_whole_number
from detector.batch import Batch, Target
from detector.callbacks.coco_evaluation import CocoEvaluation
from detector.callbacks.of_trainer import callbacks_of
from detector.imaging.draw import draw_boxes, draw_title, fit_longer_side, sheet
from detector.network.decode import DetectionDict, decode
from detector.network.head import BranchName
from detector.runs.folder import sheet_file
from detector.text import plural, score_text

FALLBACK_THRESHOLD = 0.25  # where no score threshold is best
FAINT = 0.5  # opacity of a detection below the threshold


class PredictionSheet(L.Callback):
    """Write a sheet with the first ``num_images`` images after every validation or test.

    The sheet is ``<trainer.default_root_dir>/val_predictions.jpg`` or ``test_predictions.jpg``. It shows each network input,
    letterbox borders included: its objects on the left, and on the right the detections of one branch with scores above
    ``score_threshold``. The title names branch and threshold. Where no score of an image is above it, its best detection
    is drawn faintly. With several processes the sheet has the images of rank 0.

    Args:
        num_images: how many images the sheet has at most; 0 for no sheet.
        score_threshold: a number, or ``"best"``: that of the best F1 of this validation or test, at IoU 0.5, which
            ``CocoEvaluation`` computes. Without it, or if no detection is right, 0.25.
        branch: by default the first that ``CocoEvaluation`` evaluates, or one2one.
    """

    def __init__(
        self,
        num_images: int = 16,
        score_threshold: float | Literal["best"] = "best",
        branch: BranchName | None = None,
    ) -> None:
        if score_threshold != "best" and not (isinstance(score_threshold, int | float) and 0 <= score_threshold <= 1):
            raise ValueError(f"score_threshold of the sheet is {score_threshold!r}; expected a number in 0..1, or best")
        as_whole_number(num_images, "num_images of the sheet", least=0)
        self.num_images, self.score_threshold, self.branch = num_images, score_threshold, branch
        self._images: list[tuple[Tensor, Target, DetectionDict]] = []

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._images = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int = 0,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the images of the batch that go on the sheet, with all their detections."""
        num_missing = self.num_images - len(self._images)
        if trainer.sanity_checking or not trainer.is_global_zero or num_missing <= 0:
            return
        evaluation = _evaluation(trainer)
        detections_per_image = decode(outputs, self._branch(evaluation), **self._decode_settings(evaluation))
        for image, target, detections in islice(zip(batch["images"], batch["targets"], detections_per_image), num_missing):
            self._images.append((as_uint8(image).to("cpu", copy=True), _copy(target), _copy(detections)))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the sheet, unless CocoEvaluation comes later in the list of callbacks."""
        if _evaluation(trainer) not in callbacks_of(trainer)[callbacks_of(trainer).index(self) :]:
            self._write(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the sheet if that has not been done."""
        self._write(trainer, pl_module)

    def _write(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._images:  # the sanity check, a rank other than 0, or written already
            return
        (threshold, title), names = self._threshold_and_title(_evaluation(trainer)), cast(Any, pl_module).class_names
        pairs = [compare(*image, names, score_threshold=threshold) for image in self._images]
        page = draw_title(sheet([pairs[i : i + 2] for i in range(0, len(pairs), 2)]), title)
        path = Path(trainer.default_root_dir) / sheet_file("test" if trainer.testing else "val")
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), page[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        self._images = []

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end
    on_test_end = on_validation_end

    def _branch(self, evaluation: CocoEvaluation | None) -> BranchName:
        return self.branch or (evaluation.branches[0] if evaluation else "one2one")

    def _decode_settings(self, evaluation: CocoEvaluation | None) -> dict[str, Any]:
        """Return the settings of the evaluation, so that the sheet shows what was evaluated, with all scores it needs."""
        branch = self._branch(evaluation)
        defaults: dict[str, Any] = {"score_threshold": 0.001}
        settings = evaluation.decode_settings(branch) if evaluation else defaults
        if self.score_threshold != "best":
            settings["score_threshold"] = min(settings["score_threshold"], self.score_threshold)
        return settings

    def _threshold_and_title(self, evaluation: CocoEvaluation | None) -> tuple[float, str]:
        """Return the score threshold, and the sentence that names it and its origin."""
        branch, threshold = self._branch(evaluation), self.score_threshold
        if threshold != "best":
            origin = "as set"
        elif evaluation is None or branch not in evaluation.results:
            threshold, origin = FALLBACK_THRESHOLD, "because this branch has no COCO evaluation"
        elif (best := evaluation.results[branch].best_f1) is None:
            threshold, origin = FALLBACK_THRESHOLD, "because no detection is right at IoU 0.5"
        else:
            threshold, origin = best.threshold, f"where F1 is best ({best.f1:.3f} on all images, at IoU 0.5)"
        return threshold, f"{branch}: scores above {threshold}, {origin}"


def _evaluation(trainer: L.Trainer) -> CocoEvaluation | None:
    return next((callback for callback in callbacks_of(trainer) if isinstance(callback, CocoEvaluation)), None)


def _copy(values: Mapping[str, Any]) -> Any:
    """Return ``values`` with copies of tensors on the CPU: a view would keep the whole batch in memory."""
    return {name: value.to("cpu", copy=True) if isinstance(value, Tensor) else value for name, value in values.items()}


def as_uint8(image: Tensor) -> Tensor:
    """Return ``image``, uint8 or in 0..1, as uint8."""
    return image.float().mul(255).round().clamp(0, 255).byte() if image.is_floating_point() else image


def compare(
    image: Tensor,
    target: Target,
    detections: DetectionDict,
    names: list[str],
    size: int = 480,
    score_threshold: float = 0.0,
) -> np.ndarray:
    """Return an RGB image: ``image`` (3, H, W), uint8 or in 0..1, with its objects on the left and detections on the right.

    Detections with scores above ``score_threshold`` are drawn; if there are none, the best one is, faintly. The longer side
    of each half is ``size`` pixels, so that labels are readable on small inputs too.
    """
    pixels = np.ascontiguousarray(as_uint8(image).cpu().permute(1, 2, 0).numpy())
    left, true_boxes = fit_longer_side(pixels, target["boxes"].float().cpu().numpy(), size)
    left = draw_boxes(left, true_boxes, target["labels"].cpu().numpy(), names)
    tile = target.get("tile")
    place = "" if tile is None or tile.is_whole else f", tile at x {tile.x}, y {tile.y}"
    prefix = f"image {target['image_id']}{place}: " if "image_id" in target else ""
    right, caption = _draw_detections(pixels, detections, names, size, score_threshold)
    return sheet([[left, right]], [[prefix + plural(len(true_boxes), "object"), caption]], margin=4)


def _draw_detections(
    pixels: np.ndarray, detections: DetectionDict, names: list[str], size: int, score_threshold: float
) -> tuple[np.ndarray, str]:
    """Return the right half of ``compare`` and its caption."""
    image, boxes = fit_longer_side(pixels, detections["boxes"].float().cpu().numpy(), size)
    scores, labels = detections["scores"].float().cpu().numpy(), detections["labels"].cpu().numpy()
    shown = scores > score_threshold
    caption = f"{plural(int(shown.sum()), 'detection')} above {score_threshold}"
    if shown.any() or not len(scores):
        return draw_boxes(image, boxes[shown], labels[shown], names, scores[shown]), caption
    best = np.array([scores.argmax()])
    faint = draw_boxes(image, boxes[best], labels[best], names, scores[best])
    return cv2.addWeighted(faint, FAINT, image, 1 - FAINT, 0), f"{caption}; faint: the best, {score_text(scores[best][0])}"
