"""Weights files in and out: our Lightning checkpoints, safetensors, and files of the public reference."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from detector.config import VARIANTS, DynamicConfig, detector_config
from detector.head import default_class_channels
from detector.reference import is_reference_state_dict, is_state_dict, read_reference
from detector.safe_load import load_torch_file
from detector.whole_file import replacing
from detector.wording import counted

FORMAT_VERSION = 1  # of the metadata in our safetensors files
# Bytes of a number, by safetensors' name of its type
DTYPES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
}
OWN_CHECKPOINT = "checkpoint of ours"  # the kind of weights that come with all that it takes to resume or evaluate a run
CLASS_WIDTH = "head.one2many.cls.0.1.norm.weight"  # as many values as the class towers are wide


@dataclass(frozen=True)
class WeightsInfo:
    """What is known about weights besides their values. Where a file does not say, a field is None."""

    variant: str
    overrides: dict[str, Any] = field(default_factory=dict)  # fields of DetectorConfig that differ from the variant
    class_names: list[str] | None = None
    category_ids: list[int] | None = None  # the id of each class in the annotations that were trained on
    image_size: tuple[int, int] | None = None  # height, width of the network input
    licence: str | None = None  # of the weights; weights that start from others keep theirs
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


def read_weights(path: str | Path) -> Weights:
    """Read any weights file, without running anything that is in it.

    That is a checkpoint of ours (the averaged weights are taken), a ``.safetensors`` of ours, a ``.pt`` of the public
    reference with a YOLO26 detection model, or a ``.pt`` with a bare state dict under our names or the reference's; of the
    latter the variant is inferred. Raises ValueError, with file and reason, for everything else.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected a checkpoint (.ckpt), .safetensors or .pt")
    is_safetensors = path.suffix == ".safetensors"
    content = None if is_safetensors else load_torch_file(path)
    try:
        weights = _from_safetensors(path) if is_safetensors else _from_torch_file(path, content)
        _check(weights)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # what is of another type than we write can fail in any way
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: is not as this version writes it ({what}); get it again, or upgrade") from None
    return weights


def _from_torch_file(path: Path, content: Any) -> Weights:
    if isinstance(content, dict) and "pytorch-lightning_version" in content:
        return _from_lightning(path, content)
    if is_state_dict(content) and not is_reference_state_dict(content):
        return _from_names(path, dict(content), "state dict")
    return _from_reference(path, content)


def _from_lightning(path: Path, content: dict[str, Any]) -> Weights:
    settings, about = (_expect(content.get(part) or {}, dict, part) for part in ("hyper_parameters", "weights_info"))
    if missing := [name for name in ("variant", "class_names") if name not in settings]:
        lack = " and no ".join(missing)
        raise ValueError(f"is a Lightning checkpoint, but not of DetectorModule: its hyper_parameters have no {lack}")
    state_dict = {}
    for name, value in _expect(content.get("state_dict"), dict, "state_dict").items():
        if not str(name).startswith("model."):
            raise ValueError(f"its state_dict has the weight {name!r}; those of a DetectorModule begin with 'model.'")
        state_dict[name.removeprefix("model.")] = value
    info = WeightsInfo(
        variant=settings["variant"],
        overrides=settings.get("overrides") or {},
        class_names=settings["class_names"],
        category_ids=settings.get("category_ids"),
        image_size=_size(settings.get("image_size")),
        licence=about.get("licence"),
        provenance=about.get("provenance") or "trained with lightning-dyn-detector",
        metrics=about.get("metrics") or {},
    )
    return Weights(state_dict, info, path, OWN_CHECKPOINT)


def _from_safetensors(path: Path) -> Weights:
    _check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            state_dict = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except SafetensorError as error:
        raise ValueError(f"not a whole safetensors file ({error}); get it again") from None
    if "format_version" not in about:
        if is_reference_state_dict(state_dict):
            return _from_reference(path, state_dict)
        return _from_names(path, state_dict, "safetensors without our metadata")
    if _from_json(about, "format_version") > FORMAT_VERSION:
        raise ValueError(f"has format version {about['format_version']}; this version reads {FORMAT_VERSION}: upgrade")
    if missing := sorted(metadata(WeightsInfo("")).keys() - about.keys()):
        raise ValueError(f"its metadata lack {', '.join(missing)}; write the file again")
    plain = {name: _from_json(about, name) for name in ("overrides", "class_names", "category_ids", "metrics")}
    size = _size(_from_json(about, "image_size"))
    info = WeightsInfo(
        about["variant"], image_size=size, licence=about.get("licence"), provenance=about["provenance"], **plain
    )
    return Weights(state_dict, info, path, "safetensors")


