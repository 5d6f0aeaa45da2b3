"""The backbone: images -> one feature map per level."""

from typing import NamedTuple

from torch import Tensor, nn

from detector.network.blocks import SPPF, AttentionStage, ConvNormAct, CSPStage
from detector.network.config import CONVOLUTION_PATTERNS, DetectorConfig


class AnyBackbone(nn.Module):
    """What the other parts of a detector take from its backbone, which may be a foreign one."""

    name: str  # "yolo26" for our own
    channels: list[int]  # of the maps that ``forward`` returns, finest first
    strides: list[int]  # of these maps, in pixels
    convolution_patterns = CONVOLUTION_PATTERNS  # see Detector

    def fold_norms(self) -> list[str]:
        """Fold normalizations that no ``ConvNormAct`` has into convolutions, in place; return the names of these."""
        return []


class Backbone(AnyBackbone):
    """A strided stem, then on each level a strided convolution and a CSP stage; pooling and attention on the coarsest level.

    Shape: (B, 3, H, W) in 0..1 -> list of (B, channels[i], H / strides[i], W / strides[i]), finest first, for the levels
    ``config.min_level`` to ``config.max_level``. H and W must be multiples of the largest stride.
    """

    name = "yolo26"

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.levels = range(config.min_level, config.max_level + 1)
        self.max_level = config.max_level
        channels = {1: config.channels(64)}  # by level
        self.stem = ConvNormAct(3, channels[1], 3, stride=2)
        for level, (down, out, inner, expansion) in level_table(config).items():
            down, channels[level] = config.channels(down), config.channels(out)
            self.add_module(f"down_p{level}", ConvNormAct(channels[level - 1], down, 3, stride=2))
            self.add_module(f"stage_p{level}", CSPStage(down, channels[level], config.repeats(2), inner, expansion))
        top = channels[config.max_level]
        self.sppf = SPPF(top, residual=config.max_level == 5)
        self.attention = AttentionStage(top, config.repeats(2))
        self.channels = [channels[level] for level in self.levels]
        self.strides = [2**level for level in self.levels]

    def forward(self, images: Tensor) -> list[Tensor]:
        features = []
        x = self.stem(images)
        for level in range(2, self.max_level + 1):
            x = self.get_submodule(f"stage_p{level}")(self.get_submodule(f"down_p{level}")(x))
            if level == self.max_level:
                x = self.attention(self.sppf(x))
            if level in self.levels:
                features.append(x)
        return features


class LevelRow(NamedTuple):
    """Nominal channels of the strided convolution and of the stage of a level, kind of inner blocks, expansion."""

    down: int
    out: int
    inner: str
    expansion: float


def level_table(config: DetectorConfig) -> dict[int, LevelRow]:
    """Return the rows of the levels 2 to ``config.max_level``."""
    early = "c3k" if config.deep_early_stages else "bottleneck"
    p5 = 1024 if config.max_level == 5 else 768
    table = {
        2: LevelRow(128, 256, early, 0.25),
        3: LevelRow(256, 512, early, 0.25),
        4: LevelRow(512, 512, "c3k", 0.5),
        5: LevelRow(p5, p5, "c3k", 0.5),
        6: LevelRow(1024, 1024, "c3k", 0.5),
    }
    return {level: row for level, row in table.items() if level <= config.max_level}


def build_backbone(config: DetectorConfig) -> AnyBackbone:
    """Build the backbone that ``config`` names. timm is imported only for a foreign one."""
    if config.backbone == "yolo26":
        return Backbone(config)
    from detector.network.foreign.adapter import ForeignBackbone

    return ForeignBackbone(config)
