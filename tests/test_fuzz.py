"""Files with one mistake: whatever it is, they are read, or refused with a ValueError that names the field.

A few cases run with the other tests. ``FUZZ_CASES=3000 python -m pytest tests/test_fuzz.py`` runs 3,000 of each kind.
"""

import copy
import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from data.coco import read_coco
from detector.weights.files import read_weights, save_weights
from detector.weights.infer import CLASS_TOWER_NORM
from detector.weights.info import WeightsInfo

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CASES = int(os.environ.get("FUZZ_CASES", 60))
checked = settings(
    max_examples=CASES,
    deadline=None,
    database=None,
    derandomize="FUZZ_CASES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
fuzzed = pytest.mark.filterwarnings("ignore")

numbers = st.integers(-(2**70), 2**70) | st.integers(-3, 300) | st.floats()
leaves = st.none() | st.booleans() | numbers | st.text(max_size=8)
values = st.recursive(leaves, lambda x: st.lists(x, max_size=5) | st.dictionaries(st.text(max_size=5), x, max_size=3))
KeyPath = tuple[Any, ...]

COCO = {
    "images": [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in (1, 2)],
    "annotations": [
        {"id": 5, "image_id": 1, "category_id": 3, "bbox": [1, 2, 20, 10], "area": 200, "iscrowd": 0},
        {"id": 6, "image_id": 2, "category_id": 7, "bbox": [4.5, 2, 9, 9.5], "area": 85.5, "iscrowd": 1},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
}
# The number of classes and the width of the class towers are read off these weights.
STATE = {"head.one2many.cls.0.4.bias": torch.zeros(2), CLASS_TOWER_NORM: torch.ones(40)}
INFO = WeightsInfo("yolo26_n", {"width": 0.5}, ["cat", "dog"], [3, 7], (64, 96), "Apache-2.0", "made up", {"val/AP": 0.5})
CHECKPOINT = {
    "pytorch-lightning_version": "2.6.0",
    "state_dict": {f"model.{name}": value for name, value in STATE.items()},
    "hyper_parameters": {
        "variant": "yolo26_n",
        "overrides": {"width": 0.5},
        "class_names": ["cat", "dog"],
        "category_ids": [3, 7],
        "image_size": [64, 96],
    },
    "weights_info": {"license": "Apache-2.0", "provenance": "made up", "metrics": {"val/AP": 0.5}},
}


def key_paths(content: Any, at: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path, a tuple of keys, to every field and element of ``content``."""
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield (*at, key)
            yield from key_paths(content[key], (*at, key))


def changed(content: Any, key_path: KeyPath, value: Any, remove: bool) -> Any:
    """Return a copy of ``content`` with ``value`` at ``key_path``, or without that entry."""
    content = copy.deepcopy(content)
    parent = content
    for key in key_path[:-1]:
        parent = parent[key]
    if remove:
        del parent[key_path[-1]]
    else:
        parent[key_path[-1]] = value
    return content


def refusal(read: Callable[[], Any], path: Path) -> str | None:
    """Return the message of the ValueError that ``read`` raises, which must name the file; None if it raises nothing."""
    message = None
    try:
        read()
    except ValueError as error:
        message = str(error)
    assert message is None or str(path) in message
    return message


def names(message: str, key_path: KeyPath) -> bool:
    """Return True if ``message`` has the field at ``key_path``, as ``bbox``, or the kind of entry, as an annotation."""
    word = [key for key in key_path if isinstance(key, str)][-1]
    return {"images": "image", "annotations": "annotation", "categories": "categor"}.get(word, word) in message


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    for image in COCO["images"]:
        (folder / image["file_name"]).write_bytes(b"")
    save_weights(folder / "whole.safetensors", STATE, INFO)
    torch.save(CHECKPOINT, folder / "whole.ckpt")
    return folder


@fuzzed
@checked
@given(st.sampled_from(list(key_paths(COCO))), values, st.booleans())
def test_annotations_with_one_field_changed(folder: Path, key_path: KeyPath, value: Any, remove: bool) -> None:
    path = folder / "field.json"
    path.write_text(json.dumps(changed(COCO, key_path, value, remove)))
    message = refusal(lambda: read_coco(path, folder), path)
    assert message is None or names(message.replace(str(path), ""), key_path), message


@fuzzed
@checked
@given(st.integers(0, len(json.dumps(COCO)) - 1), st.integers(0, 255))
def test_annotations_with_one_byte_changed(folder: Path, position: int, byte: int) -> None:
    content = bytearray(json.dumps(COCO).encode())
    content[position] = byte
    path = folder / "byte.json"
    path.write_bytes(content)
    refusal(lambda: read_coco(path, folder), path)


@fuzzed
@checked
@given(
    st.sampled_from([key_path for key_path in key_paths(CHECKPOINT) if key_path[0] != "pytorch-lightning_version"]),
    values,
    st.booleans(),
)
def test_checkpoints_with_one_field_changed(folder: Path, key_path: KeyPath, value: Any, remove: bool) -> None:
    path = folder / "field.ckpt"
    torch.save(changed(CHECKPOINT, key_path, value, remove), path)
    message = refusal(lambda: read_weights(path), path)
    assert message is None or names(message.replace(" ", "_"), key_path) or "head.one2many" in message, message


@fuzzed
@checked
@given(st.sampled_from(["whole.ckpt", "whole.safetensors"]), st.floats(0, 1, exclude_max=True), st.integers(0, 255))
def test_weights_with_one_byte_changed(folder: Path, name: str, position: float, byte: int) -> None:
    content = bytearray((folder / name).read_bytes())
    content[int(position * len(content))] = byte
    path = folder / f"byte{Path(name).suffix}"
    path.write_bytes(content)
    refusal(lambda: read_weights(path), path)


@fuzzed
@checked
@given(st.data())
def test_safetensors_with_one_field_changed(folder: Path, data: st.DataObject) -> None:
    content = (folder / "whole.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    key_path = data.draw(st.sampled_from(list(key_paths(header))))
    value = data.draw(values.map(json.dumps) | values)
    remove = data.draw(st.booleans())
    text = json.dumps(changed(header, key_path, value, remove)).encode()
    path = folder / "field.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    message = refusal(lambda: read_weights(path), path)
    if message is None or names(message.replace(" ", "_"), key_path):
        return
    if key_path[0] == "__metadata__" and (remove or (len(key_path) == 2 and isinstance(value, str))):  # a valid header
        # Without our metadata it is a bare state dict, which lacks weights here.
        assert key_path[-1] in ("__metadata__", "format_version"), message
        assert "head." in message, message
    else:  # safetensors refuses the header in its own words; an empty __metadata__ is valid, too
        assert "not a readable safetensors file (" in message or "head." in message, message
