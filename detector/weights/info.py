"""Facts about weights: variant, classes, input size, license, provenance."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from detector.weights.infer import _class_channels, _num_classes

OWN_CHECKPOINT = "checkpoint of ours"  # the kind of weights that come with all that it takes to resume or evaluate a run


@dataclass(frozen=True)
class WeightsInfo:
    """What is known about weights besides their values. Where a file does not say, a field is None."""

    variant: str
    overrides: dict[str, Any] = field(default_factory=dict)  # fields of DetectorConfig that differ from the variant
    class_names: list[str] | None = None
    category_ids: list[int] | None = None  # the id of each class in the annotations that were trained on
    image_size: tuple[int, int] | None = None  # height, width of the network input
    license: str | None = None  # of the weights; weights that start from others keep theirs
    provenance: str = ""  # where the weights come from, and what those they started from come from
    metrics: dict[str, float] = field(default_factory=dict)  # COCO numbers of the last evaluation, e.g. "val/AP"


@dataclass(frozen=True)
class Weights:
    """Weights under our names, in the precision of the file they were read from."""

    state_dict: dict[str, Tensor]
    info: WeightsInfo
    path: Path
    kind: str  # of file, for people

    @property
    def num_classes(self) -> int:
        """The number of classes that the weights tell apart."""
        return _num_classes(self.state_dict)

    def overrides_for(self, variant: str, num_classes: int) -> dict[str, Any]:
        """Return the overrides with which a detector of ``variant`` for ``num_classes`` can take these weights.

        Class towers keep their width, which by default depends on the number of classes.
        """
        own = {key: value for key, value in self.info.overrides.items() if key != "class_channels"}
        return (own if variant == self.info.variant else {}) | _class_channels(self.state_dict, num_classes)
