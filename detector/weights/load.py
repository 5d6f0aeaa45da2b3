"""Load a weights file into a detector, and report what happened to every weight."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from detector.dynamic import dynamic_layers, upcycle_state_dict
from detector.dynamic.temperature import set_temperature
from detector.network.model import Detector, build_detector
from detector.network.replace.block_files import import_blocks
from detector.network.replace.entries import check_entries
from detector.network.replace.parts import ReplacedPart
from detector.network.replace.places import matching_modules, without_nested
from detector.text import plural
from detector.weights.infer import CLASS_TOWER_NORM
from detector.weights.info import Weights
from detector.weights.new_parts import move_names, new_parts_for, rename_kept

CLASS_TOWER = re.compile(r"head\.one2(one|many)\.cls\..+")
LAST_CLASS_LAYER = re.compile(r"head\.one2(?:one|many)\.cls\.\d+\.4\.(.+)")
# Its parameters that have a row for each class. Kernels and biases of several experts have them side by side, (E, C * n).
WITH_CLASS_ROWS = ("weight", "bias", "delta", "router.filter.weight", "router.filter.bias")


class ClassRows(NamedTuple):
    """How the rows of the last class layers in the file become those of a detector with other classes."""

    pairs: list[tuple[int, int]]  # (row in the detector, row in the file) of classes with the same name
    number: int  # of classes of the detector
    number_in_file: int | None  # None: the class layers of the file are of another width, and their rows useless
    anew: frozenset[str] = frozenset()  # kernels of layers that are plain in the file and have several experts here


@dataclass
class LoadReport:
    """The names of all weights, sorted by what happened to them.

    Each weight of the detector is in exactly one list from ``loaded`` to ``missing``; ``unexpected`` has those of the file
    that the detector lacks. A weight that is not loaded keeps its initial value. With two different backbones, the weights
    that only one of them has, on either side, are in ``other_backbone`` instead; those of parts that are new to the file are
    in ``new`` and ``left_out``.
    """

    source: str
    loaded: list[str] = field(default_factory=list)  # as they are in the file
    upcycled: list[str] = field(default_factory=list)  # of dynamic layers, made from a plain kernel
    copied_rows: list[str] = field(default_factory=list)  # last class layers, with the rows of the common classes
    rebuilt: list[str] = field(default_factory=list)  # class layers, not loaded because the classes are others
    mismatched: list[str] = field(default_factory=list)  # not loaded: of another shape in the file
    missing: list[str] = field(default_factory=list)  # not loaded: not in the file
    unexpected: list[str] = field(default_factory=list)  # in the file, but not in the detector
    other_backbone: list[str] = field(default_factory=list)  # not loaded: the file or the detector has another backbone
    new: list[str] = field(default_factory=list)  # not loaded: of parts that are new, see new_parts.py
    left_out: list[str] = field(default_factory=list)  # in the file, but of a part that is new in the detector
    known_classes: list[str] = field(default_factory=list)  # classes whose rows were copied
    new_classes: list[str] = field(default_factory=list)
    new_parts: list[str] = field(default_factory=list)  # names of the modules in ``new``

    @property
    def complete(self) -> bool:
        """True if every weight was used, except class layers of other classes."""
        return not (self.mismatched or self.missing or self.unexpected)

    def __str__(self) -> str:
        rows = (
            (self.loaded, "loaded as they are"),
            (self.upcycled, "of dynamic layers, made from plain kernels"),
            (self.copied_rows, f"last class layers with the rows of {_first(self.known_classes)}"),
            (self.rebuilt, "class layers as initialized"),
            (self.mismatched, f"of another shape in the file, as initialized: {_first(self.mismatched)}"),
            (self.missing, f"not in the file, as initialized: {_first(self.missing)}"),
            (self.unexpected, f"in the file, but not in this detector: {_first(self.unexpected)}"),
            (self.new, f"of new parts, as initialized: {_first(self.new_parts)}"),
            (self.left_out, f"in the file, of modules that are not the same here, left out: {_first(self.left_out)}"),
            (self.other_backbone, f"of two different backbones, not loaded: {_first(self.other_backbone)}"),
        )
        lines = [f"{len(names):>6} {meaning}" for names, meaning in rows if names]
        if self.new_classes:
            lines.append(f"       new classes: {_first(self.new_classes)}")
        return "\n".join([f"weights of {self.source}", *lines])


def load_into(
    detector: Detector,
    weights: Weights,
    class_names: Sequence[str] | None = None,
    strict: bool = True,
    new_parts: Sequence[str] = (),
) -> LoadReport:
    """Load ``weights`` into ``detector``, in place, and return what happened to every weight.

    ``class_names`` are the classes of the detector (default: those of the weights). If they differ from those of the
    weights, the last class layers get the rows of the classes with the same name; their other rows keep their initial
    values. Plain kernels become experts where the layer of the detector is dynamic. If the weights are of a detector with
    another backbone, only the layers after it are loaded. Modules that blocks of the user have replaced, and parts that
    ``new_parts`` names, may be missing in the weights: they keep their initial values where tensors do not fit.

    Raises ValueError if anything else does not fit, and changes nothing then. With ``strict=False`` weights that do not fit
    keep their initial values instead.
    """
    new = new_parts_for(detector, weights, new_parts)
    report, values = _fit(detector, weights, class_names, new)
    if strict and not report.complete:
        raise ValueError(
            f"{report}\nthese weights do not fit this detector, so nothing was loaded; build the variant of the file, "
            f"{weights.info.variant}, or the dynamic one of its size, with the overrides {weights.info.overrides}; or name "
            "the parts that are to start untrained, as model.new_parts"
        )
    detector.load_state_dict(values)
    return report


def build_from(weights: Weights) -> Detector:
    """Build the detector of ``weights`` and load them: on the CPU, in float32, in evaluation mode.

    Raises ValueError if the settings in the file make no detector, or one with more than twice the values of the file.
    """
    with torch.device("meta"):  # needs no memory: a damaged file may ask for a billion experts
        empty = _build(weights, plain=True)
    expected, present = (
        sum(v.numel() for v in values.values()) for values in (_kept_values(empty, weights), weights.state_dict)
    )
    if expected > 2 * present:
        raise ValueError(
            f"{weights.path}: its settings ({weights.info.variant}, {weights.info.overrides}) make a detector of "
            f"{expected:,} values, but it holds {present:,}; write the file again from its checkpoint"
        )
    detector = _build(weights)
    load_into(detector, weights)
    if weights.info.temperature != 1:
        set_temperature(detector, weights.info.temperature)
    return detector.eval()


def _kept_values(plain: Detector, weights: Weights) -> dict[str, Tensor]:
    """Return the values of the plain detector, without those of modules that the detector of ``weights`` has replaced."""
    places = [where for entry in check_entries(weights.info.overrides.get("replace")) for where in entry["where"]]
    try:
        prefixes = tuple(f"{name}." for where in places for name in matching_modules(plain, where))
    except ValueError as error:
        raise ValueError(f"{weights.path}: its replaced modules do not fit its variant: {error}") from None
    return {name: value for name, value in plain.state_dict().items() if not name.startswith(prefixes)}


def _build(weights: Weights, plain: bool = False) -> Detector:
    """Build the detector of ``weights``, without the blocks of the user if ``plain``."""
    variant, overrides = weights.info.variant, dict(weights.info.overrides)
    entries = check_entries(overrides.pop("replace", None))
    if entries and not plain:
        overrides["replace"] = entries
        try:
            import_blocks(entries, weights.info.block_files)
        except ValueError as error:
            raise ValueError(f"{weights.path}: {error}") from error
    try:
        return build_detector(variant, weights.num_classes, **overrides)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{weights.path}: its settings ({variant}, {overrides}) make no detector: {error}") from error


def _fit(
    detector: Detector, weights: Weights, class_names: Sequence[str] | None, new: Mapping[str, ReplacedPart | None]
) -> tuple[LoadReport, dict[str, Tensor]]:
    """Return the report of loading ``weights``, and the new state dict of ``detector``, which is not changed.

    ``new`` are the parts that the weights need not have.
    """
    classes = plural(weights.num_classes, "class", "classes")
    report = LoadReport(f"{weights.path} ({weights.kind}; {weights.info.variant}, {classes})")
    initial = detector.state_dict()
    in_file = rename_kept(weights.state_dict, new)
    candidates = _upcycled(detector, in_file)
    rows = _class_rows(weights.info.class_names, class_names, weights.num_classes)
    if rows is not None:
        rows = _usable_rows(rows, initial, candidates)
    own_class_towers = tuple(f"{name}." for name in detector.replaced if CLASS_TOWER.fullmatch(name) and name not in new)
    values = {}
    for name, value in initial.items():
        names, values[name] = _choose(report, name, value, candidates.get(name), rows)
        if rows is not None and name.startswith(own_class_towers):
            names, values[name] = report.rebuilt, value  # where the rows of its classes are is not known
        is_upcycled = names is report.loaded and values[name] is not in_file.get(name)
        (report.upcycled if is_upcycled else names).append(name)
    report.unexpected = [name for name in candidates if name not in initial]
    for names, moved in (
        (report.mismatched, report.new),
        (report.missing, report.new),
        (report.unexpected, report.left_out),
    ):
        move_names(names, moved, new)
    report.new_parts = without_nested([part for part in new if any(name.startswith(f"{part}.") for name in report.new)])
    if detector.backbone.name != weights.info.overrides.get("backbone", "yolo26"):
        for names in (report.mismatched, report.missing, report.unexpected):
            report.other_backbone += [name for name in names if name.startswith("backbone.")]
            names[:] = [name for name in names if not name.startswith("backbone.")]
    if rows is not None:
        names_here = list(class_names or [])  # given, where rows are
        report.known_classes = [names_here[row] for row, _ in rows.pairs] if report.copied_rows else []
        report.new_classes = [name for name in names_here if name not in report.known_classes]
    return report, values


def _upcycled(detector: Detector, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state_dict`` with experts and routers in place of plain kernels where the layer of ``detector`` is dynamic.

    Kernels of a wrong shape stay as they are, to be reported as mismatched.
    """
    shapes = {f"{name}.weight": layer.kernel_shape for name, layer in dynamic_layers(detector).items()}
    mismatched = {name: value for name, value in state_dict.items() if tuple(value.shape) != shapes.get(name, value.shape)}
    fitting = {name: value for name, value in state_dict.items() if name not in mismatched}
    return upcycle_state_dict(detector, fitting) | mismatched


