"""Settings of a detector: what is not given, and what files record of dynamic layers."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from detector import DetectorModule, build_detector, load_detector
from detector.commands.train_cli import TrainCLI
from detector.dynamic import DynamicConfig, dynamic_layers
from detector.network.config import (
    VARIANTS,
    complete_overrides,
    detector_config,
    merge_overrides,
    nested_overrides,
    network_options,
    saved_overrides,
)
from detector.runs.checks import SECTIONS
from detector.weights import WeightsInfo, read_weights, save_weights

TINY = {"width": 0.125, "depth": 0.33}
NAMES = ["a", "b"]


@pytest.fixture
def omni(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make omni layers in the neck the default of dyn_n."""
    dynamic = DynamicConfig(kind="omni", where="neck-bottlenecks", gates=["input"])
    monkeypatch.setitem(VARIANTS, "dyn_n", replace(VARIANTS["dyn_n"], dynamic=dynamic))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"kind": "omni", "where": "neck-bottlenecks", "gates": ["input"]}),
        ({"where": "all"}, {"kind": "omni", "where": "all", "gates": ["input"]}),
        ({"num_experts": 2, "temperature": 3}, {"kind": "omni", "num_experts": 2, "temperature": 3, "gates": ["input"]}),
        ({"kind": "omni", "gates": ["filter"]}, {"kind": "omni", "gates": ["filter"]}),
        ({"kind": "residual"}, {"kind": "residual"}),
        (
            {"kind": "mixture", "where": "all", "routing": "softmax"},
            {"kind": "mixture", "where": "all", "routing": "softmax"},
        ),
    ],
    ids=str,
)
def test_fields_that_are_not_given_are_those_of_the_variant(given: dict, expected: dict, omni: None) -> None:
    """With another kind they are those of the kind, except for the place."""
    expected = {"where": "neck-bottlenecks"} | expected
    assert detector_config("dyn_n", dynamic=given).dynamic == DynamicConfig(**expected)
    # A variant without dynamic layers has the defaults of DynamicConfig.
    assert detector_config("yolo26_n", dynamic=given).dynamic == DynamicConfig(**given)
    assert detector_config("dyn_n", dynamic=None).dynamic is None


def test_a_default_that_depends_on_another_field_follows_it() -> None:
    """The direct router of the variant has no normalization, a bottleneck has one."""
    assert detector_config("dyn_n", dynamic={"router": "bottleneck"}).dynamic.router_norm == "batch"


def test_parameternets_have_mixtures_in_every_variant(omni: None) -> None:
    """Their published layers, unless others are asked for."""
    config = detector_config("dyn_n", backbone="parameternet_w050")
    assert config.dynamic == DynamicConfig()
    assert detector_config("dyn_n", backbone="parameternet_w050", dynamic={"kind": "omni"}).dynamic.kind == "omni"
    assert detector_config("dyn_n", backbone="parameternet_w050_plain").dynamic.kind == "omni"


@pytest.mark.parametrize("dynamic", ["omni", 3, ["omni"], True])
def test_dynamic_must_have_fields(dynamic: Any) -> None:
    with pytest.raises(ValueError, match=r"expected fields of DynamicConfig, as \{'kind': 'omni'\}"):
        detector_config("dyn_n", dynamic=dynamic)
    with pytest.raises(ValueError, match=r"dynamic: unknown field 'gate'; did you mean gates\?"):
        detector_config("dyn_n", dynamic={"gate": ["input"]})


@pytest.mark.parametrize(
    ("dynamic", "message"),
    [
        ({"num_experts": 10**8}, "dynamic: num_experts is 100000000; expected a whole number of at least 1, at most 1024"),
        ({"where": "nowhere"}, "dynamic: where: 'nowhere' names no convolution"),
        ({"where": "("}, r"dynamic: where: '\(' is not a regular expression"),
        ({"kind": "omni", "gates": ["position"], "where": "pointwise"}, r"dynamic: backbone\.stage_p2\.split\.conv: .* 1x1"),
    ],
)
def test_dynamic_layers_that_cannot_be_are_refused_before_data_are_read(dynamic: dict[str, Any], message: str) -> None:
    model = dict.fromkeys(("weights", "backbone", "backbone_weights", "replace", "block_files"))
    model |= {"variant": "yolo26_n", "overrides": TINY | {"dynamic": dynamic}}
    with pytest.raises(ValueError, match=message):
        TrainCLI._check_network_settings(SimpleNamespace(config={"model": model}))


def test_overrides_of_files(omni: None) -> None:
    """Files of earlier versions, which name no kind, have mixtures; others have the default at the time of writing."""
    mixture, default = DynamicConfig().to_dict(), VARIANTS["dyn_n"].dynamic.to_dict()
    assert saved_overrides("dyn_n", {}) == {"dynamic": mixture}
    old = {"width": 0.5, "dynamic": {"num_experts": 2, "routing": "softmax"}}
    assert saved_overrides("dyn_n", old)["dynamic"] == mixture | old["dynamic"]
    assert saved_overrides("yolo26_n", {"dynamic": {}}) == {"dynamic": mixture}
    assert saved_overrides("yolo26_n", TINY) == TINY
    assert saved_overrides("dyn_n", {"dynamic": None}) == {"dynamic": None}
    assert complete_overrides("dyn_n", TINY) == TINY | {"dynamic": default}
    assert saved_overrides("dyn_n", complete_overrides("dyn_n", TINY)) == TINY | {"dynamic": default}


def test_given_fields_replace_those_of_a_file() -> None:
    saved = {"width": 0.5, "dynamic": DynamicConfig(kind="omni", gates=["input"]).to_dict()}
    assert merge_overrides(saved, {"dynamic": {"where": "all"}})["dynamic"] == saved["dynamic"] | {"where": "all"}
    assert merge_overrides(saved, {"dynamic": {"kind": "residual"}}) == {"width": 0.5, "dynamic": {"kind": "residual"}}
    assert merge_overrides(saved, {"dynamic": None}) == {"width": 0.5, "dynamic": None}


