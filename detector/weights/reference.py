"""Read files of the public reference, and convert its weight names to ours.

Written from a specification and measurements of the files, not from the code of the reference.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from detector.weights.safe_load import Placeholder

LICENSE = "AGPL-3.0"  # of files that do not name one: the license that the writer of the reference claims for its files
DETECTION_MODEL = "ultralytics.nn.tasks.DetectionModel"
_HEADS = {"cv2", "cv3", "one2one_cv2", "one2one_cv3"}
_PREFIX = re.compile(r"^(?:(?:model|module)\.)*(?=\d+\.)")  # prefixes that wrappers put before the index of a layer
_PARTS = {"m": "blocks", "attn": "attention", "ffn": "feed_forward", "pe": "position", "qkv": "qkv", "proj": "proj"}
_BACKBONE = ["stem", "down_p2", "stage_p2", "down_p3", "stage_p3", "down_p4", "stage_p4", "down_p5", "stage_p5"]


class ReferenceFile(NamedTuple):
    """The content of a reference checkpoint, with the weights under our names."""

    state_dict: dict[str, Tensor]
    class_names: list[str] | None
    image_size: int | list[int] | None  # as written: one side, or height and width
    license: str
    origin: str  # version of the reference and date of writing


def is_reference_state_dict(content: Any) -> bool:
    """Return True for a state dict with the names of the reference, ``model.<index>....``."""
    return is_state_dict(content) and any(_PREFIX.match(key) for key in content)


def is_state_dict(content: Any) -> bool:
    """Return True for a mapping from names to tensors that is not empty."""
    return isinstance(content, Mapping) and bool(content) and all(isinstance(v, Tensor) for v in content.values())


def read_reference(content: Any) -> ReferenceFile:
    """Convert a reference checkpoint, as ``load_torch_file`` returns it, or a bare state dict.

    The averaged weights (``ema``) are preferred if the file has them. Raises ValueError, with the reason, for anything but a
    YOLO26 detection model.
    """
    if is_state_dict(content):
        return ReferenceFile(convert_reference(content), None, None, LICENSE, "bare state dict")
    if not isinstance(content, dict) or not isinstance(model := content.get("ema") or content.get("model"), Placeholder):
        keys = f" with the keys {', '.join(map(str, list(content)[:8]))}" if isinstance(content, dict) else ""
        raise ValueError(f"it holds a {type(content).__name__}{keys}; expected a 'model' or a state dict")
    if model.class_name != DETECTION_MODEL:
        raise ValueError(f"its model is a {model.class_name}; only {DETECTION_MODEL} can be converted")
    state_dict, class_names = convert_reference(_module_weights(model)), _class_names(model.state.get("names"))
    image_size = _dict_or_empty(content.get("train_args")).get("imgsz")
    origin = f"version {content.get('version', 'unknown')}, written {content.get('date', 'at an unknown time')}"
    return ReferenceFile(state_dict, class_names, image_size, str(content.get("license") or LICENSE), origin)


def _module_weights(module: Any, prefix: str = "", depth: int = 0) -> dict[str, Tensor]:
    """Return the state dict of a module that was loaded as a ``Placeholder``."""
    if not isinstance(module, Placeholder) or depth > 20:
        raise ValueError(f"{prefix.rstrip('.') or 'its model'} is not a layer but a {type(module).__name__}")
    hidden = module.state.get("_non_persistent_buffers_set") or ()
    weights = {}
    for kind in ("_parameters", "_buffers"):
        for name, value in _dict_or_empty(module.state.get(kind)).items():
            if isinstance(value, Tensor) and name not in hidden:
                weights[f"{prefix}{name}"] = value.detach()
    for name, child in _dict_or_empty(module.state.get("_modules")).items():
        if child is not None:
            weights |= _module_weights(child, f"{prefix}{name}.", depth + 1)
    return weights


def _dict_or_empty(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _class_names(names: Any) -> list[str] | None:
    """Return the class names in order, from a list or a dict by number."""
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise ValueError(f"its classes are numbered {list(names)[:5]}...; expected 0 to {len(names) - 1}")
        names = [names[number] for number in range(len(names))]
    return [str(name) for name in names] if names else None


def convert_reference(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the names of a YOLO26 detection model from those of the reference (``model.<index>....``) to ours.

    Values stay as they are. All scales and the P2 and P6 layouts are known; the index of the head shows the layout. Wrappers
    may have put more ``model.`` or ``module.`` before the names. Raises ValueError for a name that such a model does not
    have, and for other models.
    """
    state_dict = _with_plain_prefix(state_dict)
    layers = _layer_names(state_dict)
    heads = _head_parts(max(layers), state_dict)
    converted: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        match = re.fullmatch(r"model\.(\d+)\.(.+)", key)
        if match is None or int(match[1]) not in layers:
            raise ValueError(f"{key!r} is not a weight of a YOLO26 detection model; expected names like model.0.conv.weight")
        index, rest = int(match[1]), match[2]
        name = _head_name(rest) if layers[index] == "head" else _block_name(f"model.{index}", rest, state_dict)
        name = f"{layers[index]}.{name}"
        if name in converted:
            raise ValueError(f"{key!r} and another weight would both become {name!r}; expected one of them")
        converted[name] = value
    if missing := sorted(_HEADS - heads):
        raise ValueError(f"its head has no {', '.join(missing)}; YOLO26 has two branches (files of fused models have one)")
    return converted


