"""The table of variants: every number in which one detector differs from another."""

import json
import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

from detector.dynamic import DynamicConfig
from detector.dynamic.settings import Kind
from detector.network.replace.entries import Entry, check_entries
from detector.text import nearest_names, unknown_name

# Groups of convolutions that can be made dynamic (the field ``where`` of DynamicConfig), as regular expressions over the
# names of the modules of a Detector. They are in this package because the names are those of its parts.
CONVOLUTION_PATTERNS = {
    "backbone-bottlenecks": r"backbone\.stage_p\d\.blocks\..*conv[12]\.conv",  # 3x3
    "neck-bottlenecks": r"neck\.(top_down|bottom_up)\.\d\.blocks\..*conv[12]\.conv",  # 3x3
    "downsample": r"backbone\.down_p\d\.conv",  # 3x3, stride 2
    "pointwise": r"(backbone\.stage_p\d|neck\.(top_down|bottom_up)\.\d)(\.blocks\.\d)?\.(split|merge|main|side)\.conv",
    # The rule of ParameterNet. Not the convolution of the stem, nor the last ones of the head, which have no normalization.
    "all": r"(?!backbone\.stem\.).*\.conv",
}

# ParameterNets (arXiv:2306.14525): the two of the paper, and two smaller ones. "_plain" after a name: without experts.
PARAMETERNETS = ("parameternet_300m", "parameternet_600m", "parameternet_w100", "parameternet_w050")


@dataclass(frozen=True)
class DetectorConfig:
    """Sizes of a YOLO26 detector. Level p<i> has a stride of 2**i pixels."""

    depth: float  # factor of the number of inner blocks in a stage
    width: float  # factor of the number of channels
    max_channels: int  # upper limit of nominal channels, before the factor
    deep_early_stages: bool = False  # C3k instead of plain bottlenecks in the stages p2 and p3
    min_level: int = 3  # finest level that the head uses: 2 or 3
    max_level: int = 5  # coarsest level, the last of the backbone: 5 or 6
    class_channels: int | None = None  # channels of the class towers; None: see ``default_class_channels`` in head.py
    dynamic: DynamicConfig | None = None  # None: all convolutions are plain
    backbone: str = "yolo26"  # or "timm/NAME[.TAG]", a network of timm, or one of PARAMETERNETS
    replace: list[Entry] | None = None  # blocks of the user in place of modules, see detector/network/replace

    def __post_init__(self) -> None:
        if self.min_level not in (2, 3) or self.max_level not in (5, 6):
            raise ValueError(
                f"levels p{self.min_level} to p{self.max_level} are not supported; min_level is 2 or 3, max_level 5 or 6"
            )
        for name, factor in (("depth", self.depth), ("width", self.width)):
            if not isinstance(factor, int | float) or not 0 < factor <= 10:
                raise ValueError(f"{name} is {factor!r}; expected a number above 0, at most 10")
        limits = {"max_channels": self.max_channels}
        if self.class_channels is not None:
            limits["class_channels"] = self.class_channels
        for name, channels in limits.items():
            if not isinstance(channels, int) or channels < 1:
                raise ValueError(f"{name} is {channels!r}; expected a whole number above 0")
        if self.dynamic is not None and not isinstance(self.dynamic, DynamicConfig):
            example = self.dynamic if self.dynamic in get_args(Kind) else "omni"
            raise ValueError(f"dynamic is {self.dynamic!r}; expected fields of DynamicConfig, as {{'kind': {example!r}}}")
        _check_backbone_name(self.backbone)
        check_entries(self.replace)

    def channels(self, nominal: int) -> int:
        """Return the number of channels of a layer of ``nominal`` channels: limited, scaled, a multiple of 8."""
        return math.ceil(min(nominal, self.max_channels) * self.width / 8) * 8

    def repeats(self, nominal: int) -> int:
        """Return the number of inner blocks of a stage of ``nominal`` blocks: scaled if above 1, and at least 1."""
        return max(round(nominal * self.depth), 1) if nominal > 1 else nominal


