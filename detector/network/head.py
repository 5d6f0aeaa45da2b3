"""The head: two branches of the same structure. One is for detection without NMS, the other for detection with NMS."""

import math
from copy import deepcopy
from typing import Literal, TypedDict, get_args

import torch
from torch import Tensor, nn

from detector.network.blocks import ConvNormAct

BranchName = Literal["one2one", "one2many"]  # without NMS, with NMS
BRANCHES: tuple[BranchName, ...] = get_args(BranchName)


class BranchOutput(TypedDict):
    """Raw outputs of one branch for the A anchors of an image: finest level first, cells row by row."""

    boxes: Tensor  # (B, 4, A) distances left, top, right, bottom from the anchor point, in cells; they may be negative
    scores: Tensor  # (B, C, A) logits


class RawOutput(TypedDict, total=False):
    """Raw outputs of a Detector. After ``Detector.deploy`` one of the branches is missing."""

    one2many: BranchOutput
    one2one: BranchOutput
    points: Tensor  # (A, 2) anchor points x y, in cells of their level
    strides: Tensor  # (A,) pixels per cell


class Branch(nn.Module):
    """Predicts boxes and class scores on every level. List of (B, in_channels[i], H_i, W_i) -> BranchOutput."""

    def __init__(
        self, in_channels: list[int], strides: list[int], num_classes: int, class_channels: int | None = None
    ) -> None:
        super().__init__()
        box_channels = max(16, in_channels[0] // 4)
        class_channels = class_channels or default_class_channels(in_channels[0], num_classes)
        self.box = nn.ModuleList(_box_tower(c, box_channels) for c in in_channels)
        self.cls = nn.ModuleList(_class_tower(c, class_channels, num_classes) for c in in_channels)
        for box, cls, stride in zip(self.box, self.cls, strides):
            _set_last_bias(box, 2.0)
            # The prior probability of a cell and class: 5 objects in the (640 / stride)^2 cells, spread over the classes
            _set_last_bias(cls, math.log(5 / num_classes / (640 / stride) ** 2))

    def forward(self, features: list[Tensor]) -> BranchOutput:
        boxes = torch.cat([tower(x).flatten(2) for tower, x in zip(self.box, features)], dim=2)
        scores = torch.cat([tower(x).flatten(2) for tower, x in zip(self.cls, features)], dim=2)
        return {"boxes": boxes, "scores": scores}


class Head(nn.Module):
    """Two branches on the same features (consistent dual assignments, YOLOv10, arXiv:2405.14458).

    Gradients of the one-to-many branch reach the features; those of the one-to-one branch stop before them. A branch may be
    None, as after ``Detector.deploy``; the output then lacks it. If it is the one-to-many branch, the gradients of the
    one-to-one branch reach the features.
    """

    def __init__(
        self, in_channels: list[int], strides: list[int], num_classes: int, class_channels: int | None = None
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.one2many: Branch | None = Branch(in_channels, strides, num_classes, class_channels)
        self.one2one: Branch | None = deepcopy(self.one2many)

    def forward(self, features: list[Tensor]) -> dict[str, BranchOutput]:
        outputs = {}
        if self.one2many is not None:
            outputs["one2many"] = self.one2many(features)
        if self.one2one is not None:
            outputs["one2one"] = self.one2one(features if self.one2many is None else [x.detach() for x in features])
        return outputs


def default_class_channels(finest_channels: int, num_classes: int) -> int:
    """Return the width of the class towers if the finest level has ``finest_channels``."""
    return max(finest_channels, min(num_classes, 100))


def _set_last_bias(tower: nn.Module, value: float) -> None:
    *_, last = tower.children()
    nn.init.constant_(last.get_parameter("bias"), value)


def _box_tower(in_channels: int, channels: int) -> nn.Sequential:
    convs = ConvNormAct(in_channels, channels, 3), ConvNormAct(channels, channels, 3)
    return nn.Sequential(*convs, nn.Conv2d(channels, 4, 1))


def _class_tower(in_channels: int, channels: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(
        ConvNormAct(in_channels, in_channels, 3, groups=in_channels),
        ConvNormAct(in_channels, channels),
        ConvNormAct(channels, channels, 3, groups=channels),
        ConvNormAct(channels, channels),
        nn.Conv2d(channels, num_classes, 1),
    )
