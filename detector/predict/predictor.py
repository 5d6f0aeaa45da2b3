"""A trained detector, ready to use: whatever it was saved in, on whatever images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
from detector.weights.files import read_weights
from detector.weights.info import WeightsInfo
from detector.weights.load import build_from

if TYPE_CHECKING:
    import supervision

DEFAULT_SIZE = (640, 640)  # where the file does not know what its weights were trained at
Image = str | Path | np.ndarray | Tensor | PIL.Image.Image


@dataclass(frozen=True)
class Detections:
    """The objects found in one image, best first. Tensors are on the CPU."""

    boxes: Tensor  # (N, 4) x1 y1 x2 y2 in pixels of the original image
    scores: Tensor  # (N,) in 0..1
    labels: Tensor  # (N,) int64, 0..C-1
    names: list[str]  # N class names
    category_ids: list[int]  # N ids of the annotations that were trained on

    def __len__(self) -> int:
        return len(self.scores)

    def to_torchvision(self) -> dict[str, Tensor]:
        """Return ``boxes``, ``scores`` and ``labels`` as torchvision's detectors do; labels count from 0."""
        return {"boxes": self.boxes, "scores": self.scores, "labels": self.labels}

    def to_supervision(self) -> "supervision.Detections":
        """Return ``supervision.Detections`` with the names as ``data["class_name"]``; needs ``pip install supervision``."""
        import supervision

        return supervision.Detections(
            xyxy=self.boxes.numpy(),
            confidence=self.scores.numpy(),
            class_id=self.labels.numpy(),
            data={"class_name": np.array(self.names, dtype=str)},
        )


