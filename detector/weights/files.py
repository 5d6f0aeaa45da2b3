"""Read and write weights files: Lightning checkpoints, safetensors, and files of the public reference."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from detector.batch import Size, as_size
from detector.files import atomic_write
from detector.network.config import detector_config
from detector.text import plural
from detector.weights.infer import CLASS_WIDTH, infer_variant
from detector.weights.info import OWN_CHECKPOINT, Weights, WeightsInfo
from detector.weights.reference import is_reference_state_dict, is_state_dict, read_reference
from detector.weights.safe_load import load_torch_file

FORMAT_VERSION = 2  # of the metadata in our safetensors files; 1 spelled the license differently
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
        image_size=_as_size(settings.get("image_size")),
        license=about.get("license", about.get("licence")),
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
    size = _as_size(_from_json(about, "image_size"))
    info = WeightsInfo(
        about["variant"],
        image_size=size,
        license=about.get("license", about.get("licence")),
        provenance=about["provenance"],
        **plain,
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
        image_size=_as_size(found.image_size),
        license=found.license,
        provenance=f"converted from {path.name} of the public reference ({found.about}, sha256 {digest})",
    )
    return replace(weights, info=info)


def _from_names(path: Path, state_dict: dict[str, Tensor], kind: str) -> Weights:
    """Infer the variant from names and shapes, for files that do not say."""
    variant, overrides = infer_variant(state_dict)
    info = WeightsInfo(variant, overrides, provenance=f"taken from {path.name}, which does not say more")
    return Weights(state_dict, info, path, kind)


def _as_size(value: Any) -> Size | None:
    """Return (height, width) of an input size, which files hold as one side or two; None if they do not have it."""
    return None if value is None else as_size(value)


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
            raise ValueError(f"has {len(values)} {name}, but weights for {plural(number, 'class', 'classes')}")
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
    _expect(info.license or "", str, "license")


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
    with atomic_write(path) as unfinished:  # safetensors' own save_file makes files that only their owner can read
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
    return about if info.license is None else about | {"license": info.license}
