"""Weights under other names: the layer list of the public reference, read as ours."""

import re

from torch import Tensor

_BACKBONE = ["stem", "down_p2", "stage_p2", "down_p3", "stage_p3", "down_p4", "stage_p4", "down_p5", "stage_p5"]


def convert_reference(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state_dict`` of a YOLO26 detection model with the reference's names (``model.<index>....``) under ours.

    Works for all scales and the P2 and P6 layouts, which the index of the head tells apart. Raises ValueError for a key
    that belongs to no such layer. Values are passed on as they are.
    """
    layers = _layer_names(state_dict)
    converted = {}
    for key, value in state_dict.items():
        match = re.fullmatch(r"model\.(\d+)\.(.+)", key)
        if match is None or int(match[1]) not in layers:
            raise ValueError(f"{key!r} is not a weight of a YOLO26 detection model; expected names like model.0.conv.weight")
        index, rest = int(match[1]), match[2]
        name = _head_name(rest) if layers[index] == "head" else _block_name(f"model.{index}", rest, state_dict)
        converted[f"{layers[index]}.{name}"] = value
    return converted


def _layer_names(state_dict: dict[str, Tensor]) -> dict[int, str]:
    """Map the indices of the reference's layer list to our module names."""
    indices = [int(match[1]) for key in state_dict if (match := re.match(r"model\.(\d+)\.", key))]
    last = max(indices, default=-1)
    layouts = {23: (3, 5), 29: (2, 5), 31: (3, 6)}  # index of the head -> finest and coarsest level
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


def _head_name(rest: str) -> str:
    match = re.fullmatch(r"(one2one_)?cv([23])\.(\d+)\.(.+)", rest)
    if match is None:
        raise ValueError(f"head weight {rest!r} is not known; expected cv2, cv3, one2one_cv2 or one2one_cv3")
    branch = "one2one" if match[1] else "one2many"
    layer = match[4]
    if match[2] == "2":
        return f"{branch}.box.{match[3]}.{_conv_name(layer)}"
    if pair := re.match(r"([01])\.([01])\.", layer):  # two pairs of layers; ours is one sequence
        layer = f"{2 * int(pair[1]) + int(pair[2])}.{layer[pair.end() :]}"
    else:
        layer = re.sub(r"^2\.", "4.", layer)
    return f"{branch}.cls.{match[3]}.{_conv_name(layer)}"


def _block_name(prefix: str, rest: str, state_dict: dict[str, Tensor]) -> str:
    """Rename the path ``rest`` inside layer ``prefix``; what cv1, cv2, cv3 are depends on the block they stand in."""
    names, parts = [], rest.split(".")
    for part in parts[:-2]:  # the last two are conv or bn, and the tensor
        names.append(_PARTS.get(part) or _csp_part(prefix, part, state_dict))
        prefix = f"{prefix}.{part}"
    return ".".join([*names, _conv_name(".".join(parts[-2:]))])


_PARTS = {"m": "blocks", "attn": "attention", "ffn": "feed_forward", "pe": "position", "qkv": "qkv", "proj": "proj"}


def _csp_part(prefix: str, part: str, state_dict: dict[str, Tensor]) -> str:
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
