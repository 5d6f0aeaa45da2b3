"""Load a weights file into a detector, and report what happened to every weight."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from detector.dynamic import dynamic_layers, upcycle_state_dict
from detector.network.model import Detector, build_detector
from detector.network.replace.block_files import import_blocks
from detector.network.replace.entries import check_entries
from detector.network.replace.places import find_modules
from detector.text import plural
from detector.weights.infer import CLASS_TOWER_NORM
from detector.weights.info import Weights

CLASS_TOWER = re.compile(r"head\.one2(one|many)\.cls\..+")
LAST_CLASS_LAYER = re.compile(r"head\.one2(one|many)\.cls\.\d+\.4\.(weight|bias)")
ClassPairs = list[tuple[int, int]]  # (row in the detector, row in the file) of classes with the same name


@dataclass
class LoadReport:
    """The names of all weights, sorted by what happened to them.

    Each weight of the detector is in exactly one list from ``loaded`` to ``missing``; ``unexpected`` has those of the file
    that the detector lacks. A weight that is not loaded keeps its initial value. With two different backbones, the weights
    that only one of them has, on either side, are in ``other_backbone`` instead.
    """

    source: str
    loaded: list[str] = field(default_factory=list)  # as they are in the file
    upcycled: list[str] = field(default_factory=list)  # experts and routers made from a plain kernel
    copied_rows: list[str] = field(default_factory=list)  # last class layers, with the rows of the common classes
    rebuilt: list[str] = field(default_factory=list)  # class layers, not loaded because the classes are others
    mismatched: list[str] = field(default_factory=list)  # not loaded: of another shape in the file
    missing: list[str] = field(default_factory=list)  # not loaded: not in the file
    unexpected: list[str] = field(default_factory=list)  # in the file, but not in the detector
    other_backbone: list[str] = field(default_factory=list)  # not loaded: the file or the detector has another backbone
    known_classes: list[str] = field(default_factory=list)  # classes whose rows were copied
    new_classes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """True if every weight was used, except class layers of other classes."""
        return not (self.mismatched or self.missing or self.unexpected)

    def __str__(self) -> str:
        rows = (
            (self.loaded, "loaded as they are"),
            (self.upcycled, "experts and routers made from plain kernels"),
            (self.copied_rows, f"last class layers with the rows of {_first(self.known_classes)}"),
            (self.rebuilt, "class layers as initialized"),
            (self.mismatched, f"of another shape in the file, as initialized: {_first(self.mismatched)}"),
            (self.missing, f"not in the file, as initialized: {_first(self.missing)}"),
            (self.unexpected, f"in the file, but not in this detector: {_first(self.unexpected)}"),
            (self.other_backbone, f"of two different backbones, not loaded: {_first(self.other_backbone)}"),
        )
        lines = [f"{len(names):>6} {meaning}" for names, meaning in rows if names]
        if self.new_classes:
            lines.append(f"       new classes: {_first(self.new_classes)}")
        return "\n".join([f"weights of {self.source}", *lines])


def load_into(
    detector: Detector, weights: Weights, class_names: Sequence[str] | None = None, strict: bool = True
) -> LoadReport:
    """Load ``weights`` into ``detector``, in place, and return what happened to every weight.

    ``class_names`` are the classes of the detector (default: those of the weights). If they differ from those of the
    weights, the last class layers get the rows of the classes with the same name; their other rows keep their initial
    values. Plain kernels become experts where the layer of the detector is dynamic. If the weights are of a detector with
    another backbone, only the layers after it are loaded.

    Raises ValueError if anything else does not fit, and changes nothing then. With ``strict=False`` weights that do not fit
    keep their initial values instead.
    """
    report, values = _fit(detector, weights, class_names)
    if strict and not report.complete:
        raise ValueError(
            f"{report}\nthese weights do not fit this detector, so nothing was loaded; build the variant of the file, "
            f"{weights.info.variant}, or the dynamic one of its size, with the overrides {weights.info.overrides}"
        )
    detector.load_state_dict(values)
    return report


def build_from(weights: Weights) -> Detector:
    """Build the detector of ``weights`` and load them: on the CPU, in float32, in evaluation mode.

    Raises ValueError if the settings in the file make no detector, or one with more than twice the values of the file.
    """
    with torch.device("meta"):  # needs no memory: a damaged file may ask for a billion experts
        empty = _build(weights, plain=True)
    replaced = [
        name
        for entry in weights.info.overrides.get("replace") or []
        for where in entry["where"]
        for name in find_modules(empty, where)
    ]
    expected = sum(
        v.numel() for name, v in empty.state_dict().items() if not name.startswith(tuple(f"{n}." for n in replaced))
    )
    present = sum(v.numel() for v in weights.state_dict.values())
    if expected > 2 * present:
        raise ValueError(
            f"{weights.path}: its settings ({weights.info.variant}, {weights.info.overrides}) make a detector of "
            f"{expected:,} values, but it holds {present:,}; write the file again from its checkpoint"
        )
    detector = _build(weights)
    load_into(detector, weights)
    return detector.eval()


def _build(weights: Weights, plain: bool = False) -> Detector:
    """Build the detector of ``weights``, without the blocks of the user if ``plain``."""
    variant, overrides = weights.info.variant, dict(weights.info.overrides)
    entries = check_entries(overrides.pop("replace", None))
    try:
        if entries and not plain:
            overrides["replace"] = entries
            import_blocks(entries, weights.info.block_files)
        return build_detector(variant, weights.num_classes, **overrides)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{weights.path}: its settings ({variant}, {overrides}) make no detector: {error}") from error


def _fit(detector: Detector, weights: Weights, class_names: Sequence[str] | None) -> tuple[LoadReport, dict[str, Tensor]]:
    """Return the report of loading ``weights``, and the new state dict of ``detector``, which is not changed."""
    classes = plural(weights.num_classes, "class", "classes")
    report = LoadReport(f"{weights.path} ({weights.kind}; {weights.info.variant}, {classes})")
    initial = detector.state_dict()
    candidates = _upcycled(detector, weights.state_dict)
    pairs = _class_pairs(weights.info.class_names, class_names, weights.num_classes)
    file_rows = weights.num_classes
    if (
        pairs is not None
        and candidates.get(CLASS_TOWER_NORM, initial[CLASS_TOWER_NORM]).shape != initial[CLASS_TOWER_NORM].shape
    ):
        pairs, file_rows = [], None  # the rows are useless without the layers before them, which are of another width
    values = {}
    for name, value in initial.items():
        names, values[name] = _choose(report, name, value, candidates.get(name), pairs, file_rows)
        is_upcycled = names is report.loaded and values[name] is not weights.state_dict.get(name)
        (report.upcycled if is_upcycled else names).append(name)
    report.unexpected = [name for name in candidates if name not in initial]
    if detector.backbone.name != weights.info.overrides.get("backbone", "yolo26"):
        for names in (report.mismatched, report.missing, report.unexpected):
            report.other_backbone += [name for name in names if name.startswith("backbone.")]
            names[:] = [name for name in names if not name.startswith("backbone.")]
    if pairs is not None:
        report.known_classes = [class_names[row] for row, _ in pairs] if report.copied_rows else []
        report.new_classes = [name for name in class_names if name not in report.known_classes]
    return report, values


def _upcycled(detector: Detector, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state_dict`` with experts and routers in place of plain kernels where the layer of ``detector`` is dynamic.

    Kernels of a wrong shape stay as they are, to be reported as mismatched.
    """
    shapes = {f"{name}.weight": layer.kernel_shape for name, layer in dynamic_layers(detector).items()}
    mismatched = {name: value for name, value in state_dict.items() if tuple(value.shape) != shapes.get(name, value.shape)}
    fitting = {name: value for name, value in state_dict.items() if name not in mismatched}
    return upcycle_state_dict(detector, fitting) | mismatched