def old_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Write a checkpoint as earlier versions did, without settings of its dynamic layers, and return its weights."""
    detector = build_detector("dyn_n", 2, **TINY)
    state_dict = {f"model.{name}": value for name, value in detector.state_dict().items()}
    settings = {"variant": "dyn_n", "class_names": NAMES, "overrides": TINY}
    content = {"pytorch-lightning_version": "2.5.0", "state_dict": state_dict, "hyper_parameters": settings}
    torch.save(content | {"epoch": 0, "global_step": 0, "loops": {}}, path)
    return detector.state_dict()


def test_old_files_keep_their_layers_whatever_the_default_becomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, safetensors = tmp_path / "old.ckpt", tmp_path / "old.safetensors"
    state_dict = old_checkpoint(checkpoint)
    with monkeypatch.context() as patch:  # before settings were written in full
        patch.setattr("detector.weights.files.complete_overrides", lambda variant, overrides: overrides)
        save_weights(safetensors, state_dict, WeightsInfo("dyn_n", TINY, class_names=NAMES))
    torch.save(state_dict, tmp_path / "bare.pt")
    dynamic = DynamicConfig(kind="omni", where="all")
    monkeypatch.setitem(VARIANTS, "dyn_n", replace(VARIANTS["dyn_n"], dynamic=dynamic))
    fine_tuned = [DetectorModule(None, NAMES, weights=path) for path in (checkpoint, safetensors)]
    fine_tuned.append(DetectorModule("dyn_n", NAMES, overrides=TINY, weights=checkpoint))
    networks = [load_detector(path).model for path in (checkpoint, safetensors)]
    networks += [module.model for module in (DetectorModule.load_from_checkpoint(checkpoint), *fine_tuned)]
    for network in networks:
        assert {layer.kind for layer in dynamic_layers(network).values()} == {"mixture"}
    assert all(module.hparams.overrides["dynamic"]["kind"] == "mixture" for module in fine_tuned)
    assert DetectorModule("dyn_n", NAMES, overrides=TINY).hparams.overrides["dynamic"]["kind"] == "omni"


def test_new_files_name_all_settings(tmp_path: Path, omni: None) -> None:
    detector = build_detector("dyn_n", 2, **TINY)
    save_weights(tmp_path / "w.safetensors", detector.state_dict(), WeightsInfo("dyn_n", TINY))
    assert read_weights(tmp_path / "w.safetensors").info.overrides["dynamic"] == VARIANTS["dyn_n"].dynamic.to_dict()


def test_fields_of_a_command_line() -> None:
    given = {
        "width": 0.5,
        "dynamic": {"kind": "omni", "gates": ["input"]},
        "dynamic.gates": ["filter"],
        "dynamic.where": "all",
    }
    dynamic = {"kind": "omni", "gates": ["filter"], "where": "all"}
    assert nested_overrides(given) == {"width": 0.5, "dynamic": dynamic}
    assert nested_overrides(TINY) == TINY


@pytest.mark.parametrize(
    ("variant", "overrides", "options"),
    [
        ("dyn_n", {}, ""),
        ("dyn_n", {"dynamic": {"num_experts": 8}}, """ --model.overrides '{"dynamic": {"num_experts": 8}}'"""),
        ("dyn_n", {"dynamic": None}, """ --model.overrides '{"dynamic": null}'"""),
        ("yolo26_n", TINY, """ --model.overrides '{"width": 0.125, "depth": 0.33}'"""),
        ("dyn_n", {"backbone": "timm/resnet18"}, " --model.backbone timm/resnet18"),
        ("yolo26_s", {"replace": ["x"]}, """ --model.replace '["x"]'"""),
    ],
)
def test_the_options_of_a_network_are_those_that_differ(variant: str, overrides: dict[str, Any], options: str) -> None:
    """Also if the overrides name all settings of the dynamic layers, as files have them."""
    complete = complete_overrides(variant, {name: value for name, value in overrides.items() if name != "replace"})
    assert network_options(variant, complete | overrides if "replace" in overrides else complete) == (
        f"--model.variant {variant}{options}"
    )


@pytest.mark.parametrize("how", ["resumed", "repeated", "new"])
def test_configurations_of_old_runs_keep_their_layers(how: str, tmp_path: Path, omni: None) -> None:
    """A run's config.yaml has all settings: if it names no kind, it is of a version without kinds. A user's file is not."""
    settings = {section: {} for section in SECTIONS} | {"run_dir": "runs/dyn_n", "model": {"variant": "dyn_n"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings if how != "new" else {"model": {"variant": "dyn_n"}}))
    model = dict.fromkeys(("overrides", "weights", "backbone", "backbone_weights", "backbone_lr_ratio", "accept_license"))
    model |= {"variant": "dyn_n", "replace": None, "block_files": None, "new_parts": None}
    config = {"config": [tmp_path / "config.yaml"], "ckpt_path": None, "model": model}
    if how == "resumed":
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(VARIANTS, "dyn_n", replace(VARIANTS["dyn_n"], dynamic=DynamicConfig()))
            old_checkpoint(tmp_path / "last.ckpt")
        config |= {"config": [], "ckpt_path": str(tmp_path / "last.ckpt")}
    cli = SimpleNamespace(config=config)
    TrainCLI._resolve_model_settings(cli)
    TrainCLI._check_network_settings(cli)
    dynamic = (model["overrides"] or {}).get("dynamic")
    assert dynamic == (None if how == "new" else DynamicConfig().to_dict())
