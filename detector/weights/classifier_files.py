"""Read and write the classifiers of pre-training: checkpoints and safetensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from detector.files import atomic_write
from detector.weights.files import (
    CLASSIFIER,
    as_saved,
    check_tensors,
    info_of_checkpoint,
    info_of_metadata,
    metadata,
    with_checked_types,
    with_saved_overrides,
    without_prefix,
)
from detector.weights.info import WeightsInfo
from detector.weights.safe_load import load_torch_file

NETWORK = "network."  # before the names of the weights in a Classifier


class ClassifierContent(NamedTuple):
    """A classifier of pre-training: weights under the names of ``Classifier.network``, facts, statistics of the input."""

    state_dict: dict[str, Tensor]
    info: WeightsInfo
    statistics: dict[str, list[float]]  # "mean" and "std", three values each; empty for our own backbone

    @property
    def backbone(self) -> str:
        """The name of the backbone, as in ``DetectorConfig``."""
        return self.info.overrides.get("backbone", "yolo26")


def is_classifier_checkpoint(content: Any) -> bool:
    """Return True for the content of a checkpoint of ClassifierModule."""
    facts = content.get("weights_info") if isinstance(content, Mapping) else None
    return isinstance(facts, Mapping) and facts.get("kind") == CLASSIFIER


def is_classifier_file(path: Path) -> bool:
    """Return True for a checkpoint or safetensors file of a classifier of pre-training; False for all others."""
    if not path.is_file():
        return False
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return (file.metadata() or {}).get("kind") == CLASSIFIER
        return is_classifier_checkpoint(load_torch_file(path))
    except (SafetensorError, ValueError):
        return False


def has_experts(state_dict: Mapping[str, Tensor]) -> bool:
    """Return True if the weights have dynamic layers."""
    return any(".router." in name for name in state_dict)


def classifier_of_checkpoint(content: Mapping[str, Any]) -> ClassifierContent:
    """Return the (averaged) classifier in a checkpoint. Raises ValueError if it is damaged."""
    settings = content.get("hyper_parameters") or {}
    if missing := [name for name in ("variant", "class_names") if name not in settings]:
        raise ValueError(f"its hyper_parameters have no {missing[0]}; get it again")
    weights = without_prefix(content.get("state_dict") or {})
    info = info_of_checkpoint(settings, content["weights_info"])
    state_dict = {name.removeprefix(NETWORK): value for name, value in weights.items() if name.startswith(NETWORK)}
    statistics: dict[str, list[float]] = {n: _six_digits(weights[n]) for n in ("mean", "std") if n in weights}
    return _checked(state_dict, info, statistics)


def _six_digits(values: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.flatten().tolist()]


def classifier_of_safetensors(
    entries: dict[str, str], state_dict: dict[str, Tensor], statistics: dict[str, list[float]]
) -> ClassifierContent:
    """Return the classifier that ``save_classifier`` wrote; ``entries`` are the metadata of the file."""
    return _checked(state_dict, info_of_metadata(entries), statistics)


def _checked(state_dict: dict[str, Tensor], info: WeightsInfo, statistics: dict[str, list[float]]) -> ClassifierContent:
    info = with_saved_overrides(with_checked_types(info))
    if not info.class_names:
        raise ValueError("names no classes; get it again")
    check_tensors(state_dict, info)
    content = ClassifierContent(state_dict, info, statistics)
    if content.backbone.startswith("parameternet"):
        from detector.network.foreign.parameternet import converted_names

        content = content._replace(state_dict=converted_names(state_dict))
    return content if content.backbone != "yolo26" else content._replace(statistics={})


def save_classifier(path: str | Path, content: ClassifierContent, dtype: torch.dtype = torch.float32) -> None:
    """Write a classifier as ``.safetensors``, floating-point values as ``dtype``; an existing file is replaced.

    A network of timm has timm's names, a ParameterNet those of the official code, and our own backbone ours. The metadata
    have the facts of ``WeightsInfo``; ``kind``; ``architecture``, the name of the network; and mean and std of its input.
    Raises ValueError if a value is too large for ``dtype``.
    """
    state_dict = content.state_dict
    if content.backbone.startswith("parameternet"):
        from detector.network.foreign.parameternet import official_names

        state_dict = official_names(state_dict)
    architecture = content.info.variant if content.backbone == "yolo26" else content.backbone.removeprefix("timm/")
    statistics = {name: ", ".join(f"{value:.6g}" for value in values) for name, values in content.statistics.items()}
    entries = metadata(content.info) | {"kind": CLASSIFIER, "architecture": architecture} | statistics
    with atomic_write(Path(path)) as unfinished:
        unfinished.write_bytes(save(as_saved(state_dict, dtype), entries))
