"""The classifier of pre-training: images in, logits out. Its trunk becomes the backbone of a detector."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from detector.arguments import as_number, as_whole_number
from detector.dynamic import make_dynamic
from detector.network.backbone import Backbone
from detector.network.config import CONVOLUTION_PATTERNS, DetectorConfig, detector_config
from detector.network.replace.entries import check_entries
from detector.network.replace.parts import ReplacedPart, replace_parts

OF_THE_NECK = "neck-bottlenecks"  # a group of convolutions that a classifier does not have
BACKBONE_PATTERNS = {name: regex for name, regex in CONVOLUTION_PATTERNS.items() if name != OF_THE_NECK}
HIGHEST_RATE = 0.99  # of dropout and stochastic depth


class Classifier(nn.Module):
    """Images to logits: a network and the statistics of its input.

    Shape: (B, 3, H, W) RGB in 0..1 -> (B, C). ``network`` gets the images minus ``mean``, divided by ``std``, (1, 3, 1, 1).

    ``network`` has the names that its files have: those of timm for a network of timm and a ParameterNet, and ``backbone``
    and ``classifier`` for our own. ``trunk`` has the names of those of its tensors that become the backbone of a detector,
    which are the same there; ``trunk_strides`` are the strides of the maps that a detector takes from a foreign trunk.
    ``layers`` are the names of its parameters by depth, from input to output. ``replaced`` has the modules of ``network``
    that were replaced by blocks of the user, by name. ``part_groups`` has the names of the modules of a foreign ``network``
    that are ``backbone``, ``backbone.stem`` and ``backbone.norms``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        backbone: str,
        num_classes: int,
        trunk: Sequence[str],
        layers: Sequence[Sequence[str]],
        trunk_strides: Sequence[int] = (),
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        self.network, self.backbone, self.num_classes = network, backbone, num_classes
        self.trunk, self.layers = list(trunk), [list(names) for names in layers]
        self.trunk_strides = list(trunk_strides)
        self.replaced: dict[str, ReplacedPart] = {}
        self.part_groups: dict[str, list[str]] = {}
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.std)

    @property
    def last_layer(self) -> str:
        """The name of the module of ``network`` that gives the logits."""
        last = cast(Any, self.network).get_classifier()
        return next(name for name, module in self.network.named_modules() if module is last)


class BackboneClassifier(nn.Module):
    """Our backbone, the mean of its coarsest map, dropout, and a linear layer.

    Shape: (B, 3, H, W) -> logits (B, C).
    """

    convolution_patterns = BACKBONE_PATTERNS

    def __init__(self, config: DetectorConfig, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = Backbone(config)
        self.strides = self.backbone.strides
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.backbone.channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.backbone(images)[-1].mean(dim=(2, 3))))

    def get_classifier(self) -> nn.Module:
        """Return the linear layer; networks of timm have a method of this name, too."""
        return self.classifier

    def layers(self) -> list[list[str]]:
        """Return the names of the parameters by depth: the stem, each level, pooling, attention, the linear layer."""
        levels = [
            (f"backbone.down_p{level}.", f"backbone.stage_p{level}.") for level in range(2, self.backbone.max_level + 1)
        ]
        prefixes = [("backbone.stem.",), *levels, ("backbone.sppf.",), ("backbone.attention.",), ("classifier.",)]
        names = [name for name, _ in self.named_parameters()]
        return [[name for name in names if name.startswith(prefix)] for prefix in prefixes]


def build_classifier(
    variant: str, num_classes: int, dropout: float | None = None, drop_path: float = 0.0, **overrides: Any
) -> Classifier:
    """Build an untrained classifier whose trunk is that of ``build_detector(variant, ..., **overrides)``.

    Args:
        variant: a key of ``VARIANTS``.
        num_classes: number of classes.
        dropout: rate before the last linear layer, 0 or more, below 1; by default that of the network: 0 for our backbone,
            0.2 for a ParameterNet, timm's for a network of timm.
        drop_path: rate of stochastic depth, for networks of timm that have it, and for ParameterNets.
        overrides: fields of ``DetectorConfig``. The groups of convolutions that ``dynamic.where`` names are those of the
            detector's backbone. ``replace`` takes modules of our own backbone.

    Raises ValueError for unknown variants and fields, and for fields that mean nothing in a classifier.
    """
    num_classes = as_whole_number(num_classes, "num_classes")
    dropout = None if dropout is None else as_number(dropout, "dropout", high=HIGHEST_RATE)
    drop_path = as_number(drop_path, "drop_path", high=HIGHEST_RATE)
    config = detector_config(variant, **overrides)
    if config.class_channels is not None:
        raise ValueError(f"class_channels is {config.class_channels}, but a classifier has no detection head; leave it out")
    if config.backbone != "yolo26":
        from detector.network.foreign.classifiers import foreign_classifier

        return foreign_classifier(config, num_classes, dropout, drop_path)
    if drop_path:
        raise ValueError(f"drop_path is {drop_path}, but our backbone has no stochastic depth; leave it out, or use dropout")
    return _our_classifier(config, num_classes, dropout or 0.0)


def _our_classifier(config: DetectorConfig, num_classes: int, dropout: float) -> Classifier:
    network = BackboneClassifier(config, num_classes, dropout)
    if (dynamic := config.dynamic) is not None:
        try:
            make_dynamic(network, dynamic.where, **dynamic.layer)
        except ValueError as error:
            raise ValueError(f"dynamic: {error}{no_neck(dynamic.where)}") from None
    replaced = {}
    if config.replace:
        replaced = replace_parts(network, check_entries(config.replace))
    trunk = [name for name in network.state_dict() if name.startswith("backbone.")]
    classifier = Classifier(network, config.backbone, num_classes, trunk, network.layers())
    classifier.replaced = replaced
    return classifier


def no_neck(where: str | Sequence[str]) -> str:
    """Return a phrase for an error if ``where`` names convolutions of the neck."""
    entries = [where] if isinstance(where, str) else where
    is_neck = any(entry == OF_THE_NECK or entry.startswith(("neck", r"neck\.")) for entry in entries)
    return " (a classifier has no neck: name only the convolutions of the backbone)" if is_neck else ""