def _check_header(path: Path) -> None:
    """Raise ValueError for a field of a safetensors header that is of another type; its own reader does not say which."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length < path.stat().st_size else b""
    try:
        header = json.loads(text)
    except ValueError:
        return  # for its own reader to refuse
    for name, entry in _expect(header, dict, "header").items():
        fields = _expect(entry, dict, f"entry {name!r} of its header")
        if name == "__metadata__":
            for key, value in fields.items():
                _expect(value, str, f"{key!r} in __metadata__")
            continue
        if not isinstance(dtype := fields.get("dtype"), str) or dtype not in DTYPES:
            raise ValueError(f"has {dtype!r:.80} as dtype of {name}; expected one of {', '.join(DTYPES)}")
        for part in ("shape", "data_offsets"):
            numbers = fields.get(part)
            if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
                raise ValueError(f"has {numbers!r:.80} as {part} of {name}; expected a list of numbers from 0 on")
        shape, ends = fields["shape"], fields["data_offsets"]
        if len(ends) != 2 or ends[1] - ends[0] != math.prod(shape) * DTYPES[dtype]:
            size = f"dtype {dtype} and shape {shape!s:.80}"
            raise ValueError(f"has {ends!s:.80} as data_offsets of {name}, which do not fit its {size}")


def _from_json(about: Mapping[str, str], name: str) -> Any:
    try:
        value = json.loads(about[name])
    except ValueError as error:
        raise ValueError(f"has {about[name]!r:.80} as {name}, which is not JSON ({error})") from None
    return _expect(value, int, name) if name == "format_version" else value


def _from_reference(path: Path, content: Any) -> Weights:
    found = read_reference(content)
    weights = _from_names(path, found.state_dict, "file of the public reference, names converted")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    info = replace(
        weights.info,
        class_names=found.class_names,
        image_size=_size(found.image_size),
        licence=found.licence,
        provenance=f"converted from {path.name} of the public reference ({found.about}, sha256 {digest})",
    )
    return replace(weights, info=info)


def _from_names(path: Path, state_dict: dict[str, Tensor], kind: str) -> Weights:
    """Infer the variant from names and shapes, for files that do not say."""
    variant, overrides = infer_variant(state_dict)
    info = WeightsInfo(variant, overrides, provenance=f"taken from {path.name}, which does not say more")
    return Weights(state_dict, info, path, kind)


def infer_variant(state_dict: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """Return the variant that weights under our names are of, and the overrides of its configuration.

    Raises ValueError if there is none.
    """
    stem = len(_find(state_dict, "backbone.stem.norm.weight"))  # of a dynamic convolution, the first number is the experts'
    repeats = _count(state_dict, r"backbone\.stage_p4\.blocks\.(\d+)\.")
    max_level = 6 if _count(state_dict, r"backbone\.stage_p(6)\.") else 5
    min_level = max_level + 1 - _count(state_dict, r"head\.one2one\.box\.(\d+)\.")
    found = (stem, repeats, min_level, max_level)
    plain = {name: config for name, config in VARIANTS.items() if config.dynamic is None}
    sizes = {(c.channels(64), c.repeats(2), c.min_level, c.max_level): name for name, c in plain.items()}
    if found not in sizes:
        raise ValueError(
            "fits no variant: {} channels in the first layer, {} blocks a stage, levels {} to {}".format(*found)
        )
    name, overrides = sizes[found], _class_channels(state_dict, _num_classes(state_dict))
    routers = [key for key in state_dict if re.search(r"\.router\.(\d\.)?bias$", key)]
    if not routers:
        return name, overrides
    dynamic = {
        "num_experts": len(_find(state_dict, routers[-1])),
        "routing": "softmax" if any(".router.2." in key for key in routers) else "sigmoid",
    }
    name = dynamic_name if (dynamic_name := name.replace("yolo26", "dyn")) in VARIANTS else name
    return name, overrides if VARIANTS[name].dynamic == DynamicConfig(**dynamic) else overrides | {"dynamic": dynamic}


def _num_classes(state_dict: Mapping[str, Tensor]) -> int:
    return _find(state_dict, "head.one2many.cls.0.4.bias").shape[-1]  # (C,), or (E, C) of a dynamic layer


def _class_channels(state_dict: Mapping[str, Tensor], num_classes: int) -> dict[str, int]:
    """Return the override that keeps the class towers as wide as in ``state_dict``, if they would not be by themselves."""
    finest = len(_find(state_dict, "head.one2many.cls.0.0.norm.weight"))
    width = len(_find(state_dict, CLASS_WIDTH))
    return {} if width == default_class_channels(finest, num_classes) else {"class_channels": width}


def _find(state_dict: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state_dict:
        raise ValueError(
            f"has no weight {name!r}, only {', '.join(list(state_dict)[:3])} ...: not a detector of this project"
        )
    value = state_dict[name]
    if not isinstance(value, Tensor) or value.ndim == 0:
        raise ValueError(f"has {value!r:.80} as {name!r}; expected a tensor with dimensions")
    return value


def _count(state_dict: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for key in state_dict if (match := re.match(pattern, key))})


def _size(value: Any) -> tuple[int, int] | None:
    """Return (height, width) of an input size, which files hold as one side or two."""
    if isinstance(value, int) and value > 0:
        return value, value
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, int) and v > 0 for v in value):
        return value[0], value[1]
    if value is None:
        return None
    raise ValueError(f"has {value!r} as image_size, the input size; expected one side or (height, width) in pixels")


def _check(weights: Weights) -> None:
    """Compare the facts of a file with its weights, so that a wrong class name is found here and not in production."""
    for name, value in weights.state_dict.items():
        if not _is_ordinary(name, value):
            what = f"{value.dtype} {value.layout}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{name!r} is a {what}; expected a dense floating-point tensor, all of it in the file")
    _check_types(weights)
    info, number = weights.info, weights.num_classes
    for name, values in (("class names", info.class_names), ("category ids", info.category_ids)):
        if values is not None and len(values) != number:
            raise ValueError(f"has {len(values)} {name}, but weights for {counted(number, 'class', 'classes')}")
    try:
        detector_config(info.variant, **info.overrides)  # an unknown variant is an error that lists those there are
    except (ValueError, TypeError) as error:
        raise ValueError(f"{error} (overrides: {info.overrides})") from None


def _check_types(weights: Weights) -> None:
    """Raise ValueError for what is not of the type that it has in every file of ours."""
    info = weights.info
    for name, kind in (("variant", str), ("overrides", dict), ("provenance", str), ("metrics", dict)):
        _expect(getattr(info, name), kind, name)
    for name, kind in (("class_names", str), ("category_ids", int)):
        if getattr(info, name) is not None:
            for value in _expect(getattr(info, name), list, name):
                _expect(value, kind, f"an entry of {name}")
    _expect(info.licence or "", str, "licence")


def _expect(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"has {value!r:.80} as {name}; expected a {kind.__name__}")
    return value


def _is_ordinary(name: str, value: Any) -> bool:
    """Whether ``value`` can be a weight: numbers, and no more of them than there is memory behind, as when expanded."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
        return False
    whole = value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    return whole and (value.is_floating_point() or name.endswith("num_batches_tracked"))