def _check_backbone_name(name: str) -> None:
    """Raise ValueError if ``name`` cannot be a backbone. Whether timm has the network is checked when it is built."""
    our_names = ("yolo26", *PARAMETERNETS)
    if isinstance(name, str) and (name.removesuffix("_plain") in our_names[1:] or name == our_names[0]):
        return
    if not isinstance(name, str) or not re.fullmatch(r"timm/\w+(\.[\w.-]+)?", name):
        raise ValueError(
            f"backbone is {name!r}; expected {', '.join(our_names)}, or a network of timm, as in timm/hgnetv2_b0 or "
            f"timm/hgnetv2_b0.ssld_stage1_in22k_in1k{_backbone_hint(name, our_names)}"
        )


def _backbone_hint(name: str, our_names: tuple[str, ...]) -> str:
    """Return a question with the backbone that was meant: one of ``own`` with a similar name, else a network of timm."""
    if not isinstance(name, str) or not (match := re.fullmatch(r"(?:timm[/.:])?(\w+(\.[\w.-]+)?)", name, re.IGNORECASE)):
        return ""
    near = nearest_names(name, our_names)
    return f"; did you mean {' or '.join(near) if near else f'timm/{match[1]}'}?"


_DYNAMIC_FIELDS = [field.name for field in fields(DynamicConfig)]
_SCALES = {
    "n": DetectorConfig(depth=0.5, width=0.25, max_channels=1024),
    "s": DetectorConfig(depth=0.5, width=0.5, max_channels=1024),
    "m": DetectorConfig(depth=0.5, width=1.0, max_channels=512, deep_early_stages=True),
    "l": DetectorConfig(depth=1.0, width=1.0, max_channels=512, deep_early_stages=True),
    "x": DetectorConfig(depth=1.0, width=1.5, max_channels=512, deep_early_stages=True),
}
# The dynamic layers of dyn_*. This is the one place to change them: files name the settings that they were made with.
_DYNAMIC = DynamicConfig(kind="mixture")
_BEFORE_KINDS = {"kind": "mixture", "where": "backbone-bottlenecks"}  # defaults of versions that had no other kind
VARIANTS: dict[str, DetectorConfig] = (
    {f"yolo26_{scale}": config for scale, config in _SCALES.items()}
    | {f"yolo26_{scale}-p2": replace(config, min_level=2) for scale, config in _SCALES.items()}  # for small objects
    | {f"yolo26_{scale}-p6": replace(config, max_level=6) for scale, config in _SCALES.items()}  # for large images
    | {f"dyn_{scale}": replace(config, dynamic=_DYNAMIC) for scale, config in _SCALES.items()}
)


def detector_config(variant: str, **overrides: Any) -> DetectorConfig:
    """Return the configuration of ``variant`` with ``overrides`` of its fields; ``dynamic`` may be a plain dict.

    Fields of ``dynamic`` that the dict does not have are those of the variant, if the kind is the same. A ParameterNet has
    mixtures by default, as published, in every variant. Raises ValueError for an unknown variant or field.
    """
    if variant not in VARIANTS:
        raise ValueError(unknown_name("variant", variant, VARIANTS))
    known = [field.name for field in fields(DetectorConfig)]
    if unknown := [name for name in overrides if name not in known]:
        raise ValueError(unknown_name("override", unknown[0], known + [f"dynamic.{name}" for name in _DYNAMIC_FIELDS]))
    config = VARIANTS[variant]
    default = DynamicConfig() if has_own_experts(overrides.get("backbone", config.backbone)) else config.dynamic
    if config.dynamic is not None:
        overrides.setdefault("dynamic", default)
    if isinstance(dynamic := overrides.get("dynamic"), dict):
        try:
            overrides["dynamic"] = _complete(dynamic, default or DynamicConfig())
        except ValueError as error:
            raise ValueError(f"dynamic: {error}") from None
    return replace(config, **overrides)


