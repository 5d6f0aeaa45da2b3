"""Weights in the dicts and under the prefixes of training tools are read, and what was removed is reported."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from detector import build_detector, load_detector
from detector.weights import read_weights
from detector.weights.wrappers import plain_names
from tests.detector.reference_files import some_weights

torch.manual_seed(0)
MODEL = build_detector("yolo26_n", 2)
PLAIN = MODEL.state_dict()
AVERAGE = {name: torch.zeros_like(value) for name, value in PLAIN.items()}


def prefixed(*prefixes: str) -> dict[str, Tensor]:
    return {f"{''.join(prefixes)}{name}": value for name, value in PLAIN.items()}


FSDP = {name.replace("stage_p4.", "stage_p4._fsdp_wrapped_module."): value for name, value in PLAIN.items()}
CASES: dict[str, tuple[Any, str]] = {
    "DDP": (prefixed("module."), "without 'module.' in the names"),
    "compiled": (prefixed("_orig_mod."), "without '_orig_mod.'"),
    "compiled DDP": (prefixed("_orig_mod.", "module."), "without '_orig_mod.', 'module.'"),
    "FSDP": ({f"_fsdp_wrapped_module.{name}": value for name, value in FSDP.items()}, "without '_fsdp_wrapped_module.'"),
    "an attribute": (prefixed("detector."), "without 'detector.'"),
    "an attribute of an attribute": (prefixed("net.backbone.", "module."), "without 'module.', 'net.backbone.'"),
    "AveragedModel": (AveragedModel(MODEL).state_dict(), "without 'n_averaged', 'module.'"),
    "model": ({"model": PLAIN, "epoch": 3}, "taken from 'model'"),
    "state_dict": ({"state_dict": prefixed("model."), "optimizer": {"state": {0: {"m": torch.ones(1)}}}}, "'state_dict'; w"),
    "nested": ({"checkpoint": {"model_state_dict": prefixed("module.")}}, "taken from 'checkpoint.model_state_dict'"),
    "settings": ({"model": PLAIN, "args": argparse.Namespace(lr=1), "best": np.float64(0.5)}, "taken from 'model'"),
    "another module of Lightning": (
        {"pytorch-lightning_version": "2.6", "state_dict": prefixed("net."), "hyper_parameters": {"lr": 1}},
        "Lightning checkpoint, taken from 'state_dict'; without 'net.'",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_wrapped_weights_are_read_and_the_wrappers_named(tmp_path: Path, case: str) -> None:
    content, note = CASES[case]
    torch.save(content, tmp_path / "w.pt")
    weights = read_weights(tmp_path / "w.pt")
    assert list(weights.state_dict) == list(PLAIN)
    assert all(torch.equal(value, PLAIN[name]) for name, value in weights.state_dict.items())
    assert note in weights.kind


@pytest.mark.parametrize("key", ["ema", "model_ema", "ema_state_dict", "averaged_model"])
def test_averaged_weights_are_preferred(tmp_path: Path, key: str) -> None:
    torch.save({"model": PLAIN, key: {f"module.{name}": value for name, value in AVERAGE.items()}}, tmp_path / "w.pt")
    predictor = load_detector(tmp_path / "w.pt")
    assert all(not value.any() for value in predictor.model.state_dict().values())
    assert f"taken from '{key}' and not from 'model'; without 'module.' in the names" in predictor.source


def test_safetensors_with_a_prefix(tmp_path: Path) -> None:
    save_file({f"module.{name}": value.contiguous() for name, value in PLAIN.items()}, tmp_path / "w.safetensors")
    assert list(read_weights(tmp_path / "w.safetensors").state_dict) == sorted(PLAIN)


def test_wrapped_weights_of_the_reference(tmp_path: Path) -> None:
    for content in (
        {"state_dict": {f"_orig_mod.module.{name}": value for name, value in some_weights().items()}},
        {"ema": some_weights(), "model": some_weights()},
    ):
        torch.save(content, tmp_path / "w.pt")
        weights = read_weights(tmp_path / "w.pt")
        assert (weights.info.variant, weights.num_classes) == ("yolo26_n", 3)
        assert "public reference" in weights.kind
        assert "taken from" in weights.kind


UNCLEAR: dict[str, tuple[Any, str]] = {
    "two state dicts": ({"student": PLAIN, "teacher": PLAIN}, "several state dicts, 'student', 'teacher'"),
    "two prefixes": (prefixed("student.") | prefixed("teacher."), "several sets of weights, under the prefixes 'student.'"),
    "a part without the prefix": (prefixed("net.") | {"loss.weight": torch.ones(1)}, r"1 weights without .*'loss\.weight'"),
    "names that become the same": (PLAIN | prefixed("module."), "it is unclear which to take"),
    "half of the names": (
        {name if "head" in name else name.removeprefix("net."): value for name, value in prefixed("net.").items()},
        "weights without the prefix 'net.'",
    ),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_unclear_files_are_refused(tmp_path: Path, case: str) -> None:
    content, reason = UNCLEAR[case]
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=rf"w\.pt: has .*{reason}"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["backbone.stem.conv.weight", "head.one2many.cls.0.1.norm.weight"])
def test_a_missing_weight_is_still_refused(tmp_path: Path, name: str) -> None:
    torch.save({f"module.{key}": value for key, value in PLAIN.items() if key != name}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"w\.pt"):
        load_detector(tmp_path / "w.pt")


def test_names_of_a_real_wrapper() -> None:
    wrapped = nn.Sequential(torch.compile(MODEL))
    names, removed = plain_names(wrapped.state_dict())
    assert list(names) == list(PLAIN)
    assert removed == ["_orig_mod.", "0."]
