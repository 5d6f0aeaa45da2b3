"""Load a trained detector from any weights file and run it on images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from torch import Tensor

from detector.batch import Letterbox, Size, as_size, network_input
from detector.imaging.letterbox import letterbox, to_original
from detector.imaging.read import read_upright
from detector.network.decode import DetectionDict
from detector.network.head import BRANCHES, BranchName
from detector.network.model import Detector
from detector.text import unknown_name
from detector.weights import WeightsInfo, build_from, read_weights

if TYPE_CHECKING:
    import supervision

DEFAULT_SIZE = (640, 640)  # if the weights file has no image size
Image = str | Path | np.ndarray | Tensor | PIL.Image.Image
ScoreThreshold = float | Literal["best"]


@dataclass(frozen=True)
class Detections:
    """The objects found in one image, best first. Tensors are on the CPU."""

    boxes: Tensor  # (N, 4) x1 y1 x2 y2 in pixels of the original image
    scores: Tensor  # (N,) in 0..1
    labels: Tensor  # (N,) int64, 0..C-1
    names: list[str]  # N class names
    category_ids: list[int]  # N category ids of the training annotations

    def __len__(self) -> int:
        return len(self.scores)

    def to_torchvision(self) -> dict[str, Tensor]:
        """Return ``boxes``, ``scores`` and ``labels`` as torchvision's detectors return them, but labels count from 0."""
        return {"boxes": self.boxes, "scores": self.scores, "labels": self.labels}

    def to_supervision(self) -> "supervision.Detections":
        """Return ``supervision.Detections`` with the names as ``data["class_name"]``; needs ``pip install supervision``."""
        import supervision

        boxes, scores, labels = self.boxes.numpy(), self.scores.numpy(), self.labels.numpy()
        data = {"class_name": np.array(self.names, dtype=str)}
        return supervision.Detections(xyxy=boxes, confidence=scores, class_id=labels, data=data)


class Predictor:
    """A detector with its class names, category ids, input size and branch: images in, ``Detections`` out.

    ``model`` is an ordinary module, which is put into evaluation mode: move it to another device or precision with
    ``predictor.model.to(...)``. ``image_size`` is the size of the network input, (height, width) or one side of a square,
    multiples of the largest stride; by default the size of training. ``source`` names the weights file.
    """

    def __init__(
        self,
        model: Detector,
        info: WeightsInfo,
        branch: BranchName = "one2one",
        source: str = "",
        image_size: int | Size | None = None,
    ) -> None:
        _check_branch(model, branch)
        self.model, self.info, self.branch, self.source = model.eval(), info, branch, source
        num_classes = getattr(model.head, branch).cls[0][-1].out_channels
        self.class_names = info.class_names or [f"class {label}" for label in range(num_classes)]
        self.category_ids = info.category_ids or list(range(num_classes))
        self.image_size = height, width = as_size(image_size or info.image_size or DEFAULT_SIZE)
        stride = model.strides[-1]
        if height % stride or width % stride:
            raise ValueError(f"image_size is {height} x {width} (height x width); both must be multiples of {stride}")

    @torch.inference_mode()
    def __call__(
        self,
        images: Image | Sequence[Image],
        score_threshold: ScoreThreshold = 0.25,
        max_detections: int = 300,
        classes: Sequence[str | int] | None = None,
        iou_threshold: float = 0.7,
        batch_size: int = 8,
        branch: BranchName | None = None,
    ) -> list[Detections]:
        """Detect objects in images of any sizes; return one ``Detections`` per image.

        Args:
            images: one image or several. An image is a path or a PIL image, rotated as its EXIF data require; an array
                (H, W), (H, W, 3) or (H, W, 4), RGB, uint8 or uint16; or a tensor (3, H, W), uint8 or floating point in
                0..1. Transparency is dropped.
            score_threshold: scores must exceed it; ``"best"`` is the threshold of the best F1 in the last validation of
                the weights, see ``best_f1_threshold``.
            max_detections: at most this number of objects per image, the best ones.
            classes: names or labels of the classes to detect; default: all. Applied before ranking.
            iou_threshold: for NMS, which the branch ``one2many`` needs.
            batch_size: images per batch. It changes time and memory, not the detections.
            branch: ``"one2one"`` or ``"one2many"``; default: the predictor's branch.

        Raises ValueError for anything else.
        """
        score_threshold = self.score_threshold(score_threshold, branch)
        if not 0 <= score_threshold <= 1 or batch_size < 1 or max_detections < 1:
            raise ValueError(
                f"score_threshold is {score_threshold}, batch_size {batch_size} and max_detections {max_detections}; "
                "expected 0 to 1, and at least 1 each"
            )
        branch = branch or self.branch
        _check_branch(self.model, branch)
        images = [images] if isinstance(images, Image) else list(images)
        labels = None if classes is None else self.labels_of(classes)
        detections: list[Detections] = []
        for start in range(0, len(images), batch_size):
            batch, placements = self.prepare([as_array(image) for image in images[start : start + batch_size]])
            outputs = self.model.detect(batch, branch, score_threshold, max_detections, iou_threshold, labels)
            for output, placement in zip(outputs, placements, strict=True):
                detections.append(self.detections(output, placement))
        return detections

    def prepare(self, images: Sequence[np.ndarray]) -> tuple[Tensor, list[Letterbox]]:
        """Letterbox ``images``, each (h, w, 3) uint8 RGB. Returns the network input (B, 3, H, W) and B placements."""
        canvases, placements = zip(*(letterbox(image, self.image_size) for image in images), strict=True)
        weight = next(self.model.parameters())
        batch = torch.from_numpy(np.stack(canvases)).permute(0, 3, 1, 2).to(weight.device)
        return network_input(batch, weight.dtype), list(placements)

    def detections(self, output: DetectionDict, placement: Letterbox) -> Detections:
        """Map the ``output`` for one image from the network input to the image, and add class names and category ids.

        Boxes without area in the image are dropped: a network that has learned little may give some.
        """
        boxes = to_original(output["boxes"].cpu(), placement)
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes, scores, labels = boxes[has_area], output["scores"].cpu()[has_area], output["labels"].cpu()[has_area]
        names = [self.class_names[label] for label in labels.tolist()]
        category_ids = [self.category_ids[label] for label in labels.tolist()]
        return Detections(boxes, scores, labels, names, category_ids)

    @property
    def best_f1_threshold(self) -> float | None:
        """The score threshold of the best F1 of this branch in the last validation of the weights, at IoU 0.5.

        None if it is unknown, as for weights that were never validated.
        """
        return self.info.best_f1_thresholds.get(self.branch)

    def score_threshold(self, score_threshold: ScoreThreshold, branch: BranchName | None = None) -> float:
        """Return ``score_threshold`` as a number: ``"best"`` stands for the threshold of the best F1 of ``branch``.

        Raises ValueError if that is unknown, and for other words.
        """
        if not isinstance(score_threshold, str):
            return score_threshold
        if score_threshold != "best":
            raise ValueError(f"score_threshold is {score_threshold!r}; expected a number in 0..1, or 'best'")
        branch = branch or self.branch
        if (best := self.info.best_f1_thresholds.get(branch)) is None:
            reason = self.info.describe_best_f1(branch)
            raise ValueError(
                f"score_threshold is 'best', but the threshold of the best F1 is {reason}; give a number in 0..1"
            )
        return best

    def labels_of(self, classes: Sequence[str | int]) -> list[int]:
        """Return the labels of ``classes``, given by name or label. Raises ValueError for unknown classes, and for none."""
        label_by_name = {name: label for label, name in enumerate(self.class_names)}
        labels = [label_by_name.get(name, -1) if isinstance(name, str) else name for name in classes]
        unknown = [name for name, label in zip(classes, labels) if not 0 <= label < len(self.class_names)]
        if unknown:
            raise ValueError(unknown_name("class", unknown[0], label_by_name))
        if not labels:
            raise ValueError(f"no class is given; choose some of: {', '.join(label_by_name)}")
        return labels

    def deploy(self) -> "Predictor":
        """Return a predictor for inference only, on the same device: one branch, normalization folded, channels last."""
        model = self.model.deploy(self.branch).to(memory_format=torch.channels_last)
        return Predictor(model, self.info, self.branch, self.source, self.image_size)