def _class_rows(
    file_classes: Sequence[str] | None, classes: Sequence[str] | None, num_file_classes: int
) -> ClassRows | None:
    """Return the rows of the classes with the same name, or None if all classes are the same.

    Weights without class names count as having the same classes if they have as many.
    """
    if classes is None or list(classes) == file_classes or (file_classes is None and len(classes) == num_file_classes):
        return None
    file_classes = list(file_classes or [])
    pairs = [(row, file_classes.index(name)) for row, name in enumerate(classes) if name in file_classes]
    return ClassRows(pairs, len(classes), num_file_classes)


def _usable_rows(rows: ClassRows, initial: Mapping[str, Tensor], in_file: Mapping[str, Tensor]) -> ClassRows:
    """Return ``rows`` without those that are useless because of the layers before them, and with ``anew`` filled in."""
    widths = {len(values[CLASS_TOWER_NORM]) for values in (in_file, initial) if CLASS_TOWER_NORM in values}
    if len(widths) > 1:
        return ClassRows([], rows.number, None)
    kernels = [name for name in initial if name.endswith(".weight") and name in in_file]
    return rows._replace(anew=frozenset(n for n in kernels if (initial[n].ndim, in_file[n].ndim) == (2, 4)))


def _choose(
    report: LoadReport, name: str, initial: Tensor, new: Tensor | None, rows: ClassRows | None
) -> tuple[list[str], Tensor]:
    """Return the list of ``report`` that the weight ``name`` belongs to, and its value: ``initial``, ``new`` or of both."""
    last = LAST_CLASS_LAYER.fullmatch(name) if rows is not None else None
    if new is None:
        # A dynamic last layer that is plain in the file keeps its initial router.
        is_rebuilt = last is not None and last[1].startswith(("router.", "delta"))
        return report.rebuilt if is_rebuilt else report.missing, initial
    if last is None or last[1] not in WITH_CLASS_ROWS:
        if new.shape == initial.shape:
            return report.loaded, new
        has_other_width = rows is not None and rows.number_in_file is None  # depends on the number of classes
        return report.rebuilt if has_other_width and CLASS_TOWER.fullmatch(name) else report.mismatched, initial
    if rows is None or rows.number_in_file is None or f"{name.removesuffix(last[1])}weight" in rows.anew:
        return report.rebuilt, initial
    return _with_rows_of_file(report, last[1], initial, new, rows)


def _with_rows_of_file(
    report: LoadReport, parameter: str, initial: Tensor, new: Tensor, rows: ClassRows
) -> tuple[list[str], Tensor]:
    """Return what ``_choose`` does, for a ``parameter`` with a row for each class."""
    by_expert = initial.ndim == 2 and not parameter.startswith("router.")
    axis, row = (1, initial.shape[1] // rows.number) if by_expert else (0, 1)
    expected = list(initial.shape)
    expected[axis] = (rows.number_in_file or 0) * row
    if list(new.shape) != expected:
        return report.mismatched, initial
    if not rows.pairs:
        return report.rebuilt, initial
    here, in_file = (torch.tensor(side, device=initial.device) for side in zip(*rows.pairs))
    values, file_values = (t.unflatten(axis, (-1, row)) for t in (initial, new.to(initial)))
    copied = values.index_copy(axis, here, file_values.index_select(axis, in_file))
    return report.copied_rows, copied.flatten(axis, axis + 1)


def _first(names: Sequence[str], number: int = 5) -> str:
    return ", ".join(names[:number]) + (f" and {len(names) - number} more" if len(names) > number else "")
