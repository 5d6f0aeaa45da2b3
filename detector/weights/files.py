"""Read and write weights files: training checkpoints, safetensors, and files of the public reference."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import torch
from safetensors.torch import save
from torch import Tensor

from detector.arguments import shown
from detector.batch import Size, as_size
from detector.files import atomic_write, refuse_lfs_pointer
from detector.imaging.sixteen_bits import SampleRange, as_sample_range
from detector.network.config import complete_overrides, saved_overrides
from detector.network.replace.block_files import without_folders
from detector.text import plural
from detector.weights.infer import CLASS_TOWER_NORM, infer_variant
from detector.weights.info import TRAINING_CHECKPOINT, Weights, WeightsInfo, saved_license
from detector.weights.missing import missing_weights
from detector.weights.reference import is_reference_state_dict, is_state_dict, read_reference
from detector.weights.safe_load import load_safetensors, load_torch_file
from detector.weights.wrappers import unwrap, without_wrappers

CLASSIFIER = "classifier"  # the kind of a file of pre-training, in its facts
FORMAT_VERSION = 2  # of the metadata in our safetensors files; in 1 the key "license" was "licence"


def read_weights(path: str | os.PathLike) -> Weights:
    """Read a weights file of any kind. Nothing in the file is run.

    The kinds are: a training checkpoint of this project, of which the averaged weights are read; a ``.safetensors`` of this
    project; a ``.pt`` of the public reference with a YOLO26 detection model; a ``.pt`` or ``.safetensors`` with a bare state
    dict under our names or those of the reference, whose variant is inferred. A state dict may be inside of other dicts, and
    its names may have the prefixes of wrappers, see ``detector.weights.wrappers``; ``kind`` says what was removed. Raises
    ValueError, with file and reason, for all others.
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(
            f"the weights are {shown(path)}, of type {type(path).__name__}; expected the path of a weights file"
        )
    path = Path(path)
    if not path.is_file():
        raise ValueError(missing_weights(path))
    refuse_lfs_pointer(path)
    is_safetensors = path.suffix == ".safetensors"
    content = None if is_safetensors else load_torch_file(path)
    try:
        return _checked(_from_safetensors(path) if is_safetensors else _from_torch_file(path, content))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # values of unexpected types can raise anything
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: has content that this version cannot read ({reason}); get it again, or upgrade") from None


def _from_torch_file(path: Path, content: Any) -> Weights:
    if isinstance(content, dict) and "pytorch-lightning_version" in content:
        return _from_lightning(path, content)
    return _from_foreign(path, content, "state dict") or _from_reference(path, content)


def _from_lightning(path: Path, content: dict[str, Any]) -> Weights:
    settings = _as_type(content.get("hyper_parameters") or {}, dict, "hyper_parameters")
    facts = _as_type(content.get("weights_info") or {}, dict, "weights_info")
    if missing := [name for name in ("variant", "class_names") if name not in settings]:
        if (weights := _from_foreign(path, {"state_dict": content.get("state_dict")}, "Lightning checkpoint")) is not None:
            return weights
        keys = " and no ".join(missing)
        raise ValueError(f"is a Lightning checkpoint, but not of DetectorModule: its hyper_parameters have no {keys}")
    refuse_classifier(path, facts)
    state_dict = without_prefix(_as_type(content.get("state_dict"), dict, "state_dict"))
    return Weights(state_dict, info_of_checkpoint(settings, facts), path, TRAINING_CHECKPOINT)


def refuse_classifier(path: Path, facts: Mapping[str, Any]) -> None:
    """Raise ValueError if the ``facts`` in a file are those of a classifier of pre-training."""
    if facts.get("kind") == CLASSIFIER:
        raise ValueError(
            "has a classifier of pretrain.py, not a detector; start a detector from it with "
            f"train.py --model.backbone_weights {path}"
        )


def info_of_checkpoint(settings: Mapping[str, Any], facts: Mapping[str, Any]) -> WeightsInfo:
    """Return what a checkpoint says in its ``hyper_parameters`` (``settings``) and ``weights_info`` (``facts``)."""
    return WeightsInfo(
        variant=settings["variant"],
        overrides=settings.get("overrides") or {},
        class_names=settings["class_names"],
        category_ids=settings.get("category_ids"),
        image_size=_image_size(settings.get("image_size")),
        sixteen_bit_range=_sample_range(settings.get("sixteen_bit_range")),
        license=saved_license(facts),
        provenance=facts.get("provenance") or "trained with lightning-dyn-detector",
        metrics=facts.get("metrics") or {},
        best_f1_thresholds=facts.get("best_f1_thresholds") or {},
        block_files=settings.get("block_files") or {},
        temperature=facts.get("temperature", 1.0),
        data_license=facts.get("data_license"),
        data_provenance=facts.get("data_provenance"),
    )


