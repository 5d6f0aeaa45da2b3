"""From a weights file into a detector, with every single weight accounted for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from detector.dynamic.conv2d import dynamic_layers
from detector.dynamic.convert import upcycle_state_dict
from detector.network.model import Detector, build_detector
from detector.text import plural
from detector.weights.infer import CLASS_WIDTH
from detector.weights.info import Weights

CLASS_TOWER = re.compile(r"head\.one2(one|many)\.cls\..+")
LAST_CLASS_LAYER = re.compile(r"head\.one2(one|many)\.cls\.\d+\.4\.(weight|bias)")


@dataclass
class LoadReport:
    """What became of every weight: each of the detector's is in exactly one of the lists before ``unexpected``."""

    source: str
    loaded: list[str] = field(default_factory=list)  # as they are in the file
    upcycled: list[str] = field(default_factory=list)  # experts and routers made from a plain kernel
    copied_rows: list[str] = field(default_factory=list)  # last class layers, with the rows of the classes known to both
    rebuilt: list[str] = field(default_factory=list)  # class layers, as initialized because the classes are others
    mismatched: list[str] = field(default_factory=list)  # as initialized: of another shape in the file
    missing: list[str] = field(default_factory=list)  # as initialized: not in the file
    unexpected: list[str] = field(default_factory=list)  # in the file, but not in the detector
    known_classes: list[str] = field(default_factory=list)  # whose rows were copied
    new_classes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing was left out but what other classes explain."""
        return not (self.mismatched or self.missing or self.unexpected)

    def __str__(self) -> str:
        rows = (
            (self.loaded, "loaded as they are"),
            (self.upcycled, "experts and routers made from plain kernels"),
            (self.copied_rows, f"last class layers with the rows of {_some(self.known_classes)}"),
            (self.rebuilt, "class layers as initialized"),
            (self.mismatched, f"of another shape in the file, as initialized: {_some(self.mismatched)}"),
            (self.missing, f"not in the file, as initialized: {_some(self.missing)}"),
            (self.unexpected, f"in the file, but not in this detector: {_some(self.unexpected)}"),
        )
        lines = [f"{len(names):>6} {meaning}" for names, meaning in rows if names]
        if self.new_classes:
            lines.append(f"       new classes: {_some(self.new_classes)}")
        return "\n".join([f"weights of {self.source}", *lines])


def load_into(
    detector: Detector, weights: Weights, class_names: Sequence[str] | None = None, strict: bool = True
) -> LoadReport:
    """Put ``weights`` into ``detector``, in place, and return what became of every one of them.

    ``class_names`` are the detector's classes (default: those of the weights). If they differ from those of the weights,
    the last class layers keep their initial values but for the rows of classes with the same name. Plain kernels become
    experts where the detector's layer is dynamic. Raises ValueError if anything else does not fit, unless ``strict`` is
    False: then such weights keep their initial values and are listed. Nothing is changed if it raises.
    """
    own = detector.state_dict()
    given = _upcycled(detector, weights.state_dict)
    report = LoadReport(
        f"{weights.path} ({weights.kind}; {weights.info.variant}, {plural(weights.num_classes, 'class', 'classes')})"
    )
    pairs = _class_pairs(weights.info.class_names, class_names, weights.num_classes)
    if pairs and CLASS_WIDTH in given and own[CLASS_WIDTH].shape != given[CLASS_WIDTH].shape:
        pairs = []  # rows are of no use without the layers before them
    taken = {}
    for name, old in own.items():
        kind, taken[name] = _choose(name, old, given.get(name), pairs)
        if kind == "loaded" and given[name] is not weights.state_dict.get(name):
            kind = "upcycled"
        getattr(report, kind).append(name)
    report.unexpected = [name for name in given if name not in own]
    if pairs is not None:
        report.known_classes = [class_names[row] for row, _ in pairs] if report.copied_rows else []
        report.new_classes = [name for name in class_names if name not in report.known_classes]
    if strict and not report.complete:
        raise ValueError(
            f"{report}\nthese weights do not fit this detector, so nothing was loaded; build the variant of the file, "
            f"{weights.info.variant}, or the dynamic one of its size, with the overrides {weights.info.overrides}"
        )
    detector.load_state_dict(taken)
    return report


def build_from(weights: Weights) -> Detector:
    """Return the detector that ``weights`` are of, on the CPU in float32, in evaluation mode.

    Raises ValueError if the settings in the file make no detector, or a much larger one than its weights would fill.
    """
    with torch.device("meta"):  # where size costs nothing: a file may ask for a billion experts
        sketch = _build(weights)
    wanted, there = (sum(w.numel() for w in tensors.values()) for tensors in (sketch.state_dict(), weights.state_dict))
    if wanted > 2 * there:
        raise ValueError(
            f"{weights.path}: its settings ({weights.info.variant}, {weights.info.overrides}) make a detector of {wanted:,} "
            f"numbers, but it holds {there:,}; write the file again from its checkpoint"
        )
    detector = _build(weights)
    load_into(detector, weights)
    return detector.eval()


def _build(weights: Weights) -> Detector:
    variant, overrides = weights.info.variant, weights.info.overrides
    try:
        return build_detector(variant, weights.num_classes, **overrides)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{weights.path}: its settings ({variant}, {overrides}) make no detector: {error}") from error


def _upcycled(detector: Detector, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state_dict`` with experts and routers where the detector's layer is dynamic and the kernel a plain one.

    Kernels of another shape are passed on as they are, to be reported with all others that do not fit.
    """
    shapes = {f"{name}.weight": layer.kernel_shape for name, layer in dynamic_layers(detector).items()}
    misfits = {name: value for name, value in state_dict.items() if tuple(value.shape) != shapes.get(name, value.shape)}
    return upcycle_state_dict(detector, {k: v for k, v in state_dict.items() if k not in misfits}) | misfits


def _class_pairs(theirs: Sequence[str] | None, ours: Sequence[str] | None, num_theirs: int) -> list[tuple[int, int]] | None:
    """Return (our row, their row) of the classes with the same name, or None if all classes are the same.

    Classes without names count as the same if there are as many.
    """
    if ours is None or list(ours) == theirs or (theirs is None and len(ours) == num_theirs):
        return None
    theirs = list(theirs or [])
    return [(row, theirs.index(name)) for row, name in enumerate(ours) if name in theirs]


def _choose(name: str, old: Tensor, new: Tensor | None, pairs: list[tuple[int, int]] | None) -> tuple[str, Tensor]:
    """Return what becomes of the weight ``name``, as a field of LoadReport, and its value; ``old`` is its value now."""
    if new is None:
        return "missing", old
    if pairs is None or not LAST_CLASS_LAYER.fullmatch(name):
        if new.shape == old.shape:
            return "loaded", new
        return ("mismatched" if pairs is None or not CLASS_TOWER.fullmatch(name) else "rebuilt"), old
    if not pairs or old.ndim == 2:  # a dynamic last layer: its rows are spread over the experts
        return "rebuilt", old
    if new.shape[1:] != old.shape[1:] or len(new) <= max(row for _, row in pairs):
        return "mismatched", old
    rows, their_rows = (torch.tensor(side, device=old.device) for side in zip(*pairs))
    return "copied_rows", old.index_copy(0, rows, new.to(old).index_select(0, their_rows))


def _some(names: Sequence[str], number: int = 5) -> str:
    return ", ".join(names[:number]) + (f" and {len(names) - number} more" if len(names) > number else "")
