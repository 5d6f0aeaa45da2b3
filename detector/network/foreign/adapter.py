"""ForeignBackbone: a network of timm, or a ParameterNet, in place of our backbone."""

from typing import Any

import torch
from torch import Tensor, nn

from detector.network.backbone import AnyBackbone, level_table
from detector.network.blocks import SPPF, AttentionStage, ConvNormAct, CSPStage
from detector.network.config import CONVOLUTION_PATTERNS, DetectorConfig
from detector.network.foreign.fold import fold_norms
from detector.network.foreign.ghost import GhostTrunk
from detector.network.foreign.parameternet import MEAN, STD, parameternet_trunk
from detector.network.foreign.places import dynamic_places, stem_modules, with_neck_and_head
from detector.network.foreign.timm_trunk import Trunk, architecture, pretrained_cfg, timm_levels, timm_trunk


class ForeignBackbone(AnyBackbone):
    """The trunk of a classifier, whose maps get the channels of our backbone; pooling and attention on the coarsest.

    Neck and head, ``sppf`` and ``attention`` thus have the shapes of a YOLO26 detector, and load its weights. Level p6 is
    the trunk's map of stride 64 if it has one, else a strided convolution and a stage on p5, as in our backbone.

    Shape: (B, 3, H, W) RGB in 0..1 -> list of (B, channels[i], H / strides[i], W / strides[i]), finest first. The trunk
    gets the images minus ``mean``, divided by ``std``: the statistics of the pretrained weights, (1, 3, 1, 1).
    """

    mean: Tensor
    std: Tensor
    trunk: Any  # its methods depend on the network of timm
    down_p6: ConvNormAct | None
    stage_p6: CSPStage | None

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.name = config.backbone
        levels = range(config.min_level, config.max_level + 1)
        self.trunk_strides = trunk_strides(config)
        trunk_levels = levels[: len(self.trunk_strides)]
        trunk = build_trunk(self.name, self.trunk_strides)
        mean, std = input_statistics(self.name)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.trunk, self._indices = trunk.network, trunk.indices
        table = level_table(config)
        self.channels = [config.channels(table[level].out) for level in levels]
        self.strides = [2**level for level in levels]
        self.project = nn.ModuleDict(
            {f"p{level}": ConvNormAct(c, out) for level, c, out in zip(trunk_levels, trunk.channels, self.channels)}
        )
        if len(trunk_levels) < len(levels):
            row = table[6]
            self.down_p6 = ConvNormAct(self.channels[-2], config.channels(row.down), 3, stride=2)
            self.stage_p6 = CSPStage(
                config.channels(row.down), self.channels[-1], config.repeats(2), row.inner, row.expansion
            )
        else:
            self.down_p6 = self.stage_p6 = None
        self.sppf = SPPF(self.channels[-1], residual=config.max_level == 5)
        self.attention = AttentionStage(self.channels[-1], config.repeats(2))
        places = dynamic_places(self.trunk, "backbone.trunk", is_ghost=is_ghostnet(self.trunk))
        self.convolution_patterns = with_neck_and_head(places, CONVOLUTION_PATTERNS)
        self.stem_parts = [f"trunk.{name}" for name in stem_modules(self.trunk)]  # for ``freeze``

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [project(x) for project, x in zip(self.project.values(), self.maps((images - self.mean) / self.std))]
        if self.down_p6 is not None and self.stage_p6 is not None:
            features.append(self.stage_p6(self.down_p6(features[-1])))
        features[-1] = self.attention(self.sppf(features[-1]))
        return features

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return the trunk's maps of normalized images ``x`` (B, 3, H, W), finest first."""
        if self._indices is None:
            return self.trunk(x)
        return self.trunk.forward_intermediates(x, self._indices, output_fmt="NCHW", intermediates_only=True)

    def fold_norms(self) -> list[str]:
        """Fold the normalization of the trunk into its convolutions, in place, and return the names of the convolutions."""
        size = 2 * self.trunk_strides[-1]
        return fold_norms(self.trunk, lambda: self.maps(torch.zeros_like(self.mean).expand(1, 3, size, size)))


def build_trunk(backbone: str, strides: list[int]) -> Trunk:
    """Build the trunk of ``backbone`` with new weights and without experts, for the maps of ``strides``."""
    if backbone.startswith("parameternet"):
        network = parameternet_trunk(backbone, strides)
        return Trunk(network, network.channels, None)
    return timm_trunk(backbone.removeprefix("timm/"), strides)


def input_statistics(backbone: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of the input, in 0..1 by channel, in the pretraining of ``backbone``."""
    if backbone.startswith("parameternet"):
        return MEAN, STD
    cfg = pretrained_cfg(backbone.removeprefix("timm/"))
    return cfg.mean, cfg.std


def trunk_strides(config: DetectorConfig) -> list[int]:
    """Return the strides of the maps that a detector takes from its trunk; 64 only if the trunk has such a map."""
    levels = range(config.min_level, config.max_level + 1)
    return [2**level for level in levels if level < 6 or 64 in _native_strides(config.backbone)]


def _native_strides(backbone: str) -> tuple[int, ...]:
    return () if backbone.startswith("parameternet") else tuple(timm_levels(architecture(backbone.removeprefix("timm/"))))


def is_ghostnet(trunk: Any) -> bool:
    """Return True for a GhostNet of version 1, which has the layers of a ParameterNet."""
    return isinstance(trunk, GhostTrunk) and type(trunk.blocks[-1][-1].ghost1).__name__ == "GhostModule"
