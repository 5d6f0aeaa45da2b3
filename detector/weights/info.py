"""Facts about weights: variant, classes, input size, license, provenance, metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from detector.weights.infer import LAST_CLASS_BIAS, class_channels_override, num_classes

TRAINING_CHECKPOINT = "training checkpoint"  # a kind of file


@dataclass(frozen=True)
class WeightsInfo:
    """The facts about weights besides their values. A fact that the file does not give is None or empty."""

    variant: str
    overrides: dict[str, Any] = field(default_factory=dict)  # fields of DetectorConfig that differ from the variant
    class_names: list[str] | None = None
    category_ids: list[int] | None = None  # the id of each class in the annotations of the training
    image_size: tuple[int, int] | None = None  # height, width of the network input
    license: str | None = None  # of the weights; weights trained from others keep the license of those
    provenance: str = ""  # the origin of the weights, and of those that their training started from
    metrics: dict[str, float] = field(default_factory=dict)  # COCO metrics of the last validation, e.g. "val/AP"
    # The score threshold of the best F1 in the last validation, at IoU 0.5, by branch; None if no detection was right.
    best_f1_thresholds: dict[str, float | None] = field(default_factory=dict)
    sixteen_bit_range: tuple[int, int] | None = None  # values of 16-bit images that became 0..255; None: all 16 bits
    # The files of the user's own blocks in training: module -> path and sha256, see detector/network/replace/block_files.py.
    block_files: dict[str, dict[str, str]] = field(default_factory=dict)
    temperature: float = 1.0  # of experts' weights in the last validation: above 1 only early in a training

    def describe_best_f1(self, branch: str) -> str:
        """Return the threshold of the best F1 of ``branch`` as text, or the reason why there is none."""
        if (threshold := self.best_f1_thresholds.get(branch)) is not None:
            return str(threshold)
        if branch in self.best_f1_thresholds:
            return "none, because no detection was right in the last validation"
        if self.metrics or self.best_f1_thresholds:
            return f"unknown, because the file has none for the branch {branch}"  # not evaluated, or an earlier version
        return "unknown, because the file records no validation"


@dataclass(frozen=True)
class Weights:
    """Weights under our names, in the precision of the file."""

    state_dict: dict[str, Tensor]
    info: WeightsInfo
    path: Path
    kind: str  # of file, for messages

    @property
    def is_checkpoint(self) -> bool:
        """True for a training checkpoint of this project: a run can be resumed from it."""
        return self.kind == TRAINING_CHECKPOINT

    @property
    def num_classes(self) -> int:
        """The number of classes: of their names if a block of the user has replaced the class tower that shows it."""
        if LAST_CLASS_BIAS not in self.state_dict and self.info.overrides.get("replace") and self.info.class_names:
            return len(self.info.class_names)
        return num_classes(self.state_dict)

    def overrides_for(self, variant: str, num_classes: int) -> dict[str, Any]:
        """Return the overrides of a detector of ``variant`` for ``num_classes`` that can load these weights.

        Its class towers are as wide as those of the weights; by default the width depends on the number of classes. The
        backbone is that of the weights, too, also in a detector of another variant. The temperature of the training that
        made the weights is left out.
        """
        overrides = dict(self.info.overrides)
        if variant != self.info.variant:
            overrides = {key: value for key, value in overrides.items() if key == "backbone"}
        if isinstance(overrides.get("dynamic"), dict):
            overrides["dynamic"] = overrides["dynamic"] | {"temperature": 1.0}
        others = {key: value for key, value in overrides.items() if key != "class_channels"}
        return others | class_channels_override(self.state_dict, num_classes)


def saved_license(facts: Mapping[str, Any]) -> Any:
    """Return the license in the ``weights_info`` of a checkpoint, or in the metadata of a safetensors file, or None.

    Older files have it under the key "licence".
    """
    return facts.get("license", facts.get("licence"))
