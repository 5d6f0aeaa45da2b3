"""Load a trained detector from any weights file and run it on images."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from detector.arguments import as_whole_number, shown
from detector.batch import Letterbox, Size, as_size, network_input
from detector.imaging.letterbox import letterbox, to_original
from detector.imaging.sixteen_bits import FULL_RANGE
from detector.network.decode import DetectionDict, check_settings
from detector.network.head import BRANCHES, BranchName
from detector.network.model import Detector, to_channels_last
from detector.predict.pixels import Image, as_array, each_image
from detector.text import unknown_name
from detector.weights import WeightsInfo, build_from, read_weights

if TYPE_CHECKING:
    import supervision

DEFAULT_SIZE = (640, 640)  # if the weights file has no image size
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
    ``predictor.model.to(...)``. A call always evaluates, also after ``predictor.model.train()``. ``image_size`` is the size
    of the network input, (height, width) or one side of a square, multiples of the largest stride; by default the size of
    training. ``source`` names the weights file.
    """

    def __init__(
        self,
        model: Detector,
        info: WeightsInfo,
        branch: BranchName = "one2one",
        source: str = "",
        image_size: int | Size | None = None,
    ) -> None:
        if not isinstance(model, Detector) or not isinstance(info, WeightsInfo):
            raise ValueError(
                f"model is a {type(model).__name__} and info a {type(info).__name__}; expected a Detector (the .model of a "
                "DetectorModule) and a WeightsInfo, or use load_detector, which takes a file"
            )
        _check_branch(model, branch)
        self.model, self.info, self.branch, self.source = model.eval(), info, branch, source
        num_classes = model.head.num_classes
        self.class_names = info.class_names or [f"class {label}" for label in range(num_classes)]
        self.category_ids = info.category_ids or list(range(num_classes))
        self.sixteen_bit_range = info.sixteen_bit_range or FULL_RANGE
        default_size = info.image_size or DEFAULT_SIZE
        self.image_size = height, width = as_size(default_size if image_size is None else image_size)
        stride = model.strides[-1]
        if height % stride or width % stride:
            raise ValueError(f"image_size is {height} x {width} (height x width); both must be multiples of {stride}")

    def __call__(
        self,
        images: Image | Iterable[Image],
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
                0..1. Transparency is dropped. 16 bits become 8 as in training, see ``data.sixteen_bit_range``.
            score_threshold: scores must exceed it; ``"best"`` is the threshold of the best F1 in the last validation of
                the weights, see ``best_f1_threshold``.
            max_detections: at most this number of objects per image, the best ones.
            classes: names or labels of the classes to detect; default: all. Applied before ranking.
            iou_threshold: for NMS, which the branch ``one2many`` needs.
            batch_size: images per batch. It changes time and memory, not the detections.
            branch: ``"one2one"`` or ``"one2many"``; default: the predictor's branch.

        Raises ValueError for anything else.
        """
        branch = self.branch if branch is None else branch
        _check_branch(self.model, branch)
        score_threshold = self.score_threshold(score_threshold, branch)
        check_settings(score_threshold, max_detections, iou_threshold)
        batch_size = as_whole_number(batch_size, "batch_size")
        labels = None if classes is None else self.labels_of(classes)
        remaining, detections = each_image(images), []
        while batch := [as_array(image, self.sixteen_bit_range) for image in islice(remaining, batch_size)]:
            inputs, placements = self.prepare(batch)
            with evaluating(self.model), torch.inference_mode():
                outputs = self.model.detect(inputs, branch, score_threshold, max_detections, iou_threshold, labels)
            for output, placement in zip(outputs, placements, strict=True):
                # Outside of inference mode, this makes ordinary tensors, which users may change.
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
        if isinstance(classes, str | bytes) or not isinstance(classes, Iterable):
            raise ValueError(f"classes is {shown(classes)}; expected a list of names or labels, e.g. {self.class_names[:1]}")
        labels: list[int] = []
        for choice in classes:
            if not (labels_of_choice := self._labels_of_one(choice)):
                raise ValueError(unknown_name("class", choice, dict.fromkeys(self.class_names)))
            labels += labels_of_choice
        if not labels:
            raise ValueError(f"no class is given; choose some of: {', '.join(dict.fromkeys(self.class_names))}")
        return labels

    def _labels_of_one(self, choice: Any) -> list[int]:
        """Return the labels with the name ``choice``, or ``choice`` itself if it is a label; none if it is neither."""
        if isinstance(choice, str):
            return [label for label, name in enumerate(self.class_names) if name == choice]
        try:
            label = as_whole_number(choice, "label", 0)
        except ValueError:
            return []
        return [label] if label < len(self.class_names) else []

    def deploy(self) -> "Predictor":
        """Return a predictor for inference only, on the same device: one branch, normalization folded, channels last."""
        model = to_channels_last(self.model.deploy(self.branch))
        return Predictor(model, self.info, self.branch, self.source, self.image_size)


def load_detector(
    path: str | os.PathLike, branch: BranchName = "one2one", image_size: int | Size | None = None
) -> Predictor:
    """Load a detector from a checkpoint of ours, a ``.safetensors``, or a ``.pt`` of the public reference.

    Variant, class names and input size come from the file; no code in the file is run. ``branch`` is the one that predicts:
    ``"one2one"`` without NMS, ``"one2many"`` with NMS. ``image_size``: see ``Predictor``. Raises ValueError, with path and
    reason, for other files.
    """
    if not isinstance(branch, str) or branch not in BRANCHES:
        raise ValueError(unknown_name("branch", branch, BRANCHES))
    weights = read_weights(path)
    return Predictor(build_from(weights), weights.info, branch, f"{weights.path} ({weights.kind})", image_size)


@contextmanager
def evaluating(model: Detector) -> Iterator[None]:
    """Put all modules of ``model`` into evaluation mode within the block."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _check_branch(model: Detector, branch: Any) -> None:
    if not isinstance(branch, str) or branch not in BRANCHES:
        raise ValueError(unknown_name("branch", branch, BRANCHES))
    if getattr(model.head, branch) is None:
        raise ValueError(
            f"the detector has no branch {branch!r}; choose one2one or one2many (a deployed detector has only one of them)"
        )
