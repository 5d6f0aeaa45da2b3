"""Load the weights of a file into a classifier, and report what happened to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from detector.dynamic.temperature import set_temperature
from detector.network.classifier import Classifier, build_classifier
from detector.network.replace.block_files import import_blocks
from detector.network.replace.entries import check_entries
from detector.text import plural
from detector.weights.backbone import facts_of_file, file_and_license, origin_of
from detector.weights.backbone_files import BackboneFile, read_backbone_file
from detector.weights.info import Origin, WeightsInfo
from detector.weights.trunk import first, fit_trunk, load_trunk, trunk_of_classifier


@dataclass(frozen=True)
class ClassifierReport:
    """What happened to the weights of a file: each was loaded or left out. Weights that are ``new`` are as initialized."""

    backbone: str
    file: BackboneFile
    license: str | None
    loaded: list[str]
    upcycled: list[str]  # layers of ``loaded`` that are dynamic here
    left_out: list[str]
    new: list[str]
    other_classes: str = ""  # why the last layer was left out, if it was

    def __str__(self) -> str:
        lines = [f"classifier {self.backbone}, weights of {self.file.path} ({plural(len(self.file.state_dict), 'tensor')})"]
        lines.append(f"{len(self.loaded):>6} loaded, all of the backbone's among them")
        if self.upcycled:
            lines.append(f"{len(self.upcycled):>6} of them as experts, with new routers")
        if self.left_out:
            lines.append(f"{len(self.left_out):>6} left out: {first(self.left_out)}")
        if self.new:
            lines.append(f"{len(self.new):>6} as initialized: {first(self.new)}")
        if self.other_classes:
            lines.append(f"       the last layer starts anew: {self.other_classes}")
        return "\n".join([*lines, *facts_of_file(self.file, self.license)])

    @property
    def origin(self) -> Origin:
        """The origin of a classifier that starts from these weights."""
        return origin_of(self.backbone, self.file, self.license)


def load_classifier(
    classifier: Classifier, source: str | Path, class_names: Sequence[str], accept_license: str | None = None
) -> ClassifierReport:
    """Load the weights of a file into ``classifier``, in place; kernels become experts where it has them.

    ``source`` is as for ``load_backbone``. All weights of the trunk must fit; of those after it, the ones with the same name
    and shape are loaded. The last layer is left out if the file is for other classes than ``class_names``. Raises ValueError
    as ``load_backbone`` does; nothing is changed then.
    """
    place = trunk_of_classifier(classifier)
    file, license = file_and_license(place.backbone, str(source), accept_license, "weights")
    trunk = fit_trunk(place, file)
    after, other_classes = _after_trunk(classifier, file, class_names)
    loaded = load_trunk(place, trunk | after)
    for name, numbers in file.statistics.items():
        getattr(classifier, name).copy_(torch.tensor(numbers).view(1, 3, 1, 1))
    own_names = [name for name in classifier.network.state_dict() if name not in classifier.trunk]
    new = loaded.new + [
        name for name in own_names if name.partition(".router.")[0] not in loaded.upcycled and name not in after
    ]
    known = _our_names(classifier, file)
    left_out = [name for name in known if name not in loaded.loaded] if set(trunk) & set(known) else []
    return ClassifierReport(place.backbone, file, license, loaded.loaded, loaded.upcycled, left_out, new, other_classes)


def _after_trunk(classifier: Classifier, file: BackboneFile, class_names: Sequence[str]) -> tuple[dict[str, Tensor], str]:
    """Return the weights in ``file`` that fit those after the trunk, and why the last layer is not among them."""
    expected = {name: v for name, v in classifier.network.state_dict().items() if name not in classifier.trunk}
    kernels = {
        name: value for name, value in _our_names(classifier, file).items() if _fits(classifier, name, value, expected)
    }
    last = f"{classifier.last_layer}."
    reason = _other_classes(file, class_names, kernels.keys() >= {name for name in expected if name.startswith(last)})
    return {name: value for name, value in kernels.items() if not (reason and name.startswith(last))}, reason


def _fits(classifier: Classifier, name: str, value: Tensor, expected: Mapping[str, Tensor]) -> bool:
    if name not in expected:
        return False
    layer = classifier.network.get_submodule(name.rpartition(".")[0])
    return value.shape == expected[name].shape or (
        name.endswith(".weight") and value.shape == getattr(layer, "kernel_shape", None)
    )


def _other_classes(file: BackboneFile, class_names: Sequence[str], same_number: bool) -> str:
    """Return why the classes of ``file`` are others than ``class_names``; empty if they are the same as far as is known."""
    in_file = file.info.class_names if file.info is not None else None
    if in_file is not None and in_file != list(class_names):
        return f"the file is for the {plural(len(in_file), 'class', 'classes')} {first(in_file)}"
    return "" if same_number else f"in the file it is not for {plural(len(class_names), 'class', 'classes')}"


def _our_names(classifier: Classifier, file: BackboneFile) -> dict[str, Tensor]:
    if not classifier.backbone.startswith("parameternet"):
        return file.state_dict
    from detector.network.foreign.parameternet import converted_names

    return converted_names(file.state_dict)


def build_classifier_from(file: BackboneFile) -> Classifier:
    """Build the classifier of a file of our pre-training, and load it: on the CPU, in float32, in evaluation mode.

    Raises ValueError if its settings make no classifier, or another one.
    """
    info = _info(file)
    try:
        import_blocks(check_entries(info.overrides.get("replace")), info.block_files)
        classifier = build_classifier(info.variant, len(info.class_names or []), **info.overrides)
        classifier.network.load_state_dict(file.state_dict)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file.path}: its settings ({info.variant}, {info.overrides}) do not fit its weights: {error}"
        ) from error
    for name, numbers in file.statistics.items():
        getattr(classifier, name).copy_(torch.tensor(numbers).view(1, 3, 1, 1))
    if info.temperature != 1:
        set_temperature(classifier, info.temperature)
    return classifier.eval()


def read_classifier(path: str | Path) -> BackboneFile:
    """Read a file of our pre-training. Raises ValueError for all others; see ``read_backbone_file``."""
    file = read_backbone_file(path, "weights")
    _info(file)
    return file


def _info(file: BackboneFile) -> WeightsInfo:
    if file.info is None:
        raise ValueError(f"{file.path}: is not a file of pretrain.py; it does not name its variant and classes")
    return file.info
