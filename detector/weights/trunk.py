"""Fit the weights of a file to the trunk of a detector or of a classifier; refuse those of another network."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from detector.dynamic import dynamic_layers, upcycle_state_dict
from detector.dynamic.convert import plain_kernels
from detector.network.classifier import Classifier
from detector.network.config import network_options
from detector.network.model import Detector
from detector.network.replace.parts import ReplacedPart
from detector.weights.backbone_files import BackboneFile
from detector.weights.new_parts import rename_kept

TRUNK = "backbone.trunk."  # before the names of the modules of a foreign trunk in a detector
SEARCH_SECONDS = 10.0  # at most, for the network that a file belongs to


@dataclass(frozen=True)
class TrunkPlace:
    """Where the weights of a trunk go: ``module`` has them under the names of a classifier, which are ``names``."""

    backbone: str  # name of the backbone
    module: nn.Module
    names: list[str]  # of the tensors of the trunk
    strides: list[int]  # of the maps that a foreign trunk gives
    replaced: dict[str, ReplacedPart]  # modules of the trunk that were replaced by blocks of the user

    @property
    def expected(self) -> dict[str, Tensor]:
        """The present weights of the trunk."""
        state_dict = self.module.state_dict()
        return {name: state_dict[name] for name in self.names}

    @property
    def inside_replaced(self) -> tuple[str, ...]:
        """Beginnings of the names of tensors in replaced modules."""
        return tuple(f"{name}." for name in self.replaced)


def trunk_of_detector(detector: Detector) -> TrunkPlace:
    """Return the place of the trunk of ``detector``: of its whole backbone if this is our own."""
    backbone = detector.backbone
    if backbone.name == "yolo26":
        names = [name for name in detector.state_dict() if name.startswith("backbone.")]
        replaced = {name: part for name, part in detector.replaced.items() if name.startswith("backbone.")}
        return TrunkPlace(backbone.name, detector, names, [], replaced)
    replaced = {n.removeprefix(TRUNK): part for n, part in detector.replaced.items() if n.startswith(TRUNK)}
    foreign: Any = backbone  # a ForeignBackbone, which is imported only if there is one
    return TrunkPlace(backbone.name, foreign.trunk, list(foreign.trunk.state_dict()), foreign.trunk_strides, replaced)


def trunk_of_classifier(classifier: Classifier) -> TrunkPlace:
    """Return the place of the trunk of ``classifier``."""
    network = classifier.network
    return TrunkPlace(classifier.backbone, network, classifier.trunk, classifier.trunk_strides, classifier.replaced)


class LoadedTrunk(NamedTuple):
    """Names of tensors, by what happened to them."""

    loaded: list[str]
    upcycled: list[str]  # layers of ``loaded`` that are dynamic here
    new: list[str]  # of blocks of the user in place of modules, as initialized
    of_replaced: list[str]  # in the file, of modules that were replaced; left out


def load_trunk(place: TrunkPlace, plain: Mapping[str, Tensor]) -> LoadedTrunk:
    """Load weights that ``fit_trunk`` returned into their place; plain kernels become experts of dynamic layers."""
    state_dict = rename_kept(plain, place.replaced)
    values, expected, inside = upcycle_state_dict(place.module, state_dict), place.expected, place.inside_replaced
    of_replaced = [
        n for n, v in values.items() if n.startswith(inside) and v.shape != getattr(expected.get(n), "shape", None)
    ]
    values = {name: value for name, value in values.items() if name not in of_replaced}
    new = [name for name in expected if name.startswith(inside) and name not in values]
    place.module.load_state_dict(place.module.state_dict() | values)
    loaded = [name for name in state_dict if name not in of_replaced]
    return LoadedTrunk(loaded, plain_kernels(place.module, state_dict), new, of_replaced)


def fit_trunk(place: TrunkPlace, file: BackboneFile) -> dict[str, Tensor]:
    """Return the weights of the trunk that ``file`` has; plain kernels stay plain. Names are those of a classifier.

    Raises ValueError if a weight is missing, too many, or of another shape. Those of a ParameterNet, and of files of our
    pre-training, need not fit where blocks of the user have replaced modules.
    """
    if file.info is not None:
        return _of_pretraining(place, file)
    if place.backbone == "yolo26":
        raise ValueError(
            f"{file.path}: not the weights of our own backbone, yolo26{_other_network('', file)}; give a file of "
            "pretrain.py, or choose the backbone of the file, such as --model.backbone timm/hgnetv2_b0"
        )
    if place.backbone.startswith("timm/"):
        return _by_timm(place, file)
    return _of_parameternet(place, file)


def _of_pretraining(place: TrunkPlace, file: BackboneFile) -> dict[str, Tensor]:
    """Return the trunk's weights in a file of our pre-training."""
    in_file = file.pretraining.overrides.get("backbone", "yolo26")
    if architecture_of(in_file) != architecture_of(place.backbone):
        raise ValueError(
            f"{file.path}: has a classifier of the backbone {in_file}, and the backbone here is {place.backbone}; "
            f"{_what_fits(place, file)}"
        )
    _check_dynamic(place, file)
    expected, inside = place.expected, place.inside_replaced
    weights = rename_kept(file.state_dict, place.replaced)
    kernels = {f"{name}.weight": layer.kernel_shape for name, layer in dynamic_layers(place.module).items()}
    plain = {f"{name}.weight" for name in plain_kernels(place.module, weights)} & {kernel_of(name) for name in expected}
    needed = [name for name in expected if kernel_of(name) not in plain and not name.startswith(inside)]
    missing = [name for name in needed if name not in weights]
    present = {name: value for name, value in expected.items() if name in weights and not name.startswith(inside)}
    wrong = [n for n, v in present.items() if tuple(weights[n].shape) not in (tuple(v.shape), kernels.get(n))]
    of_trunk = [n for n in file.state_dict if place.backbone == "yolo26" and n.startswith("backbone.")]
    too_many = [n for n in of_trunk if n not in expected and not n.startswith(inside)]
    if missing or wrong or too_many:
        reasons = _reasons(missing, wrong, too_many)
        raise ValueError(f"{file.path}: not the weights of this backbone ({reasons}); {_what_fits(place, file)}")
    of_replaced = [name for name in weights if name.startswith(inside)]
    return {name: weights[name] for name in [*needed, *plain, *of_replaced] if name in weights}