def _class_pairs(
    file_classes: Sequence[str] | None, classes: Sequence[str] | None, num_file_classes: int
) -> ClassPairs | None:
    """Return the pairs of the classes with the same name, or None if all classes are the same.

    Weights without class names count as having the same classes if they have as many.
    """
    if classes is None or list(classes) == file_classes or (file_classes is None and len(classes) == num_file_classes):
        return None
    file_classes = list(file_classes or [])
    return [(row, file_classes.index(name)) for row, name in enumerate(classes) if name in file_classes]


def _choose(
    report: LoadReport, name: str, initial: Tensor, new: Tensor | None, pairs: ClassPairs | None, file_rows: int | None
) -> tuple[list[str], Tensor]:
    """Return the list of ``report`` that the weight ``name`` belongs to, and its value: ``initial``, ``new`` or of both.

    The last class layers of the file have ``file_rows``, or None if its class layers are of another width.
    """
    if new is None:
        return report.missing, initial
    if pairs is None or not LAST_CLASS_LAYER.fullmatch(name):
        if new.shape == initial.shape:
            return report.loaded, new
        is_other_width = file_rows is None and CLASS_TOWER.fullmatch(name)  # depends on the number of classes
        return report.rebuilt if is_other_width else report.mismatched, initial
    if file_rows is None or initial.ndim == 2:  # 2: a dynamic last layer, whose rows are spread over the experts
        return report.rebuilt, initial
    if new.shape != (file_rows, *initial.shape[1:]):
        return report.mismatched, initial
    if not pairs:
        return report.rebuilt, initial
    rows, rows_in_file = (torch.tensor(side, device=initial.device) for side in zip(*pairs))
    return report.copied_rows, initial.index_copy(0, rows, new.to(initial).index_select(0, rows_in_file))


def _first(names: Sequence[str], number: int = 5) -> str:
    return ", ".join(names[:number]) + (f" and {len(names) - number} more" if len(names) > number else "")
