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
    data_license: str | None = None  # of the images of the pre-training that the weights started from
    data_provenance: str | None = None  # the origin of these images

    @property
    def images_of_pretraining(self) -> str | None:
        """The origin and the license of the images of the pre-training, as text; None if nothing is known of them."""
        facts = (self.data_provenance, self.data_license and f"license {self.data_license}")
        return ", ".join(fact for fact in facts if fact) or None

    @property
    def temperature_note(self) -> str | None:
        """A sentence for a training that starts from weights with a ``temperature``; None if they have none."""
        if self.temperature == 1:
            return None
        return (
            f"these weights are from early in a training, with experts at a temperature of {self.temperature:.3g}; this one "
            f"starts at model.overrides.dynamic.temperature, by default 1: give {self.temperature:.3g} to go on from there"
        )

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
class Origin:
    """What training started from: the license and the provenance of the weights, and of the images of their pre-training.

    All are None if it started from scratch.
    """

    license: str | None = None
    started_from: str | None = None
    data_license: str | None = None
    data_provenance: str | None = None

    def joined(self, other: "Origin") -> "Origin":
        """Return the origin of weights that come from both. Parts that are the same are named once."""
        return Origin(
            join_facts(" AND ", self.license, other.license),
            join_facts("; ", self.started_from, other.started_from),
            join_facts(" AND ", self.data_license, other.data_license),
            join_facts("; ", self.data_provenance, other.data_provenance),
        )

    def to_dict(self) -> dict[str, str | None]:
        """Return the facts for a checkpoint; those about images only if they are known."""
        facts = {"license": self.license, "started_from": self.started_from}
        about_data = {"data_license": self.data_license, "data_provenance": self.data_provenance}
        return facts | {name: value for name, value in about_data.items() if value is not None}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> "Origin":
        """Return the origin in the ``weights_info`` of a checkpoint."""
        names = ("started_from", "data_license", "data_provenance")
        return cls(saved_license(facts), *(facts.get(name) for name in names))


def join_facts(separator: str, *facts: str | None) -> str | None:
    """Return ``facts`` joined by ``separator``, which may be in them already; each part once, and None if there is none."""
    return separator.join(dict.fromkeys(part for fact in facts if fact for part in fact.split(separator))) or None


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
