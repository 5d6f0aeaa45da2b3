"""The table of variants: every number that tells one model from another."""

import math
from dataclasses import dataclass, replace
from typing import Any

from detector.dynamic.convert import DynamicConfig


@dataclass(frozen=True)
class DetectorConfig:
    """Sizes of a YOLO26 detector. Level p<i> has the stride 2**i."""

    depth: float  # multiplies repeat counts above 1
    width: float  # multiplies channels
    max_channels: int  # cap on nominal channels, before the width
    deep_early_stages: bool = False  # C3k instead of plain bottlenecks in the stages p2 and p3
    min_level: int = 3  # finest level with a head
    max_level: int = 5  # coarsest level, and the depth of the backbone
    class_channels: int | None = None  # width of the class towers; None: of the finest level, or the class count up to 100
    dynamic: DynamicConfig | None = None

    def __post_init__(self) -> None:
        if self.min_level not in (2, 3) or self.max_level not in (5, 6):
            raise ValueError(
                f"levels p{self.min_level} to p{self.max_level} are not supported; min_level is 2 or 3, max_level 5 or 6"
            )
        if not (0 < self.depth <= 10 and 0 < self.width <= 10):
            raise ValueError(f"depth is {self.depth} and width {self.width}; expected numbers above 0, 10 at most")

        for name, kinds in (("depth", int | float), ("width", int | float), ("max_channels", int), ("class_channels", int)):
            value = getattr(self, name)
            if value is None and name == "class_channels":
                continue
            if not isinstance(value, kinds) or not 0 < value < math.inf:
                raise ValueError(f"{name} is {value!r}; expected a number above 0")
        if self.dynamic is not None and not isinstance(self.dynamic, DynamicConfig):
            raise ValueError(f"dynamic is {self.dynamic!r}; expected the fields of DynamicConfig, e.g. {{'num_experts': 8}}")

    def channels(self, nominal: int) -> int:
        """Return the actual channel count of a layer of ``nominal`` channels: capped, scaled, a multiple of 8."""
        return -int(-(min(nominal, self.max_channels) * self.width) // 8) * 8

    def repeats(self, nominal: int) -> int:
        """Return how many inner blocks a stage of ``nominal`` blocks has."""
        return max(round(nominal * self.depth), 1) if nominal > 1 else nominal


def _variants() -> dict[str, DetectorConfig]:
    scales = {
        "n": DetectorConfig(depth=0.5, width=0.25, max_channels=1024),
        "s": DetectorConfig(depth=0.5, width=0.5, max_channels=1024),
        "m": DetectorConfig(depth=0.5, width=1.0, max_channels=512, deep_early_stages=True),
        "l": DetectorConfig(depth=1.0, width=1.0, max_channels=512, deep_early_stages=True),
        "x": DetectorConfig(depth=1.0, width=1.5, max_channels=512, deep_early_stages=True),
    }
    plain = {f"yolo26_{scale}": config for scale, config in scales.items()}
    small_objects = {f"yolo26_{scale}-p2": replace(config, min_level=2) for scale, config in scales.items()}
    large_images = {f"yolo26_{scale}-p6": replace(config, max_level=6) for scale, config in scales.items()}
    dynamic = {f"dyn_{scale}": replace(config, dynamic=DynamicConfig()) for scale, config in scales.items()}
    return plain | small_objects | large_images | dynamic


VARIANTS = _variants()


def detector_config(variant: str, **overrides: Any) -> DetectorConfig:
    """Return the row of ``variant`` with ``overrides`` of its fields; ``dynamic`` may be a plain dict."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; choose one of {', '.join(VARIANTS)}")
    if isinstance(overrides.get("dynamic"), dict):
        overrides["dynamic"] = DynamicConfig(**overrides["dynamic"])
    return replace(VARIANTS[variant], **overrides)
