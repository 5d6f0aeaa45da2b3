"""Files of the public reference: which load, and which are refused with the reason."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detector import build_detector, load_detector
from detector.dynamic import dynamic_layers
from detector.weights.files import read_weights
from detector.weights.infer import infer_variant
from detector.weights.reference import convert_reference
from tests.detector.reference_files import some_weights, write_checkpoint
from tests.golden_values import load

NAMES = {0: "red", 1: "green", 2: "blue"}
LAYOUTS = ["n", "s", "m", "l", "x", "n-p2", "n-p6"]


def outputs(model: nn.Module) -> list[Tensor]:
    images = torch.linspace(0, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    with torch.no_grad():
        raw = model.eval()(images)
    return [raw[branch][kind] for branch in ("one2one", "one2many") for kind in ("boxes", "scores")]


def test_a_checkpoint_loads_without_the_package_that_wrote_it(tmp_path: Path) -> None:
    weights = some_weights()
    path = write_checkpoint(tmp_path / "cells.pt", weights, NAMES, train_args={"imgsz": 320}, license="AGPL-3.0 (url)")
    assert not [name for name in sys.modules if name.startswith("ultralytics")]
    predictor = load_detector(path)
    assert not [name for name in sys.modules if name.startswith("ultralytics")]
    assert (predictor.class_names, predictor.category_ids) == (["red", "green", "blue"], [0, 1, 2])
    assert predictor.image_size == (320, 320)
    assert "cells.pt" in predictor.source
    info = predictor.info
    assert (info.variant, info.overrides, info.license) == ("yolo26_n", {}, "AGPL-3.0 (url)")
    for part in ("cells.pt", "8.4.190", "2026-11-24", "sha256"):
        assert part in info.provenance

    expected = build_detector("yolo26_n", 3)
    halves = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    expected.load_state_dict(convert_reference(halves))
    for a, b in zip(outputs(predictor.model), outputs(expected)):
        assert torch.equal(a, b)


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    raw, average = some_weights(), some_weights()
    average["model.0.conv.weight"] = torch.ones_like(average["model.0.conv.weight"])
    path = write_checkpoint(tmp_path / "full.pt", raw, list(NAMES.values()), ema=average, epoch=3)
    weights = read_weights(path)
    assert (weights.state_dict["backbone.stem.conv.weight"] == 1).all()
    assert weights.info.class_names == ["red", "green", "blue"]
    assert weights.info.license == "AGPL-3.0"  # the file does not name one


@pytest.mark.parametrize("prefix", ["model.", "", "model.model.", "module.model."])
def test_a_bare_state_dict_loads(tmp_path: Path, prefix: str) -> None:
    names = {key: key.replace("model.", prefix, 1) for key in some_weights()}
    torch.save({names[key]: value for key, value in some_weights().items()}, tmp_path / "bare.pt")
    weights = read_weights(tmp_path / "bare.pt")
    assert (weights.info.variant, weights.num_classes, weights.info.class_names) == ("yolo26_n", 3, None)
    assert len(weights.state_dict) == len(names)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_variant_is_inferred_from_the_shapes(layout: str) -> None:
    shapes = {key: torch.empty(shape, device="meta") for key, shape in load(f"state_dict_{layout}")}
    assert infer_variant(convert_reference(shapes)) == (f"yolo26_{layout}", {})


@pytest.mark.parametrize(
    "dynamic",
    [
        {"kind": "mixture", "where": "backbone-bottlenecks"},
        {"kind": "mixture", "where": "neck-bottlenecks", "num_experts": 3, "routing": "softmax"},
        {"kind": "omni", "where": "pointwise", "router_norm": "none"},
        {
            "kind": "omni",
            "where": [r"backbone\.stem\.conv", r"neck\.down\.0\.conv"],
            "gates": ["position"],
            "num_experts": 2,
            "router_norm": "layer",
        },
        {"kind": "residual", "gates": ["input"], "num_experts": 3},
    ],
    ids=str,
)
def test_dynamic_layers_are_inferred_from_the_routers(dynamic: dict[str, Any]) -> None:
    with torch.device("meta"):
        detector = build_detector("dyn_s", 2, dynamic=dynamic)
        variant, overrides = infer_variant(detector.state_dict())
        inferred = build_detector(variant, 2, **overrides)
    layers, expected = dynamic_layers(inferred), dynamic_layers(detector)
    assert (variant, list(layers)) == ("dyn_s", list(expected))
    assert [layer.settings for layer in layers.values()] == [layer.settings for layer in expected.values()]


@pytest.mark.parametrize(
    "dynamic", [{"kind": "residual", "routing": "softmax"}, {"kind": "mixture", "router": "bottleneck"}]
)
def test_a_routing_that_names_do_not_show_is_not_guessed(dynamic: dict[str, Any]) -> None:
    with torch.device("meta"):
        state_dict = build_detector("dyn_n", 2, dynamic=dynamic).state_dict()
    with pytest.raises(ValueError, match=r"do not show whether routing is 'softmax' or 'sigmoid'; read the checkpoint"):
        infer_variant(state_dict)


def yolo11(path: Path) -> None:
    weights = {key: value for key, value in some_weights().items() if "one2one" not in key}
    write_checkpoint(path, weights | {"model.23.dfl.conv.weight": torch.zeros(1, 16, 1, 1)}, NAMES)


def masks(path: Path) -> None:
    write_checkpoint(path, some_weights(), NAMES, model_class="ultralytics.nn.tasks.SegmentationModel")


def bare_masks(path: Path) -> None:
    torch.save(some_weights() | {"model.23.proto.cv1.conv.weight": torch.zeros(1)}, path)


def twice(path: Path) -> None:
    torch.save(some_weights() | {"model.model.0.conv.weight": torch.zeros(16, 3, 3, 3)}, path)


def norm_beside_bn(path: Path) -> None:
    torch.save(some_weights() | {"model.0.norm.weight": torch.zeros(16)}, path)


def fifth_beside_third(path: Path) -> None:
    torch.save(some_weights() | {"model.23.cv3.0.4.bias": torch.zeros(3)}, path)


def older(path: Path) -> None:
    torch.save({"model.22.cv2.0.0.conv.weight": torch.zeros(1)}, path)


def fused(path: Path) -> None:
    torch.save({key: value for key, value in some_weights().items() if "23.cv" not in key}, path)


def cut_off(path: Path) -> None:
    write_checkpoint(path, some_weights(), NAMES)
    path.write_bytes(path.read_bytes()[:-5000])


def overwritten(path: Path) -> None:
    write_checkpoint(path, some_weights(), NAMES)
    content = bytearray(path.read_bytes())
    content[40:400] = b"\xff" * 360
    path.write_bytes(bytes(content))


def wrong_names(path: Path) -> None:
    write_checkpoint(path, some_weights(), {0: "red", 1: "green"})


def not_a_module(path: Path) -> None:
    torch.save({"model": 3, "epoch": 1}, path)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (yolo11, r"dfl.*YOLO11"),
        (masks, "SegmentationModel"),
        (bare_masks, "its head has proto"),
        (twice, r"has 'model\.0\.conv\.weight' twice"),
        (norm_beside_bn, r"both become 'backbone\.stem\.norm\.weight'"),
        (fifth_beside_third, r"both become 'head\.one2many\.cls\.0\.4\.bias'"),
        (older, "last layer has index 22"),
        (fused, "its head has no cv2, cv3"),
        (cut_off, "cut off or damaged"),
        (overwritten, r"cannot be (read|listed)"),
        (wrong_names, "2 class names, but weights for 3"),
        (not_a_module, "keys model, epoch"),
        (lambda path: torch.save(None, path), "holds a NoneType"),
        (lambda path: path.write_text("<html>404 not found</html>"), "begins with b'<htm'"),
        (lambda path: path.write_bytes(b""), "is an empty file; get it again"),
        (lambda path: None, "no such file"),
    ],
)
def test_unusable_files_are_refused_with_the_reason(tmp_path: Path, write: Any, reason: str) -> None:
    path = tmp_path / "strange.pt"
    write(path)
    with pytest.raises(ValueError, match=rf"(?s)strange\.pt.*{reason}"):
        read_weights(path)
