"""The inputs of the golden numbers in tests/golden: every tensor is a hash of its name and index."""

import json
import re
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


def load(name: str):
    """Read tests/golden/<name>.json."""
    return json.loads((GOLDEN / f"{name}.json").read_text())


def hashed(name: str, shape: tuple[int, ...] | list[int], dtype: type = np.float32) -> Tensor:
    """Return values in -0.5..0.5 that depend only on ``name`` and the row-major index; they need float64 to be exact."""
    h = np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.uint32)
    h = h * np.uint32(2654435761) + np.uint32(zlib.crc32(name.encode()))
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    h = h ^ (h >> np.uint32(16))
    return torch.from_numpy((h / 2.0**32 - 0.5).astype(dtype)).view(list(shape))


def reference_weights(keys_and_shapes: list, num_classes: int) -> dict[str, Tensor]:
    """Return hashed weights of a reference model under its own names, with the class branch for ``num_classes``."""
    shapes = dict(keys_and_shapes)
    finest = next(shape[0] for key, shape in shapes.items() if key.endswith("cv3.0.0.0.conv.weight"))
    width = max(finest, min(num_classes, 100))
    return {key: _weight(key, _class_branch_shape(key, shape, num_classes, width)) for key, shape in shapes.items()}


def _class_branch_shape(key: str, shape: list[int], num_classes: int, width: int) -> list[int]:
    layer = re.fullmatch(r"model\.\d+\.(?:one2one_)?cv3\.\d+\.(.+)", key)
    if layer is None or layer[1].startswith("0.0.") or not shape:
        return shape
    if layer[1].startswith("2."):
        return [num_classes] if layer[1] == "2.bias" else [num_classes, width, 1, 1]
    return [width, width, 1, 1] if layer[1] == "1.1.conv.weight" else [width, *shape[1:]]


def _weight(key: str, shape: list[int]) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    u = hashed(key, shape)
    if len(shape) == 4:
        return u * 2 * (6 / (shape[1] * shape[2] * shape[3])) ** 0.5
    if key.endswith("running_var"):
        return 1 + 0.4 * u
    if key.endswith("bn.weight"):
        return 1 + 0.2 * u
    if key.endswith(("running_mean", "bn.bias")):
        return 0.2 * u
    return u + 2 if shape == [4] else u - 4