def save_weights(
    path: str | Path, state_dict: Mapping[str, Tensor], info: WeightsInfo, dtype: torch.dtype = torch.float32
) -> None:
    """Write weights and what is known about them as ``.safetensors``; floating-point values as ``dtype``.

    A file there is replaced. Raises ValueError if a value is too large for ``dtype``, and for a deployed detector's weights.
    """
    path = Path(path)
    if CLASS_WIDTH not in state_dict:
        raise ValueError(
            f"{path}: these weights have no {CLASS_WIDTH!r}, as those of a deployed detector, and could not be loaded; "
            "save those of the detector before deploy()"
        )
    tensors = {}
    for name, value in state_dict.items():
        kept = value.detach().cpu().to(dtype if value.is_floating_point() else value.dtype)
        tensors[name] = kept.clone(memory_format=torch.contiguous_format)  # safetensors refuses weights that share memory
        if not tensors[name].isfinite().all() and value.isfinite().all():
            raise ValueError(
                f"{name} has values up to {value.abs().max():g}, too large for {dtype}; choose bfloat16 or float32"
            )
    with replacing(path) as unfinished:  # safetensors' own save_file makes files that only their owner can read
        unfinished.write_bytes(save(tensors, metadata(info)))


def metadata(info: WeightsInfo) -> dict[str, str]:
    """Return ``info`` as text, the only kind of metadata that safetensors has; lists and dicts are JSON."""
    about = {
        "format": "pt",
        "format_version": str(FORMAT_VERSION),
        "variant": info.variant,
        "overrides": json.dumps(info.overrides),
        "class_names": json.dumps(info.class_names),
        "category_ids": json.dumps(info.category_ids),
        "image_size": json.dumps(info.image_size),
        "metrics": json.dumps(info.metrics),
        "provenance": info.provenance,
    }
    return about if info.licence is None else about | {"licence": info.licence}
