"""Files with pretrained weights of a backbone: local or from the Hub; their tensors, license and input statistics."""

import hashlib
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies

from torch import Tensor

from detector.weights.classifier_files import (
    ClassifierContent,
    classifier_of_checkpoint,
    classifier_of_safetensors,
    is_classifier_checkpoint,
)
from detector.weights.files import CLASSIFIER
from detector.weights.info import WeightsInfo
from detector.weights.safe_load import load_safetensors, load_torch_file
from detector.weights.wrappers import without_wrappers

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

# Values of ``backbone_weights`` that are not a path
PRETRAINED = "pretrained"
NONE = "none"
UNKNOWN = "unknown"  # the license of weights that name none
PERMISSIVE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "cc0-1.0", "cc-by-4.0", "unlicense", "0bsd")
CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # of the state dict in a training checkpoint


@dataclass(frozen=True)
class BackboneFile:
    """The weights of a classifier, and what their file says about them; None or empty if it does not say it."""

    path: Path
    state_dict: dict[str, Tensor]
    license: str | None = None
    architecture: str | None = None
    statistics: dict[str, list[float]] = field(default_factory=dict)  # "mean" and "std", three values each, in 0..1
    info: WeightsInfo | None = None  # of a file of our pre-training; the names are those of ``Classifier.network``

    @property
    def pretraining(self) -> WeightsInfo:
        """``info`` of a file of our pre-training."""
        assert self.info is not None
        return self.info

    @property
    def sha256(self) -> str:
        """The digest of the file, for the provenance of weights trained from it."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def read_backbone_file(path: str | Path, option: str = "backbone_weights") -> BackboneFile:
    """Read a ``.safetensors``, or a file of ``torch.save``, with the weights of a classifier. Nothing in it is run.

    It is a file of our pre-training, or one of timm or of the official code of ParameterNet. ``option`` is the name of the
    setting that gave ``path``, for messages. Raises ValueError, with file and reason, for all others, and for the file of a
    detector.
    """
    path = Path(path)
    if not path.is_file():
        none = f" {NONE!r}," if option == "backbone_weights" else ""
        raise ValueError(f"{path}: no such file; {option} is {PRETRAINED!r},{none} or a .ckpt, .safetensors or .pt")
    file = _from_safetensors(path) if path.suffix == ".safetensors" else _from_torch_file(path)
    if file.info is None and any(name.startswith(("backbone.", "model.backbone.")) for name in file.state_dict):
        raise ValueError(f"{path}: has the weights of a detector; start from it with train.py --model.weights")
    return file


def _from_pretraining(path: Path, read: Callable[..., ClassifierContent], *content: Any) -> BackboneFile:
    """Return a file of our pre-training; ``read`` reads its ``content``. An error names the file."""
    try:
        state_dict, info, statistics = read(*content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return BackboneFile(path, state_dict, info.license, info.overrides.get("backbone", info.variant), statistics, info)


def _from_safetensors(path: Path) -> BackboneFile:
    try:
        facts, state_dict = load_safetensors(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    statistics: dict[str, list[float]] = {n: _three_numbers(path, n, facts[n]) for n in ("mean", "std") if n in facts}
    if facts.get("kind") == CLASSIFIER:
        return _from_pretraining(path, classifier_of_safetensors, facts, state_dict, statistics)
    license = facts.get("license", facts.get("licence"))
    return BackboneFile(path, state_dict, license, facts.get("architecture"), statistics)


def _three_numbers(path: Path, name: str, text: str) -> list[float]:
    """Return one number, or one for each of three channels, as three."""
    try:
        numbers = [float(word) for word in text.strip("[]() ").replace(",", " ").split()]
    except ValueError:
        numbers = []
    in_range = all(0 <= number <= 1 for number in numbers) and (name == "mean" or all(numbers))
    if len(numbers) not in (1, 3) or not in_range:
        least = "in 0..1" if name == "mean" else "above 0, up to 1"
        raise ValueError(f"{path}: its metadata have {text!r} as {name}; expected one number, or three, {least}")
    return numbers * 3 if len(numbers) == 1 else numbers


def _from_torch_file(path: Path) -> BackboneFile:
    content = load_torch_file(path)
    if is_classifier_checkpoint(content):
        return _from_pretraining(path, classifier_of_checkpoint, content)
    if isinstance(content, dict) and "pytorch-lightning_version" in content:
        raise ValueError(f"{path}: is the checkpoint of a detector; start from it with train.py --model.weights")
    for container in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
            break
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(
            f"{path}: has no state dict; expected names and tensors, as timm's networks save them. A trained detector "
            "belongs to train.py --model.weights"
        )
    return BackboneFile(path, {without_wrappers(str(name)): value for name, value in content.items()})


def downloaded_file(name: str, cfg: "PretrainedCfg", option: str = "backbone_weights") -> BackboneFile:
    """Read the pretrained weights of timm's ``name``: from the cache of the Hub, or downloaded to it.

    Raises ValueError if there are none, and without a network; the message then names the file to fetch.
    """
    if not (cfg.hf_hub_id or cfg.url) or cfg.custom_load:
        raise ValueError(f"timm has no pretrained weights of {name} in a format of PyTorch; choose another tag, or a file")
    tagged = f"{cfg.architecture or name.partition('.')[0]}.{cfg.tag}" if cfg.tag else name
    filename = cfg.hf_hub_filename or "model.safetensors"
    url = f"https://huggingface.co/{cfg.hf_hub_id}/resolve/main/{filename}" if cfg.hf_hub_id else str(cfg.url)
    try:
        path = _from_hub(cfg.hf_hub_id, filename) if cfg.hf_hub_id else _from_url(url)
    except Exception as error:  # of the network, in many forms
        local = tagged + Path(filename if cfg.hf_hub_id else url).suffix
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"the weights of timm/{tagged} are not in the cache, and could not be downloaded ({reason}). On a machine with "
            f"a network, get\n    {url}\nsave it as {local}, and give\n    --model.{option} {local}"
        ) from error
    return read_backbone_file(path)


def _from_hub(repository: str, filename: str) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(repository, filename)
    if isinstance(cached, str):
        return Path(cached)
    _check_host("huggingface.co")
    return Path(hf_hub_download(repository, filename))


def _from_url(url: str) -> Path:
    from timm.models._hub import download_cached_file

    return Path(download_cached_file(url, progress=False))


def _check_host(host: str) -> None:
    """Raise OSError if the name of ``host`` cannot be resolved: the Hub's client would try for a minute."""
    if not getproxies() and "HF_ENDPOINT" not in os.environ:
        socket.getaddrinfo(host, 443)