def load_detector(path: str | Path, branch: BranchName = "one2one", image_size: int | Size | None = None) -> Predictor:
    """Load a detector from a checkpoint of ours, a ``.safetensors``, or a ``.pt`` of the public reference.

    Variant, class names and input size come from the file; no code in the file is run. ``branch`` is the one that predicts:
    ``"one2one"`` without NMS, ``"one2many"`` with NMS. ``image_size``: see ``Predictor``. Raises ValueError, with path and
    reason, for other files.
    """
    weights = read_weights(path)
    return Predictor(build_from(weights), weights.info, branch, f"{weights.path} ({weights.kind})", image_size)


def as_array(image: Image) -> np.ndarray:
    """Return an image, see ``Predictor.__call__``, as an (H, W, 3) uint8 RGB array."""
    if isinstance(image, str | Path):
        if Path(image).is_dir():
            raise ValueError(f"{image} is a folder; give images, or use python -m detector predict, which takes folders")
        return read_upright(Path(image))
    if isinstance(image, PIL.Image.Image):
        image = np.asarray(PIL.ImageOps.exif_transpose(image).convert("RGB"))
    if not isinstance(image, np.ndarray | Tensor):
        raise ValueError(
            f"an image is a {type(image).__name__}; expected a path, an array (numpy.asarray makes one) or a tensor"
        )
    pixels = _tensor_as_array(image) if isinstance(image, Tensor) else image
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)  # as image decoders do
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or pixels.dtype != np.uint8 or not pixels.size:
        raise _unsupported(image)
    return np.ascontiguousarray(pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3])


def _tensor_as_array(image: Tensor) -> np.ndarray:
    if image.ndim != 3:
        raise _unsupported(image)
    image = image.detach().cpu()
    if image.is_floating_point():
        if image.numel() and not image.max() <= 2:  # resizing may overshoot 1 a little
            raise ValueError(f"the tensor has values up to {image.max():g}; floating-point images are in 0..1")
        image = (image.float() * 255).round().clamp(0, 255).byte()
    return image.movedim(0, -1).numpy()


def _unsupported(image: np.ndarray | Tensor) -> ValueError:
    return ValueError(
        f"the image is {image.dtype} of shape {tuple(image.shape)}; expected an array (height, width), (height, width, 3) "
        "or (height, width, 4), RGB, uint8 or uint16, or a tensor (3, height, width), uint8 or floating point in 0..1; "
        "several images go into a list"
    )


def _check_branch(model: Detector, branch: str) -> None:
    if branch not in BRANCHES:
        raise ValueError(unknown_name("branch", branch, BRANCHES))
    if getattr(model.head, branch) is None:
        raise ValueError(
            f"the detector has no branch {branch!r}; choose one2one or one2many (a deployed detector has only one of them)"
        )