def has_own_experts(backbone: Any) -> bool:
    """Return True for a ParameterNet, which has dynamic layers of its own."""
    return backbone in PARAMETERNETS


def _complete(dynamic: dict[str, Any], default: DynamicConfig) -> DynamicConfig:
    """Return the settings ``dynamic``. The others are those of ``default``, or of the kind if it is another kind."""
    if unknown := [name for name in dynamic if name not in _DYNAMIC_FIELDS]:
        raise ValueError(unknown_name("field", unknown[0], _DYNAMIC_FIELDS))
    if dynamic.get("kind", default.kind) != default.kind:
        return DynamicConfig(**{"where": default.where} | dynamic)
    of_kind = DynamicConfig(kind=default.kind)
    # Only what differs from the kind: the default of a field can depend on other fields, as that of router_norm on router.
    own = {name: getattr(default, name) for name in _DYNAMIC_FIELDS if getattr(default, name) != getattr(of_kind, name)}
    return DynamicConfig(**own | {"kind": default.kind} | dynamic)


def complete_overrides(variant: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``overrides`` with all settings of dynamic layers, for a file: the default of the variant may change.

    Raises ValueError as ``detector_config``.
    """
    dynamic = detector_config(variant, **overrides).dynamic
    return dict(overrides) if dynamic is None else {**overrides, "dynamic": dynamic.to_dict()}


def network_options(variant: str, overrides: Mapping[str, Any]) -> str:
    """Return the options of train.py that make the network of ``variant`` with ``overrides``: only those that are needed."""
    backbone = overrides.get("backbone", "yolo26")
    base = detector_config(variant, backbone=backbone)
    given = {name: value for name, value in overrides.items() if name not in ("backbone", "replace")}
    if base.dynamic is not None and isinstance(dynamic := given.get("dynamic"), dict):
        defaults = base.dynamic.to_dict()
        changes = {name: value for name, value in dynamic.items() if defaults.get(name) != value}
        short, full = (detector_config(variant, backbone=backbone, dynamic=d).dynamic for d in (changes, dynamic))
        given["dynamic"] = changes if short == full else dynamic
    given = {name: value for name, value in given.items() if value not in ({}, getattr(base, name))}
    words = ["--model.variant", variant]
    words += ["--model.backbone", backbone] if backbone != "yolo26" else []
    words += ["--model.overrides", json.dumps(given)] if given else []
    words += ["--model.replace", json.dumps(overrides["replace"])] if overrides.get("replace") else []
    return shlex.join(words)


def saved_overrides(variant: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``overrides`` in a file, with all settings of dynamic layers.

    Files of earlier versions do not name the kind of their dynamic layers: these are mixtures. Raises ValueError as
    ``detector_config``.
    """
    is_dynamic = variant in VARIANTS and VARIANTS[variant].dynamic is not None
    dynamic = overrides.get("dynamic", {} if is_dynamic else None)
    if isinstance(dynamic, dict) and "kind" not in dynamic:
        overrides = {**overrides, "dynamic": _BEFORE_KINDS | dynamic}
    return complete_overrides(variant, overrides)


def merge_overrides(saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides ``saved`` in a file, replaced by ``given`` ones.

    Fields of ``dynamic`` are replaced one by one, unless ``given`` has another kind.
    """
    merged, dynamic, changes = {**saved, **given}, saved.get("dynamic"), given.get("dynamic")
    if isinstance(dynamic, dict) and isinstance(changes, dict) and _same_kind(dynamic, changes):
        merged["dynamic"] = dynamic | changes
    return merged


def _same_kind(saved: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    return given.get("kind", saved.get("kind")) == saved.get("kind")


def nested_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``overrides`` with "dynamic.kind", as a command line gives it, as the field ``kind`` of ``dynamic``."""
    nested = {name: value for name, value in overrides.items() if not name.startswith("dynamic.")}
    given = {name.removeprefix("dynamic."): value for name, value in overrides.items() if name not in nested}
    return nested | {"dynamic": (nested.get("dynamic") or {}) | given} if given else nested
