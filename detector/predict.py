"""A trained detector, ready to use: whatever it was saved in, on whatever pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from detector.batch import network_input
from detector.head import BranchName
from detector.letterbox import letterbox, to_original
from detector.model import Detector
from detector.transfer import build_from
from detector.weights import WeightsInfo, read_weights

DEFAULT_SIZE = (640, 640)  # where the file does not know what its weights were trained at
Image = str | Path | np.ndarray | Tensor


@dataclass(frozen=True)
class Detections:
    """The objects found in one picture, best first."""

    boxes: Tensor  # (N, 4) x1 y1 x2 y2 in pixels of the original picture
    scores: Tensor  # (N,) in 0..1
    labels: Tensor  # (N,) int64, 0..C-1
    names: list[str]  # N class names
    category_ids: list[int]  # N ids of the annotations that were trained on

    def __len__(self) -> int:
        return len(self.scores)


class Predictor:
    """A plain Detector with what is needed to use it: class names, ids, input size, and where it came from.

    ``model`` is an ordinary module, which is put into evaluation mode: move it to another device or precision with
    ``predictor.model.to(...)``.
    """

    def __init__(self, model: Detector, info: WeightsInfo, branch: BranchName = "one2one", source: str = "") -> None:
        if getattr(model.head, branch, None) is None:
            raise ValueError(
                f"the detector has no branch {branch!r}; choose one2one or one2many, if it has not been deployed"
            )
        self.model, self.info, self.branch, self.source = model.eval(), info, branch, source
        num_classes = len(model.state_dict()[f"head.{branch}.cls.0.4.bias"])
        self.class_names = info.class_names or [f"class {label}" for label in range(num_classes)]
        self.category_ids = info.category_ids or list(range(num_classes))
        self.image_size = info.image_size or DEFAULT_SIZE  # (height, width) of the network input

    @torch.inference_mode()
    def __call__(
        self, images: Image | Sequence[Image], score_threshold: float = 0.25, max_detections: int = 300
    ) -> list[Detections]:
        """Find the objects of pictures, one ``Detections`` each.

        A picture is a file, an (H, W, 3) uint8 RGB array, or a (3, H, W) tensor, uint8 or floating point in 0..1. Files are
        turned as their EXIF data say. Raises ValueError for anything else.
        """
        images = [images] if isinstance(images, str | Path | np.ndarray | Tensor) else list(images)
        return [self._one(as_array(image), score_threshold, max_detections) for image in images]

    def _one(self, image: np.ndarray, score_threshold: float, max_detections: int) -> Detections:
        canvas, place = letterbox(image, self.image_size)
        weight = next(self.model.parameters())
        batch = network_input(torch.from_numpy(canvas).permute(2, 0, 1)[None].to(weight.device), weight.dtype)
        (found,) = self.model.detect(batch, self.branch, score_threshold, max_detections)
        labels = found["labels"].tolist()
        return Detections(
            boxes=to_original(found["boxes"], place),
            scores=found["scores"],
            labels=found["labels"],
            names=[self.class_names[label] for label in labels],
            category_ids=[self.category_ids[label] for label in labels],
        )


def load_detector(path: str | Path, branch: BranchName = "one2one") -> Predictor:
    """Load a detector from a checkpoint of ours, a ``.safetensors``, or a ``.pt`` of the public reference.

    Variant, class names and input size come from the file, nothing in which is run. ``branch`` decides how pictures are
    answered: ``"one2one"`` without NMS, ``"one2many"`` with. Raises ValueError, with file and reason, for other files.
    """
    weights = read_weights(path)
    return Predictor(build_from(weights), weights.info, branch, f"{weights.path} ({weights.kind})")


def as_array(image: Image) -> np.ndarray:
    """Return a picture as an (H, W, 3) uint8 RGB array."""
    if isinstance(image, str | Path):
        pixels = cv2.imread(str(image), cv2.IMREAD_COLOR)
        if pixels is None:
            raise ValueError(f"{image}: not a picture that can be read; give the path of a picture, an array or a tensor")
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"the tensor has the shape {tuple(image.shape)}; expected (3, height, width)")
        image = image.detach().cpu()
        image = (image.float() * 255).round().clamp(0, 255).byte() if image.is_floating_point() else image
        image = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"the picture is {image.dtype} of shape {image.shape}; expected uint8 RGB, (height, width, 3)")
    return image