class Predictor:
    """A plain Detector with what is needed to use it: class names, ids, input size, and where it came from.

    ``model`` is an ordinary module, which is put into evaluation mode: move it to another device or precision with
    ``predictor.model.to(...)``. ``image_size`` (height, width), or one side of a square, is that of the network input; by
    default the one of training.
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
        self.image_size = _checked_size(image_size or info.image_size or DEFAULT_SIZE, model.strides[-1])

    @torch.inference_mode()
    def __call__(
        self,
        images: Image | Sequence[Image],
        score_threshold: float = 0.25,
        max_detections: int = 300,
        classes: Sequence[str | int] | None = None,
        iou_threshold: float = 0.7,
        batch_size: int = 8,
        branch: BranchName | None = None,
    ) -> list[Detections]:
        """Find the objects of images, one ``Detections`` each.

        Args:
            images: images, of any sizes. An image is a file or PIL's, turned as its EXIF data say; an array (H, W),
                (H, W, 3) or (H, W, 4), RGB, uint8 or uint16; or a tensor (3, H, W), uint8 or floating point in 0..1.
                Transparency is left out.
            score_threshold: scores must exceed it.
            max_detections: at most so many objects an image, the best.
            classes: names or labels of the classes to look for, before anything is ranked; default: all.
            iou_threshold: of NMS, which the branch ``one2many`` needs.
            batch_size: so many images go through the network at a time, which changes nothing but time and memory.
            branch: the one to answer, ``"one2one"`` or ``"one2many"``; default: the predictor's own.

        Raises ValueError for anything else.
        """
        if not 0 <= score_threshold <= 1 or batch_size < 1 or max_detections < 1:
            raise ValueError(
                f"score_threshold is {score_threshold}, batch_size {batch_size} and max_detections {max_detections}; "
                "expected 0 to 1, and at least 1 each"
            )
        branch = branch or self.branch
        _check_branch(self.model, branch)
        images = [images] if isinstance(images, Image) else list(images)
        labels = None if classes is None else self.labels_of(classes)
        found: list[Detections] = []
        for start in range(0, len(images), batch_size):
            batch, places = self.prepare([as_array(image) for image in images[start : start + batch_size]])
            answers = self.model.detect(batch, branch, score_threshold, max_detections, iou_threshold, labels)
            found += [self.detections(answer, place) for answer, place in zip(answers, places, strict=True)]
        return found

    def prepare(self, images: Sequence[np.ndarray]) -> tuple[Tensor, list[Letterbox]]:
        """Return the network input (B, 3, H, W) made of ``images``, each (h, w, 3) uint8 RGB, and where each lies on it."""
        canvases, places = zip(*(letterbox(image, self.image_size) for image in images), strict=True)
        weight = next(self.model.parameters())
        batch = torch.from_numpy(np.stack(canvases)).permute(0, 3, 1, 2).to(weight.device)
        return network_input(batch, weight.dtype), list(places)

    def detections(self, found: DetectionDict, place: Letterbox) -> Detections:
        """Return what was ``found`` on the network input in pixels of the image, with the classes' names and ids.

        Boxes without area in the image, which a network that has learned little may give, are left out.
        """
        boxes = to_original(found["boxes"].cpu(), place)
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        labels = found["labels"].cpu()[has_area]
        return Detections(
            boxes=boxes[has_area],
            scores=found["scores"].cpu()[has_area],
            labels=labels,
            names=[self.class_names[label] for label in labels.tolist()],
            category_ids=[self.category_ids[label] for label in labels.tolist()],
        )

    def labels_of(self, classes: Sequence[str | int]) -> list[int]:
        """Return the labels of ``classes``, given by name or label; a ValueError lists the classes there are."""
        names = dict(zip(self.class_names, range(len(self.class_names))))
        labels = [names.get(c, -1) if isinstance(c, str) else c for c in classes]
        if unknown := [c for c, label in zip(classes, labels) if not 0 <= label < len(self.class_names)] or not labels:
            raise ValueError(f"no class {unknown}; choose some of: {', '.join(names)}")
        return labels

    def deploy(self) -> "Predictor":
        """Return one for inference alone, on the same device: its branch only, normalization folded, channels last."""
        model = self.model.deploy(self.branch).to(memory_format=torch.channels_last)
        return Predictor(model, self.info, self.branch, self.source, self.image_size)


def load_detector(path: str | Path, branch: BranchName = "one2one", image_size: int | Size | None = None) -> Predictor:
    """Load a detector from a checkpoint of ours, a ``.safetensors``, or a ``.pt`` of the public reference.

    Variant, class names and input size come from the file, nothing in which is run. ``branch`` decides how images are
    answered: ``"one2one"`` without NMS, ``"one2many"`` with. ``image_size``: see ``Predictor``. Raises ValueError, with file
    and reason, for other files.
    """
    weights = read_weights(path)
    return Predictor(build_from(weights), weights.info, branch, f"{weights.path} ({weights.kind})", image_size)


def _check_branch(model: Detector, branch: str) -> None:
    if branch not in BRANCHES or getattr(model.head, branch) is None:
        raise ValueError(f"the detector has no branch {branch!r}; choose one2one or one2many, if it has not been deployed")


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
    shape, dtype = tuple(image.shape), image.dtype
    if isinstance(image, Tensor) and image.ndim == 3:
        image = _tensor_as_array(image)
    elif image.ndim == 2 and not isinstance(image, Tensor):
        image = image[..., None]
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)  # as decoders do
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f"the image is {dtype} of shape {shape}; expected an array (height, width), (height, width, 3) or (height, "
            "width, 4), RGB, uint8 or uint16, or a tensor (3, height, width), uint8 or floating point in 0..1; several "
            "images go into a list"
        )
    return np.ascontiguousarray(image.repeat(3, axis=2) if image.shape[2] == 1 else image[..., :3])


def _tensor_as_array(image: Tensor) -> np.ndarray:
    image = image.detach().cpu()
    if image.is_floating_point():
        if image.numel() and not image.max() <= 2:  # resizing may overshoot 1 a little
            raise ValueError(f"the tensor has values up to {image.max():g}; floating-point images are in 0..1")
        image = (image.float() * 255).round().clamp(0, 255).byte()
    return image.movedim(0, -1).numpy()


def _checked_size(size: int | Size, stride: int) -> Size:
    height, width = as_size(size)
    if min(height, width) < stride or height % stride or width % stride:
        raise ValueError(f"image_size is {height} x {width} (height x width); both must be multiples of {stride}")
    return height, width