def _with_plain_prefix(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under names that begin with ``model.<index>.``, without the prefixes of wrappers."""
    originals = {_PREFIX.sub("model.", key, count=1): key for key in state_dict}
    if duplicates := sorted(state_dict.keys() - originals.values()):
        raise ValueError(
            f"has {duplicates[0]!r} twice, with different prefixes before its number; expected each weight once"
        )
    return {key: state_dict[original] for key, original in originals.items()}


def _layer_names(state_dict: Mapping[str, Tensor]) -> dict[int, str]:
    """Return our module name for each index in the layer list of the reference that has weights."""
    indices = [int(match[1]) for key in state_dict if (match := re.match(r"model\.(\d+)\.", key))]
    last = max(indices, default=-1)
    layouts = {23: (3, 5), 29: (2, 5), 31: (3, 6)}  # index of the head, the last layer -> finest and coarsest level
    if last not in layouts:
        raise ValueError(f"the last layer has index {last}; YOLO26 detection models end at 23, at 29 (P2) or at 31 (P6)")
    finest, coarsest = layouts[last]
    backbone = [*_BACKBONE, "down_p6", "stage_p6"] if coarsest == 6 else _BACKBONE
    names = [f"backbone.{name}" for name in [*backbone, "sppf", "attention"]]
    count = coarsest - finest
    for level in reversed(range(count)):
        names += ["", "", f"neck.top_down.{level}"]  # upsampling and concatenation have no weights
    for level in range(count):
        names += [f"neck.down.{level}", "", f"neck.bottom_up.{level}"]
    return {index: name for index, name in enumerate([*names, "head"]) if name}


def _head_parts(index: int, state_dict: Mapping[str, Tensor]) -> set[str]:
    """Return the names of the parts of the head. Raises ValueError for the head of another model at the same index."""
    parts = {key.split(".")[2] for key in state_dict if key.startswith(f"model.{index}.")}
    if "dfl" in parts:
        raise ValueError("its head predicts distributions of distances (dfl), as YOLO11 and older do; YOLO26 does not")
    if others := sorted(parts - _HEADS):
        raise ValueError(f"its head has {', '.join(others)}: not a detection model, but one for masks, poses or the like")
    return parts


def _head_name(rest: str) -> str:
    """Return our name for ``rest``, a path inside the head: cv2 are the box towers, cv3 the class towers."""
    match = re.fullmatch(r"(one2one_)?cv([23])\.(\d+)\.(.+)", rest)
    if match is None:
        raise ValueError(f"head weight {rest!r} is not known; expected names like cv2.0.0.conv.weight")
    branch = "one2one" if match[1] else "one2many"
    layer = match[4]
    if match[2] == "2":
        return f"{branch}.box.{match[3]}.{_conv_name(layer)}"
    if pair := re.match(r"([01])\.([01])\.", layer):  # the reference has two pairs of layers, we have one sequence
        layer = f"{2 * int(pair[1]) + int(pair[2])}.{layer[pair.end() :]}"
    else:
        layer = re.sub(r"^2\.", "4.", layer)
    return f"{branch}.cls.{match[3]}.{_conv_name(layer)}"


def _block_name(prefix: str, rest: str, state_dict: Mapping[str, Tensor]) -> str:
    """Return our name for ``rest``, a path inside layer ``prefix``. The meaning of cv1, cv2, cv3 depends on the block."""
    names, parts = [], rest.split(".")
    for part in parts[:-2]:  # the last two are conv or bn, and the tensor
        names.append(_PARTS.get(part) or _csp_part(prefix, part, state_dict))
        prefix = f"{prefix}.{part}"
    return ".".join([*names, _conv_name(".".join(parts[-2:]))])


def _csp_part(prefix: str, part: str, state_dict: Mapping[str, Tensor]) -> str:
    """Return our name for ``part`` of the block at ``prefix``, whose kind shows in the weights that it has."""
    if part.isdigit():
        return part
    if f"{prefix}.cv3.conv.weight" in state_dict:
        block = {"cv1": "main", "cv2": "side", "cv3": "merge"}
    elif any(key.startswith(f"{prefix}.m.") for key in state_dict):
        block = {"cv1": "split", "cv2": "merge"}
    elif prefix.count(".") == 1:
        block = {"cv1": "reduce", "cv2": "merge"}
    else:
        block = {"cv1": "conv1", "cv2": "conv2"}
    if part not in block:
        raise ValueError(f"{prefix}.{part} is not a layer of a YOLO26 detection model")
    return block[part]


def _conv_name(name: str) -> str:
    return re.sub(r"\bbn\.", "norm.", name)