def without_prefix(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Return the weights of ``DetectorModule.model`` under the names of the Detector."""
    state_dict = {without_wrappers(str(name)): value for name, value in state_dict.items()}
    if others := [name for name in state_dict if not name.startswith("model.")]:
        raise ValueError(f"its state_dict has the weight {others[0]!r}; those of a DetectorModule begin with 'model.'")
    return {name.removeprefix("model."): value for name, value in state_dict.items()}


def _from_safetensors(path: Path) -> Weights:
    entries, state_dict = load_safetensors(path)
    refuse_classifier(path, entries)
    if "format_version" in entries:
        return Weights(state_dict, info_of_metadata(entries), path, "safetensors")
    kind = "safetensors without our metadata"
    return _from_foreign(path, state_dict, kind) or _from_state_dict(path, state_dict, kind)


def info_of_metadata(entries: dict[str, str]) -> WeightsInfo:
    """Return the facts in the metadata of a safetensors file, see ``metadata``."""
    version = _as_type(_from_json(entries, "format_version"), int, "format_version")
    if version > FORMAT_VERSION:
        raise ValueError(f"has format version {version}; this version reads {FORMAT_VERSION}: upgrade")
    if missing := sorted(metadata(WeightsInfo("")).keys() - entries.keys()):
        raise ValueError(f"its metadata lack {', '.join(missing)}; write the file again")
    return WeightsInfo(
        variant=entries["variant"],
        image_size=_image_size(_from_json(entries, "image_size")),
        sixteen_bit_range=_sample_range(json.loads(entries.get("sixteen_bit_range", "null"))),
        license=saved_license(entries),
        provenance=entries["provenance"],
        best_f1_thresholds=_from_json(entries, "best_f1_thresholds") if "best_f1_thresholds" in entries else {},
        block_files=_from_json(entries, "block_files") if "block_files" in entries else {},
        temperature=_from_json(entries, "temperature") if "temperature" in entries else 1.0,
        data_license=entries.get("data_license"),
        data_provenance=entries.get("data_provenance"),
        **{name: _from_json(entries, name) for name in ("overrides", "class_names", "category_ids", "metrics")},
    )


def _from_json(entries: dict[str, str], name: str) -> Any:
    try:
        return json.loads(entries[name])
    except ValueError as error:
        raise ValueError(f"has {entries[name]!r:.80} as {name}, which is not JSON ({error})") from None


def _from_foreign(path: Path, content: Any, kind: str) -> Weights | None:
    """Return the weights of a file that training tools write; None if it has no state dict of a detector."""
    if is_state_dict(content) and not any(isinstance(name, str) for name in content):
        return None
    unwrapped = unwrap(content)
    if unwrapped is None and is_state_dict(content):
        return _from_state_dict(path, dict(content), kind)  # an error that names what is missing
    if unwrapped is None:
        return None
    if is_reference_state_dict(unwrapped.state_dict):
        weights = _from_reference(path, unwrapped.state_dict)
    else:
        weights = _from_state_dict(path, unwrapped.state_dict, kind)
    return replace(weights, kind=f"{weights.kind}, {unwrapped.note}") if unwrapped.note else weights


def _from_reference(path: Path, content: Any) -> Weights:
    reference = read_reference(content)
    weights = _from_state_dict(path, reference.state_dict, "file of the public reference, names converted")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    info = replace(
        weights.info,
        class_names=reference.class_names,
        image_size=_image_size(reference.image_size),
        license=reference.license,
        provenance=f"converted from {path.name} of the public reference ({reference.origin}, sha256 {digest})",
    )
    return replace(weights, info=info)


def _from_state_dict(path: Path, state_dict: dict[str, Tensor], kind: str) -> Weights:
    """Return weights whose variant is inferred, because their file has no metadata."""
    variant, overrides = infer_variant(state_dict)
    info = WeightsInfo(variant, overrides, provenance=f"taken from {path.name}, which does not say more")
    return Weights(state_dict, info, path, kind)


def _image_size(value: Any) -> Size | None:
    return None if value is None else as_size(value)


def _sample_range(value: Any) -> SampleRange | None:
    return None if value is None else as_sample_range(value)


def _checked(weights: Weights) -> Weights:
    """Check the facts of a file and compare them with its weights: a wrong class name must not be noticed in production."""
    check_tensors(weights.state_dict, weights.info)
    info = with_checked_types(weights.info)
    number = weights.num_classes
    for name, values in (("class names", info.class_names), ("category ids", info.category_ids)):
        if values is not None and len(values) != number:
            raise ValueError(f"has {len(values)} {name}, but weights for {plural(number, 'class', 'classes')}")
    return replace(weights, info=with_saved_overrides(info))


def check_tensors(state_dict: Mapping[str, Any], info: WeightsInfo) -> None:
    """Raise ValueError for a weight that is no dense floating-point tensor; blocks of the user may have other types."""
    blocks = bool(info.overrides.get("replace")) if isinstance(info.overrides, dict) else False
    for name, value in state_dict.items():
        if not _is_ordinary(name, value, any_type=blocks):
            kind = f"{value.dtype} {value.layout}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{name!r} is a {kind}; expected a dense floating-point tensor, all of it in the file")


def with_checked_types(info: WeightsInfo) -> WeightsInfo:
    """Return ``info`` with each fact as its type. Raises ValueError for a fact of another type."""
    types = get_type_hints(WeightsInfo)
    return WeightsInfo(**{name: _as_type(getattr(info, name), types[name], name) for name in types})


def with_saved_overrides(info: WeightsInfo) -> WeightsInfo:
    """Return ``info`` with all settings of dynamic layers. Raises ValueError for an unknown variant or override."""
    try:
        return replace(info, overrides=saved_overrides(info.variant, info.overrides))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{error} (overrides: {info.overrides})") from None


def _as_type(value: Any, expected: Any, name: str) -> Any:
    """Return ``value`` as the type ``expected``. Raises ValueError, with ``name`` and ``value``, for another type."""
    try:
        return msgspec.convert(value, expected)
    except (msgspec.ValidationError, AttributeError) as error:  # AttributeError: a tensor in place of a dict
        raise ValueError(f"has {value!r:.80} as {name}: {error}") from None


def _is_ordinary(name: str, value: Any, any_type: bool) -> bool:
    """Return True for a dense tensor, floating-point or a count of batches, with memory for each element (not expanded).

    With ``any_type`` it may be of any type: blocks of the user can hold indices and masks.
    """
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
        return False
    is_whole = value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    return is_whole and (any_type or value.is_floating_point() or name.endswith("num_batches_tracked"))


def save_weights(
    path: str | Path, state_dict: Mapping[str, Tensor], info: WeightsInfo, dtype: torch.dtype = torch.float32
) -> None:
    """Write weights and their facts as ``.safetensors``; floating-point values as ``dtype``.

    An existing file is replaced. Raises ValueError if a value is too large for ``dtype``, and for the weights of a deployed
    detector, which cannot be loaded again.
    """
    path = Path(path)
    branches = {name.split(".")[1] for name in state_dict if name.startswith("head.")}
    if CLASS_TOWER_NORM not in state_dict and (not info.overrides.get("replace") or len(branches) < 2):
        raise ValueError(
            f"{path}: these weights have no {CLASS_TOWER_NORM!r}, as those of a deployed detector, and could not be loaded; "
            "save those of the detector before deploy()"
        )
    entries = metadata(_with_complete_overrides(info))
    with atomic_write(path) as unfinished:  # safetensors' own save_file makes files that only their owner can read
        unfinished.write_bytes(save(as_saved(state_dict, dtype), entries))


def as_saved(state_dict: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the weights for a safetensors file: on the CPU, floating-point values as ``dtype``.

    Raises ValueError if a value is too large for ``dtype``.
    """
    tensors = {}
    for name, value in state_dict.items():
        converted = value.detach().cpu().to(dtype if value.is_floating_point() else value.dtype)
        # A copy: safetensors refuses weights that share memory.
        tensors[name] = converted.clone(memory_format=torch.contiguous_format)
        if not tensors[name].isfinite().all() and value.isfinite().all():
            raise ValueError(
                f"{name} has values up to {value.abs().max():g}, too large for {dtype}; choose bfloat16 or float32"
            )
    return tensors


def _with_complete_overrides(info: WeightsInfo) -> WeightsInfo:
    """Return ``info`` with all settings of dynamic layers. Overrides that make no detector stay: readers refuse them."""
    with suppress(ValueError, TypeError):
        return replace(info, overrides=complete_overrides(info.variant, info.overrides))
    return info


def metadata(info: WeightsInfo) -> dict[str, str]:
    """Return ``info`` as the metadata of a safetensors file, which must be text: lists and dicts become JSON."""
    names = ("overrides", "class_names", "category_ids", "image_size", "metrics")
    entries = {"format": "pt", "format_version": str(FORMAT_VERSION), "variant": info.variant}
    entries |= {name: json.dumps(getattr(info, name)) for name in names} | {"provenance": info.provenance}
    if info.best_f1_thresholds:  # optional: files of earlier versions have none
        entries["best_f1_thresholds"] = json.dumps(info.best_f1_thresholds)
    if info.block_files:
        entries["block_files"] = json.dumps(without_folders(info.block_files))
    if info.sixteen_bit_range is not None:
        entries["sixteen_bit_range"] = json.dumps(info.sixteen_bit_range)
    if info.temperature != 1:
        entries["temperature"] = json.dumps(info.temperature)
    about_data = {"data_license": info.data_license, "data_provenance": info.data_provenance}
    entries |= {name: value for name, value in about_data.items() if value is not None}
    return entries if info.license is None else entries | {"license": info.license}
