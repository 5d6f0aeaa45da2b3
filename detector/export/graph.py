"""The graph that is exported: a deployed detector with its decoding."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.arguments import as_bool
from detector.batch import Size
from detector.dynamic import dynamic_layers
from detector.dynamic.experts import ExpertsConv2d
from detector.network.decode import boxes_and_scores, top_pairs
from detector.network.head import BranchName
from detector.network.model import Detector

Output = Literal["end2end", "raw"]
DynamicForm = Literal["mix", "experts"]
OUTPUT_NAMES: dict[Output, tuple[str, ...]] = {"end2end": ("detections",), "raw": ("boxes", "scores")}
CONTRACTS: dict[Output, str] = {
    "end2end": "detections (B, 300, 6) float32: x1 y1 x2 y2 in pixels of the network input, score in 0..1, class index; "
    "best first; rows with score 0 are empty; no NMS is needed",
    "raw": "boxes (B, A, 4) float32: x1 y1 x2 y2 in pixels of the network input; scores (B, A, C) float32 in 0..1; "
    "A anchors: strides finest first, cells row by row",
}
MAX_DETECTIONS = 300


@dataclass(frozen=True)
class ExportSettings:
    """Input, output and precision of the exported graph.

    A ``batch_size`` of None is any batch size; ``dynamic_size`` is any height and width that are multiples of the largest
    stride. ``dynamic_form`` is the form of dynamic layers: ``"mix"`` mixes the kernel for the one image, then convolves
    (batch 1 only); ``"experts"`` convolves with every expert, then mixes the results (constant kernels, several times the
    arithmetic). The default is ``"mix"`` for batch 1, else ``"experts"``. Both are the same for layers that only gate
    channels: their kernel is constant.
    """

    output: Output = "end2end"
    batch_size: int | None = 1
    dynamic_size: bool = False
    half: bool = False
    dynamic_form: DynamicForm | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; expected at least 1, or None for any")
        for name in ("dynamic_size", "half"):
            as_bool(getattr(self, name), name)
        if self.dynamic_form == "mix" and self.batch_size != 1:
            raise ValueError("dynamic layers of the form 'mix' are for graphs of batch size 1 only; choose 'experts'")

    @property
    def form(self) -> DynamicForm:
        """The form of the dynamic layers: ``dynamic_form`` or its default."""
        return self.dynamic_form or ("mix" if self.batch_size == 1 else "experts")


class ExportGraph(nn.Module):
    """A deployed detector with its decoding: images (B, 3, H, W) float32 RGB in 0..1 -> see ``CONTRACTS``."""

    def __init__(self, detector: Detector, branch: BranchName, settings: ExportSettings, image_size: Size) -> None:
        super().__init__()
        self.detector = detector.deploy(branch)
        for name, layer in dynamic_layers(self.detector).items():
            if layer.has_constant_kernel or settings.form == "experts":
                self.detector.set_submodule(name, ExpertsConv2d(layer))
        self.dtype = torch.float16 if settings.half else torch.float32
        self.detector.to(self.dtype)
        self.branch, self.output = branch, settings.output
        num_anchors = sum((image_size[0] // s) * (image_size[1] // s) for s in detector.strides)
        self.padding = MAX_DETECTIONS if settings.dynamic_size else max(MAX_DETECTIONS - num_anchors, 0)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        boxes, scores = boxes_and_scores(self.detector(images.to(self.dtype)), self.branch)
        if self.output == "raw":
            return boxes, scores
        num_anchors = scores.shape[1]
        if self.padding:  # small inputs have fewer anchors than the output has rows
            boxes, scores = F.pad(boxes, (0, 0, 0, self.padding)), F.pad(scores, (0, 0, 0, self.padding))
        boxes, best, labels = top_pairs(boxes, scores, MAX_DETECTIONS)
        rows = torch.cat((boxes, best[..., None], labels[..., None].float()), dim=2)
        if self.padding:  # as in decode, an image has at most num_anchors detections
            rows = rows * (torch.arange(MAX_DETECTIONS, device=rows.device) < num_anchors)[:, None]
        return rows
