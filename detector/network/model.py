"""The whole network. Its parts are put together here and nowhere else."""

from copy import deepcopy
from dataclasses import replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from detector.arguments import as_whole_number
from detector.dynamic import DynamicConfig, make_dynamic
from detector.dynamic.router import BottleneckRouter
from detector.network.backbone import AnyBackbone, build_backbone
from detector.network.blocks import ConvNormAct
from detector.network.boxes import anchor_points
from detector.network.config import CONVOLUTION_PATTERNS, DetectorConfig, detector_config, has_own_experts
from detector.network.decode import DetectionDict, decode
from detector.network.head import BRANCHES, BranchName, Head, RawOutput
from detector.network.neck import Neck
from detector.network.replace.entries import check_entries
from detector.network.replace.parts import ReplacedPart, replace_parts
from detector.text import unknown_name

ModuleType = TypeVar("ModuleType", bound=nn.Module)


class Detector(nn.Module):
    """A detector: images in, raw outputs of both branches out, in training and in evaluation.

    ``strides`` are the pixels per cell of the levels, finest first. ``replaced`` has the modules that ``build_detector`` has
    replaced by blocks of the user, by name.
    """

    convolution_patterns = CONVOLUTION_PATTERNS  # names that make_dynamic takes for ``where``

    def __init__(self, backbone: AnyBackbone, neck: Neck, head: Head) -> None:
        super().__init__()
        if backbone.name != "yolo26":
            self.convolution_patterns = backbone.convolution_patterns
        self.backbone, self.neck, self.head = backbone, neck, head
        self.strides = backbone.strides
        self.replaced: dict[str, ReplacedPart] = {}

    def forward(self, images: Tensor) -> RawOutput:
        """Return the raw outputs for ``images`` (B, 3, H, W), RGB in 0..1, H and W multiples of the largest stride."""
        height, width = images.shape[-2:]
        if height % self.strides[-1] or width % self.strides[-1]:
            raise ValueError(f"images are {height} x {width} pixels; both must be multiples of {self.strides[-1]}")
        features = self.neck(self.backbone(images))
        points, strides = anchor_points([tuple(f.shape[-2:]) for f in features], self.strides, like=features[0])
        return {**self.head(features), "points": points, "strides": strides}

    @torch.no_grad()
    def detect(
        self,
        images: Tensor,
        branch: BranchName = "one2one",
        score_threshold: float = 0.25,
        max_detections: int = 300,
        iou_threshold: float | None = None,
        classes: list[int] | None = None,
    ) -> list[DetectionDict]:
        """Return the detections in ``images`` (B, 3, H, W), RGB in 0..1, a dict for each image.

        For the other arguments and the dicts see ``detector.network.decode``. Call ``eval()`` first, as for any network.
        Raises ValueError for images of another type or shape.
        """
        _check_images(images)
        return decode(self(images), branch, score_threshold, max_detections, iou_threshold, classes)

    def deploy(self, branch: BranchName = "one2one") -> Self:
        """Return a copy for inference: only ``branch``, normalization folded into convolutions and routers, no gradients.

        Raises ValueError if the detector has no such branch.
        """
        if branch not in BRANCHES:
            raise ValueError(unknown_name("branch", branch, BRANCHES))
        model = deepcopy(self).eval().requires_grad_(False)
        restore_activations(model)
        if getattr(model.head, branch) is None:
            raise ValueError(f"this detector has no branch {branch!r}: it was deployed with the other one")
        for other in set(BRANCHES) - {branch}:
            setattr(model.head, other, None)
        for module in model.modules():
            if isinstance(module, ConvNormAct | BottleneckRouter):
                module.fuse()
        if model.backbone.name != "yolo26":
            model.backbone.fold_norms()
        return model.requires_grad_(False)


def restore_activations(module: nn.Module) -> None:
    """Give BatchNorms of timm their activation back, in place; it is lost when torch or Lightning change their class.

    Both turn any BatchNorm into a SyncBatchNorm and back, but do not know that timm's ``BatchNormAct2d`` has an activation.
    """
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and hasattr(norm, "act"):
            from timm.layers import BatchNormAct2d
            from timm.layers.norm_act import SyncBatchNormAct

            if not isinstance(norm, BatchNormAct2d | SyncBatchNormAct):
                norm.__class__ = SyncBatchNormAct if isinstance(norm, nn.SyncBatchNorm) else BatchNormAct2d


def to_channels_last(module: ModuleType) -> ModuleType:
    """Give tensors of four dimensions the memory layout channels_last, in place, and return ``module``.

    ``module.to(memory_format=...)`` would raise an error for a tensor of five, which blocks of the user may have.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4:
            # Not contiguous(): it leaves the strides of a depthwise kernel, and DDP then warns of the gradient's.
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return module


def _check_images(images: Any) -> None:
    is_batch = isinstance(images, Tensor) and images.ndim == 4 and images.shape[1] == 3 and images.is_floating_point()
    if not is_batch:
        kind = (
            f"{images.dtype} of shape {tuple(images.shape)}" if isinstance(images, Tensor) else f"a {type(images).__name__}"
        )
        raise ValueError(
            f"images is {kind}; expected a floating-point tensor (B, 3, height, width), RGB in 0..1 (a Predictor takes "
            "images of every form)"
        )


def build_detector(variant: str, num_classes: int, **overrides: Any) -> Detector:
    """Build an untrained detector, e.g. ``build_detector("dyn_n", 80, dynamic=DynamicConfig(num_experts=8))``.

    ``variant`` is a key of ``VARIANTS``; ``overrides`` are fields of ``DetectorConfig``. Modules are replaced last, with
    random numbers of their own: under one seed, everything else is as without ``replace``. Raises ValueError for an unknown
    variant or field, or a class count that is not a whole number above 0.
    """
    num_classes = as_whole_number(num_classes, "num_classes")
    config = detector_config(variant, **overrides)
    backbone = build_backbone(config)
    neck = Neck(backbone.channels, config)
    detector = Detector(backbone, neck, Head(neck.channels, backbone.strides, num_classes, config.class_channels))
    if (dynamic := dynamic_config(config)) is not None:
        try:
            make_dynamic(detector, dynamic.where, **dynamic.layer)
        except ValueError as error:
            raise ValueError(f"dynamic: {error}") from None
    if config.replace:
        detector.replaced = replace_parts(detector, check_entries(config.replace))
    return detector


def dynamic_config(config: DetectorConfig) -> DynamicConfig | None:
    """Return the dynamic layers of a detector. A ParameterNet has some of its own, besides those that are asked for."""
    if not has_own_experts(config.backbone):
        return config.dynamic
    dynamic = config.dynamic or DynamicConfig("backbone")
    where = (dynamic.where,) if isinstance(dynamic.where, str) else dynamic.where
    return replace(dynamic, where=("backbone", *where))
