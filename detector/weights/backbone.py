"""Load pretrained weights of a classifier into the backbone of a detector, and report what happened to them."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor

from detector.dynamic import dynamic_layers, upcycle_state_dict
from detector.dynamic.convert import plain_kernels
from detector.network.model import Detector
from detector.text import plural
from detector.weights.backbone_files import (
    PRETRAINED,
    UNKNOWN,
    BackboneFile,
    downloaded_file,
    read_backbone_file,
    resolve_license,
)
from detector.weights.info import Origin
from detector.weights.new_parts import rename_kept

TRUNK = "backbone.trunk."  # before the names of the trunk's modules
SEARCH_SECONDS = 10.0  # at most, for the network that a file belongs to


@dataclass(frozen=True)
class BackboneReport:
    """What happened to the weights of a file: each is one of the trunk, or was left out with the classifier."""

    backbone: str
    file: BackboneFile
    license: str
    loaded: list[str]  # names of tensors of the trunk, as in the classifier
    upcycled: list[str]  # layers of ``loaded`` that are dynamic here
    left_out: list[str]  # in the file, but after the last feature map: the classifier
    new: list[str]  # tensors of blocks of the user in place of modules of the trunk, as initialized
    of_replaced: list[str]  # in the file, of modules that were replaced; left out

    def __str__(self) -> str:
        lines = [f"backbone {self.backbone}, weights of {self.file.path} ({plural(len(self.file.state_dict), 'tensor')})"]
        rest = ", the others are of blocks in place of its modules" if self.new or self.of_replaced else ""
        lines.append(f"{len(self.loaded):>6} loaded, all of the backbone's{rest}")
        if self.new:
            lines.append(f"{len(self.new):>6} of new parts, as initialized: {_first(self.new)}")
        if self.of_replaced:
            lines.append(f"{len(self.of_replaced):>6} left out, of modules that were replaced: {_first(self.of_replaced)}")
        if self.upcycled:
            lines.append(f"{len(self.upcycled):>6} of them as experts, with new routers")
        if self.left_out:
            lines.append(f"{len(self.left_out):>6} left out, of the classifier: {_first(self.left_out)}")
        if self.file.statistics:
            facts = ", ".join(f"{name} {values}" for name, values in self.file.statistics.items())
            lines.append(f"       input statistics of the file: {facts}")
        license_text = "not known" if self.license == UNKNOWN else self.license
        lines.append(f"       license: {license_text}; it is saved in the checkpoints of this run, too")
        return "\n".join(lines)

    @property
    def origin(self) -> Origin:
        """The origin of a detector that starts from these weights."""
        return Origin(self.license, f"{self.backbone} weights of {self.file.path.name} (sha256 {self.file.sha256})")


def load_backbone(detector: Detector, source: str, accept_license: str | None = None) -> BackboneReport:
    """Load the weights of a classifier into the trunk of ``detector``, in place; kernels become experts where it has them.

    ``source`` is ``"pretrained"``, for those that timm has on the Hub, or the path of a file. Input statistics that the file
    names replace those of the tag. Raises ValueError for the file of another network, without a network connection, and for
    a license that must be accepted by name; nothing is changed then.
    """
    backbone = detector.backbone
    if backbone.name == "yolo26":
        raise ValueError(
            f"backbone_weights is {source!r}, but the backbone is yolo26, which has none; choose a backbone, such as "
            "--model.backbone timm/hgnetv2_b0, or start from a detector with --model.weights"
        )
    file, license = _file_and_license(backbone.name, str(source), accept_license)
    plain = _trunk_state_dict(detector, file)
    replaced = {n.removeprefix(TRUNK): part for n, part in detector.replaced.items() if n.startswith(TRUNK)}
    state_dict = rename_kept(plain, replaced)
    values, expected = upcycle_state_dict(backbone.trunk, state_dict), backbone.trunk.state_dict()
    inside = tuple(f"{name}." for name in replaced)
    of_replaced = [
        n for n, v in values.items() if n.startswith(inside) and v.shape != getattr(expected.get(n), "shape", None)
    ]
    values = {name: value for name, value in values.items() if name not in of_replaced}
    new = [name for name in expected if name.startswith(inside) and name not in values]
    backbone.trunk.load_state_dict(values | {name: expected[name] for name in new})
    for name, numbers in file.statistics.items():
        getattr(backbone, name).copy_(torch.tensor(numbers).view(1, 3, 1, 1))
    upcycled = plain_kernels(backbone.trunk, state_dict)
    left_out = [name for name in file.state_dict if name not in plain] if set(plain) & set(file.state_dict) else []
    loaded = [name for name in state_dict if name not in of_replaced]
    return BackboneReport(backbone.name, file, license, loaded, upcycled, left_out, new, of_replaced)


def _file_and_license(backbone: str, source: str, accepted: str | None) -> tuple[BackboneFile, str]:
    """Read the file of ``source``; its license is checked first if it is downloaded."""
    name = backbone.removeprefix("timm/")
    if backbone == name:
        if source == PRETRAINED:
            raise ValueError(f"no weights of {backbone} were ever published; give a file as backbone_weights, or none")
        file = read_backbone_file(source)
        return file, resolve_license(backbone, file.license, {}, accepted, is_local=True)
    from detector.network.foreign.timm_trunk import architecture, pretrained_cfg, tags

    cfg = pretrained_cfg(name)
    if source == PRETRAINED:
        license = resolve_license(backbone, cfg.license, {}, accepted, is_local=False)
        return downloaded_file(name, cfg), license
    file = read_backbone_file(source)
    possible = {tag: pretrained_cfg(tag).license for tag in tags(architecture(name))}
    if (tag := file.path.stem) in possible and tag not in (name, f"{architecture(name)}.{cfg.tag}"):
        raise ValueError(
            f"{file.path}: named after timm/{tag}, but the backbone is {backbone}, whose license and input statistics may "
            f"differ; give --model.backbone timm/{tag}, or rename the file if its name is wrong"
        )
    license = file.license or (cfg.license if "." in name else None)
    return file, resolve_license(backbone, license, possible, accepted, is_local=True)


def _trunk_state_dict(detector: Detector, file: BackboneFile) -> dict[str, Tensor]:
    """Return the weights of the plain trunk that ``file`` has. Raises ValueError if one is missing or has another shape.

    Those of a ParameterNet need not fit where blocks of the user have replaced modules.
    """
    backbone = detector.backbone
    if backbone.name.startswith("timm/"):
        return _by_timm(backbone.name, backbone.trunk_strides, file)
    from detector.network.foreign.parameternet import converted_names, parameternet

    state_dict = converted_names(file.state_dict)
    with torch.device("meta"):
        whole = parameternet(backbone.name, num_classes=1).state_dict()
    expected = backbone.trunk.state_dict()
    kernels = {f"{name}.weight": layer.kernel_shape for name, layer in dynamic_layers(backbone.trunk).items()}
    plain = {f"{name}.weight" for name in plain_kernels(backbone.trunk, state_dict)}  # of a GhostNet: upcycled later
    inside = tuple(f"{name.removeprefix(TRUNK)}." for name in detector.replaced)
    needed = [name for name in expected if _kernel_of(name) not in plain and not name.startswith(inside)]
    missing = [name for name in needed if name not in state_dict and not name.endswith("num_batches_tracked")]
    shapes = {name: {tuple(value.shape), kernels.get(name)} for name, value in expected.items() if name in state_dict}
    wrong = [name for name, possible in shapes.items() if tuple(state_dict[name].shape) not in possible]
    mismatched = [name for name in wrong if not name.startswith(inside)]
    _check_fit(backbone.name, file, missing, mismatched, [name for name in state_dict if name not in whole])
    of_replaced = [name for name in state_dict if name.startswith(inside)]
    return {name: state_dict[name] if name in state_dict else expected[name] for name in [*needed, *plain, *of_replaced]}


def _kernel_of(name: str) -> str:
    """Return the name of the kernel that a router or a change of kernels belongs to, and other names as they are."""
    return re.sub(r"\.(router\..+|delta)$", ".weight", name)


def _by_timm(backbone: str, strides: list[int], file: BackboneFile) -> dict[str, Tensor]:
    """Return the trunk's weights as timm loads them from ``file``: timm also knows the names of other codes."""
    import timm

    from detector.network.foreign.timm_trunk import architecture, timm_trunk

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
    reasons = [
        f"{len(names)} {meaning}: {_first(sorted(names))}"
        for names, meaning in ((missing, "missing"), (mismatched, "of another shape"), (unexpected, "too many"))
        if names
    ]
    if reasons:
        raise ValueError(
            f"{file.path}: not the weights of {backbone} ({'; '.join(reasons)}){_other_network(backbone, file)}"
        )


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


def _first(names: list[str], number: int = 4) -> str:
    return ", ".join(names[:number]) + (f" and {len(names) - number} more" if len(names) > number else "")