def resolve_license(
    name: str, license: str | None, possible: Mapping[str, str | None], accepted: str | None, is_local: bool
) -> str:
    """Return the license of the weights of ``name``, if they may be used.

    ``license`` is that of the file, or of the tag in the name. If there is none, ``possible`` has those of all tags of the
    network. Other licenses than ``PERMISSIVE`` ones must be ``accepted`` by name. A local file may be under any license; the
    one given as ``accepted`` counts, or it is unknown. Raises ValueError for weights that may not be used.
    """
    if license is None and is_local:
        licenses = {value or UNKNOWN for value in possible.values()}
        if len(licenses) == 1:
            license = licenses.pop()
        elif licenses - set(PERMISSIVE) and not accepted:
            raise ValueError(
                f"the license of this file is not known, and timm has {name} under {', '.join(sorted(licenses))}: name the "
                f"tag ({', '.join(possible)}), or give --model.accept_license NAME"
            )
        else:
            return accepted or UNKNOWN
    license = license or UNKNOWN
    if accepted and accepted.lower() != license.lower():
        raise ValueError(f"accept_license is {accepted!r}, but the weights of {name} are under {license}")
    if license.lower() not in PERMISSIVE and not accepted:
        raise ValueError(
            f"the license of the weights of {name} is {license}, which may not allow every use. If you may use "
            f"them, give --model.accept_license {license}; it stays with everything that is trained from them"
        )
    return license
