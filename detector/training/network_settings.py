"""The variant and the overrides of the network to train, from the settings and the initial weights."""

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, cast

from detector.network.classifier import Classifier
from detector.network.config import complete_overrides, merge_overrides
from detector.network.model import Detector
from detector.network.replace.entries import check_entries
from detector.weights import NONE, Weights
from detector.weights.backbone_files import PRETRAINED, read_backbone_file
from detector.weights.files import CLASSIFIER
from detector.weights.trunk import fit_trunk, trunk_of_classifier, trunk_of_detector


def start_file(source: str | Path | None, option: str = "weights") -> Weights | None:
    """Return the file of an earlier pre-training, whose variant and overrides are the defaults; None for other sources.

    ``option`` is the name of the setting that gave ``source``, for messages.
    """
    file = None if source in (None, PRETRAINED, NONE) else read_backbone_file(cast(Any, source), option)
    return None if file is None or file.info is None else Weights(file.state_dict, file.info, file.path, CLASSIFIER)


def check_start(network: Detector | Classifier, source: str | Path | None, option: str = "weights") -> None:
    """Raise ValueError if ``source``, as for ``start_file``, is the file of a pre-training whose backbone is another one.

    ``network`` may be on the device "meta": nothing is loaded.
    """
    file = None if source in (None, PRETRAINED, NONE) else read_backbone_file(cast(Any, source), option)
    if file is not None and file.info is not None:
        fit_trunk(trunk_of_detector(network) if isinstance(network, Detector) else trunk_of_classifier(network), file)


def variant_and_overrides(
    variant: str | None,
    overrides: dict[str, Any] | None,
    weights: Weights | None,
    num_classes: int,
    backbone: str | None = None,
    replace: list[dict[str, Any]] | None = None,
) -> tuple[str, dict[str, Any] | None]:
    """Return variant and overrides as plain values. The defaults are those of the initial ``weights``, if there are any.

    The overrides have all settings of dynamic layers, for checkpoints: the default of a variant may change. Raises
    ValueError for settings that make no network.
    """
    if variant is None:
        variant = "dyn_n" if weights is None else weights.info.variant
    overrides = {key: asdict(cast(Any, value)) if is_dataclass(value) else value for key, value in (overrides or {}).items()}
    if backbone not in (None, other := overrides.get("backbone", backbone)):
        raise ValueError(f"backbone is {backbone!r}, and overrides has the backbone {other!r}; give one of them")
    if replace is not None and "replace" in overrides:
        raise ValueError("replace is given twice, on its own and in overrides; give one of them")
    if weights is not None:
        overrides = merge_overrides(weights.overrides_for(variant, num_classes), overrides)
    if backbone is not None:
        overrides["backbone"] = backbone
    if overrides.get("backbone") == "yolo26":  # the default
        del overrides["backbone"]
    from_overrides = overrides.pop("replace", None)
    if entries := check_entries(from_overrides if replace is None else replace):
        overrides["replace"] = entries
    return variant, complete_overrides(variant, overrides) or None
