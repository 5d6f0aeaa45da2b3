"""Load pretrained weights of a classifier into the backbone of a detector, and report what happened to them."""

from dataclasses import dataclass

import torch

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
from detector.weights.trunk import first, fit_trunk, load_trunk, trunk_of_detector


@dataclass(frozen=True)
class BackboneReport:
    """What happened to the weights of a file: each is one of the trunk, or was left out with the classifier."""

    backbone: str
    file: BackboneFile
    license: str | None
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
            lines.append(f"{len(self.new):>6} of new parts, as initialized: {first(self.new)}")
        if self.of_replaced:
            lines.append(f"{len(self.of_replaced):>6} left out, of modules that were replaced: {first(self.of_replaced)}")
        if self.upcycled:
            lines.append(f"{len(self.upcycled):>6} of them as experts, with new routers")
        if self.left_out:
            lines.append(f"{len(self.left_out):>6} left out, of the classifier: {first(self.left_out)}")
        return "\n".join([*lines, *facts_of_file(self.file, self.license)])

    @property
    def origin(self) -> Origin:
        """The origin of a detector that starts from these weights."""
        return origin_of(self.backbone, self.file, self.license)


def facts_of_file(file: BackboneFile, license: str | None) -> list[str]:
    """Return the lines of a report about the input, the license and the images of the weights of ``file``."""
    lines = []
    if file.statistics:
        facts = ", ".join(f"{name} {values}" for name, values in file.statistics.items())
        lines.append(f"       input statistics of the file: {facts}")
    if file.info is not None and file.info.metrics:
        metrics = ", ".join(f"{name} {value:.3f}" for name, value in file.info.metrics.items())
        lines.append(f"       in the last validation of its pre-training: {metrics}")
    license_text = {UNKNOWN: "not known", None: "not stated, as of weights that were trained from scratch"}.get(
        license, license
    )
    lines.append(f"       license: {license_text}; it is saved in the checkpoints of this run, too")
    if file.info is not None:
        images = file.info.images_of_pretraining or "origin and license not stated"
        lines.append(f"       images of its pre-training: {images}")
        lines += [f"       {note}"] if (note := file.info.temperature_note) else []
    return lines


def origin_of(backbone: str, file: BackboneFile, license: str | None) -> Origin:
    """Return the origin of a network that starts from the weights of ``file``, which are under ``license``."""
    name = file.info.variant if backbone == "yolo26" and file.info is not None else backbone
    source = f"{name} weights of {file.path.name} (sha256 {file.sha256})"
    if file.info is None:
        return Origin(license, source)
    return Origin(license, f"{source}, {file.info.provenance}", file.info.data_license, file.info.data_provenance)


def load_backbone(detector: Detector, source: str, accept_license: str | None = None) -> BackboneReport:
    """Load the weights of a classifier into the trunk of ``detector``, in place; kernels become experts where it has them.

    ``source`` is the path of a file, of our pre-training or with the names of timm or of the official ParameterNet; or
    ``"pretrained"``, for those that timm has on the Hub. The trunk of our own backbone is all of it. Input statistics that
    the file names replace those of the tag. Raises ValueError for the file of another network, without a network
    connection, and for a license that must be accepted by name; nothing is changed then.
    """
    backbone = detector.backbone
    file, license = file_and_license(backbone.name, str(source), accept_license)
    place = trunk_of_detector(detector)
    plain = fit_trunk(place, file)
    fitted = load_trunk(place, plain)
    for name, numbers in file.statistics.items():
        getattr(backbone, name).copy_(torch.tensor(numbers).view(1, 3, 1, 1))
    left_out = [name for name in file.state_dict if name not in plain] if set(plain) & set(file.state_dict) else []
    return BackboneReport(place.backbone, file, license, left_out=left_out, **fitted._asdict())


def file_and_license(
    backbone: str, source: str, accepted: str | None, option: str = "backbone_weights"
) -> tuple[BackboneFile, str | None]:
    """Read the file of ``source``, which the setting ``option`` names; its license is checked first if it is downloaded.

    Raises ValueError for a license that must be ``accepted``.
    """
    name = backbone.removeprefix("timm/")
    if source != PRETRAINED:
        return _local_file(backbone, source, accepted, option)
    if backbone == name:
        raise ValueError(f"no weights of {backbone} were ever published; give a file as {option}, or none")
    from detector.network.foreign.timm_trunk import pretrained_cfg

    cfg = pretrained_cfg(name)
    license = resolve_license(backbone, cfg.license, {}, accepted, is_local=False)
    return downloaded_file(name, cfg, option), license


def _local_file(backbone: str, source: str, accepted: str | None, option: str) -> tuple[BackboneFile, str | None]:
    file = read_backbone_file(source, option)
    if file.info is not None:
        return file, accepted if file.license is None else resolve_license(backbone, file.license, {}, accepted, True)
    if not backbone.startswith("timm/"):
        return file, resolve_license(backbone, file.license, {}, accepted, is_local=True)
    from detector.network.foreign.timm_trunk import architecture, pretrained_cfg, tags

    name = backbone.removeprefix("timm/")
    cfg = pretrained_cfg(name)
    possible = {tag: pretrained_cfg(tag).license for tag in tags(architecture(name))}
    if (tag := file.path.stem) in possible and tag not in (name, f"{architecture(name)}.{cfg.tag}"):
        raise ValueError(
            f"{file.path}: named after timm/{tag}, but the backbone is {backbone}, whose license and input statistics may "
            f"differ; give --model.backbone timm/{tag}, or rename the file if its name is wrong"
        )
    license = file.license or (cfg.license if "." in name else None)
    return file, resolve_license(backbone, license, possible, accepted, is_local=True)