def _check_dynamic(place: TrunkPlace, file: BackboneFile) -> None:
    """Raise ValueError if layers that are dynamic in ``file`` are plain here: such a layer cannot become plain."""
    in_file = dict.fromkeys(name.partition(".router.")[0] for name in file.state_dict if ".router." in name)
    kernels = {name.removesuffix(".weight") for name in place.names} - dynamic_layers(place.module).keys()
    plain = [name for name in in_file if name in kernels and not f"{name}.".startswith(place.inside_replaced)]
    if plain:
        raise ValueError(
            f"{file.path}: has dynamic layers where this network is plain ({first(plain)}), and they cannot become plain; "
            f"{_what_fits(place, file)}"
        )


def _what_fits(place: TrunkPlace, file: BackboneFile) -> str:
    options = network_options(file.pretraining.variant, file.pretraining.overrides)
    if place.backbone != "yolo26" and "--model.backbone" not in options:
        options += " --model.backbone yolo26"  # the default, in place of the one that was given
    return f"give {options}, or none of model.variant, model.backbone and model.overrides: then they are those of the file"


def architecture_of(backbone: str) -> str:
    """Return the name of a backbone without the tag of its weights, and without "_plain"."""
    if backbone.startswith("timm/"):
        return backbone.partition(".")[0]
    return backbone.removesuffix("_plain")


def _of_parameternet(place: TrunkPlace, file: BackboneFile) -> dict[str, Tensor]:
    """Return the trunk's weights in the file of a ParameterNet, or of a GhostNet, under the official names or ours."""
    from detector.network.foreign.parameternet import converted_names, parameternet

    state_dict = converted_names(file.state_dict)
    with torch.device("meta"):
        whole = parameternet(place.backbone, num_classes=1).state_dict()
    expected, inside = place.expected, place.inside_replaced
    kernels = {f"{name}.weight": layer.kernel_shape for name, layer in dynamic_layers(place.module).items()}
    plain = {f"{name}.weight" for name in plain_kernels(place.module, state_dict)}  # of a GhostNet: upcycled later
    plain &= {kernel_of(name) for name in expected}
    needed = [name for name in expected if kernel_of(name) not in plain and not name.startswith(inside)]
    missing = [name for name in needed if name not in state_dict and not name.endswith("num_batches_tracked")]
    shapes = {name: {tuple(value.shape), kernels.get(name)} for name, value in expected.items() if name in state_dict}
    wrong = [name for name, possible in shapes.items() if tuple(state_dict[name].shape) not in possible]
    mismatched = [name for name in wrong if not name.startswith(inside)]
    _check_fit(place.backbone, file, missing, mismatched, [name for name in state_dict if name not in whole])
    of_replaced = [name for name in state_dict if name.startswith(inside)]
    return {name: state_dict[name] if name in state_dict else expected[name] for name in [*needed, *plain, *of_replaced]}


def kernel_of(name: str) -> str:
    """Return the name of the kernel that a router or a change of kernels belongs to, and other names as they are."""
    return re.sub(r"\.(router\..+|delta)$", ".weight", name)


def _by_timm(place: TrunkPlace, file: BackboneFile) -> dict[str, Tensor]:
    """Return the trunk's weights as timm loads them from ``file``: timm also knows the names of other codes."""
    import timm

    from detector.network.foreign.timm_trunk import architecture, timm_trunk

    backbone, strides = place.backbone, place.strides
    name = backbone.removeprefix("timm/")
    with torch.device("meta"):
        expected = timm_trunk(name, strides).network.state_dict()
        whole = timm.create_model(architecture(name), pretrained=False).state_dict()
    names = {n for n in expected if not n.endswith("num_batches_tracked")}
    absent = names - file.state_dict.keys()
    unexpected = [n for n, v in file.state_dict.items() if n not in whole and v.is_floating_point()]
    mismatched = [n for n in names - absent if file.state_dict[n].shape != expected[n].shape]
    # With all names there, unexpected ones belong to a larger network. With none there, the file has those of another code.
    _check_fit(backbone, file, [], mismatched, unexpected if not absent else [])
    if absent:
        nan = {n: torch.full_like(v, torch.nan) if v.is_floating_point() else v for n, v in file.state_dict.items()}
        probe = _loaded(backbone, file, strides, nan)
        _check_fit(backbone, file, [n for n in names if not probe[n].isnan().all()], [], [])
    return _loaded(backbone, file, strides, file.state_dict)


def _loaded(backbone: str, file: BackboneFile, strides: list[int], state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a trunk into which timm has loaded ``state_dict``."""
    from detector.network.foreign.timm_trunk import timm_trunk

    overlay = {"state_dict": dict(state_dict)}
    try:
        trunk = timm_trunk(backbone.removeprefix("timm/"), strides, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # timm converts names of other codes, which can fail in many ways
        reason = re.sub(r"\s+", " ", str(error))[:300]
        raise ValueError(f"{file.path}: not the weights of {backbone}: {reason}{_other_network(backbone, file)}") from error
    return trunk.network.state_dict()


def _check_fit(backbone: str, file: BackboneFile, missing: list[str], mismatched: list[str], unexpected: list[str]) -> None:
    """Raise ValueError if the weights of ``file`` are not those of ``backbone``, with the network that has them."""
    if reasons := _reasons(missing, mismatched, unexpected):
        raise ValueError(f"{file.path}: not the weights of {backbone} ({reasons}){_other_network(backbone, file)}")


def _reasons(missing: list[str], mismatched: list[str], unexpected: list[str]) -> str:
    kinds = ((missing, "missing"), (mismatched, "of another shape"), (unexpected, "too many"))
    return "; ".join(f"{len(names)} {meaning}: {first(sorted(names))}" for names, meaning in kinds if names)


def _other_network(backbone: str, file: BackboneFile) -> str:
    """Return a phrase with the network of timm that has the weights of ``file``, found by names and shapes."""
    import timm

    stem = file.path.stem.lower()
    shapes = {name: value.shape for name, value in file.state_dict.items()}
    architecture_name = backbone.removeprefix("timm/").partition(".")[0]
    family = [n for n in timm.list_models() if n.partition("_")[0] == architecture_name.partition("_")[0]]
    named = sorted((n for n in timm.list_models() if n in stem), key=len, reverse=True)
    usual = ["resnet18", "resnet34", "resnet50", "efficientnet_b0", "mobilenetv3_large_100", "hgnetv2_b0", "ghostnet_100"]
    deadline = time.monotonic() + SEARCH_SECONDS
    for name in dict.fromkeys([*named, *get_close_matches(stem, timm.list_models(), n=5), *usual, *family]):
        if time.monotonic() > deadline:
            break
        if name != architecture_name and _has_shapes(name, shapes):
            return f"; they are those of timm/{name}"
    return f"; the file says that they are those of {file.architecture}" if file.architecture else ""


def _has_shapes(name: str, shapes: Mapping[str, torch.Size]) -> bool:
    """Return True if the weights of timm's ``name``, without its classifier, are those with ``shapes``."""
    import timm

    try:
        with torch.device("meta"):
            expected = timm.create_model(name, pretrained=False, num_classes=0).state_dict()
    except Exception:  # a network of timm that cannot be built like this is not the one
        return False
    counted = {n: v.shape for n, v in expected.items() if not n.endswith("num_batches_tracked")}
    return all(shapes.get(n) == shape for n, shape in counted.items()) and len(shapes) <= len(expected) + 4


def first(names: list[str], number: int = 4) -> str:
    """Return the first of ``names``, and how many more there are, for messages."""
    return ", ".join(names[:number]) + (f" and {len(names) - number} more" if len(names) > number else "")
