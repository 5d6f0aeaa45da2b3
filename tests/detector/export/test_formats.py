"""Exported files against PyTorch, in the runtimes that users have."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from detector import Detector, build_detector
from detector.dynamic import DynamicConv2d, make_dynamic
from detector.export.formats import export, export_metadata
from detector.export.graph import MAX_DETECTIONS, ExportGraph, ExportSettings
from detector.predict.predictor import Predictor
from detector.weights.info import WeightsInfo

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

SIZE = (64, 96)
INFO = {"class_names": ["cat", "Kühe", "dog"], "category_ids": [7, 9, 90], "image_size": SIZE, "license": "MIT"}
INFO |= {"best_f1_thresholds": {"one2one": 0.01237, "one2many": 0.25}}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return lively("dyn_n")


def lively(variant: str, **overrides: Any) -> Predictor:
    """An untrained detector whose outputs depend on the image, so that no two scores are equal."""
    torch.manual_seed(0)
    return made_lively(build_detector(variant, 3, **overrides), WeightsInfo(variant, overrides, **INFO))


def made_lively(detector: Detector, info: WeightsInfo) -> Predictor:
    for norm in (m for m in detector.modules() if isinstance(m, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d)):
        norm.momentum = None  # the statistics of the pass below
    with torch.no_grad():
        for branch in (detector.head.one2one, detector.head.one2many):
            for box, cls in zip(branch.box, branch.cls):
                box[-1].weight.mul_(0.1)  # untrained features are large, and their rounding errors, too
                cls[-1].weight.mul_(0.15)
                cls[-1].bias.zero_()
        for layer in (m for m in detector.modules() if isinstance(m, DynamicConv2d)):
            if isinstance(layer.router, torch.nn.Linear):
                layer.router.weight.mul_(3)
            else:  # gates start at 1, changes of a kernel at 0
                for gate in layer.units:
                    torch.nn.init.normal_(getattr(layer.router, gate).weight, std=0.2)
            if layer.delta is not None:
                torch.nn.init.normal_(layer.delta, std=0.2 * layer.weight.std().item())
        detector(random_images(8, contrast=1))
    return Predictor(detector.eval(), info)


def random_images(number: int, size: tuple[int, int] = SIZE, contrast: float = 0.4) -> Tensor:
    """Coarse noise, (number, 3, H, W) in 0..1, of growing contrast."""
    strength = torch.linspace(contrast / 2, contrast, number)[:, None, None, None]
    coarse = strength * torch.rand(number, 3, size[0] // 8, size[1] // 8)
    return torch.nn.functional.interpolate(coarse, size, mode="bilinear").clamp(0, 1)


def run_onnx(path: Path, images: Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy()})


def run_openvino(path: Path, images: Tensor) -> list[np.ndarray]:
    # float32 by order: on some processors its default is bfloat16
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return list(model(images.numpy()).values())


def expected(predictor: Predictor, images: Tensor, output: str) -> list[Tensor]:
    """Return the results of PyTorch: the raw output by the graph, detections by ``Detector.detect``."""
    if output == "raw":
        graph = ExportGraph(predictor.model, predictor.branch, ExportSettings("raw"), tuple(images.shape[2:]))
        # images one by one: the form for batch 1
        return [torch.cat(parts) for parts in zip(*(graph(image[None]) for image in images))]
    detections = predictor.model.detect(images, score_threshold=0.0)
    rows = torch.zeros(len(images), MAX_DETECTIONS, 6)
    for row, one in zip(rows, detections):
        row[: len(one["scores"])] = torch.cat((one["boxes"], one["scores"][:, None], one["labels"][:, None]), dim=1)
    return [rows]


def assert_same(predictor: Predictor, images: Tensor, results: list[Any], output: str) -> None:
    """Boxes within 0.01 px, scores within 1e-4; of detections, the order of equal scores is free."""
    truth = expected(predictor, images, output)
    results = [torch.as_tensor(part) for part in results]
    if output == "raw":
        torch.testing.assert_close(results[0], truth[0], atol=0.01, rtol=0)
        torch.testing.assert_close(results[1], truth[1], atol=1e-4, rtol=0)
        return
    for ours, theirs in zip(truth[0], results[0], strict=True):
        torch.testing.assert_close(theirs[:, 4], ours[:, 4], atol=1e-4, rtol=0)
        for row in ours[:200]:  # the last ones may fall to either side of the limit
            gap = (theirs - row).abs()
            assert ((gap[:, :4].amax(dim=1) < 0.01) & (gap[:, 4] < 1e-4) & (gap[:, 5] == 0)).any(), row


def test_different_images_give_different_detections(predictor: Predictor) -> None:
    (detections,) = expected(predictor, random_images(2), "end2end")
    assert (detections[0] - detections[1]).abs()[:, 4].max() > 0.001
    assert detections[detections[..., 4] > 0][:, 4].std() > 0.001


def test_batch_of_one(predictor: Predictor, tmp_path: Path) -> None:
    about = export(predictor, tmp_path / "a.onnx", "onnx", ExportSettings())
    images = random_images(1)
    for run in (run_onnx, run_openvino):
        assert_same(predictor, images, run(tmp_path / "a.onnx", images), "end2end")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == about
    assert json.loads(about["names"]) == predictor.class_names
    assert (json.loads(about["category_ids"]), json.loads(about["image_size"])) == ([7, 9, 90], [64, 96])
    assert (about["output"], about["license"], about["dynamic_convolution"]) == ("end2end", "MIT", "mix")
    assert about["best_f1_threshold"] == "0.01237"
    with pytest.raises(Exception, match=r"[Ii]nvalid dimensions"):
        run_onnx(tmp_path / "a.onnx", random_images(1, (96, 96)))


def output_sizes(path: Path) -> dict[str, list[str | int]]:
    """Return the sizes of each output of an ONNX file, with the names of those that are not fixed."""
    outputs = onnx.load(path).graph.output
    return {p.name: [d.dim_param or d.dim_value for d in p.type.tensor_type.shape.dim] for p in outputs}


def test_any_batch_and_size(predictor: Predictor, tmp_path: Path) -> None:
    export(predictor, tmp_path / "a.onnx", "onnx", ExportSettings(batch_size=None, dynamic_size=True))
    assert output_sizes(tmp_path / "a.onnx") == {"detections": ["batch", 300, 6]}
    for batch, size in ((1, SIZE), (2, SIZE), (5, (128, 160))):
        images = random_images(batch, size)
        for run in (run_onnx, run_openvino):
            assert_same(predictor, images, run(tmp_path / "a.onnx", images), "end2end")
    with pytest.raises(Exception, match=r"dimensions must match|Concat|incompatible"):
        run_onnx(tmp_path / "a.onnx", random_images(1, (80, 96)))  # 80 is no multiple of 32


def test_any_batch_and_size_with_a_backbone_of_timm_layers_of_all_kinds_and_an_own_block(tmp_path: Path) -> None:
    own = {"where": ["neck.down.0.conv"], "layer": {"class_path": "docs.my_blocks.SqueezeExcitation"}}
    overrides = {"backbone": "timm/test_efficientnet", "replace": [own]}  # mixtures
    torch.manual_seed(0)
    detector = build_detector("dyn_n", 3, **overrides)
    make_dynamic(detector, r"neck\.top_down\.\d\.blocks\..*conv[12]\.conv", kind="omni")
    residual = {"kind": "residual", "gates": ("filter", "position"), "num_experts": 2}
    make_dynamic(detector, r"neck\.bottom_up\.0\.blocks\..*conv[12]\.conv", **residual)
    assert type(detector.neck.down[0].conv).__name__ == "SqueezeExcitation"
    predictor = made_lively(detector, WeightsInfo("dyn_n", overrides, **INFO))
    about = export(predictor, tmp_path / "a.onnx", "onnx", ExportSettings("raw", batch_size=None, dynamic_size=True))
    assert output_sizes(tmp_path / "a.onnx") == {"boxes": ["batch", "anchors", 4], "scores": ["batch", "anchors", 3]}
    assert (about["backbone"], about["license"], about["output"]) == ("timm/test_efficientnet", "MIT", "raw")
    assert about["dynamic_convolution"] == "experts"
    for run, batch, size in ((run_openvino, 1, SIZE), (run_onnx, 3, SIZE), (run_onnx, 2, (128, 160))):
        images = random_images(batch, size)
        assert_same(predictor, images, run(tmp_path / "a.onnx", images), "raw")


def test_layers_that_gate_channels_have_a_form_of_their_own() -> None:
    detector = build_detector("yolo26_n", 3, dynamic={"kind": "omni"})
    for settings in (ExportSettings(), ExportSettings(batch_size=None)):
        about = export_metadata(Predictor(detector, WeightsInfo("yolo26_n", **INFO)), "onnx", settings)
        assert about["dynamic_convolution"] == "gates"


def test_openvino_files(predictor: Predictor, tmp_path: Path) -> None:
    about = export(predictor, tmp_path / "a.xml", "openvino", ExportSettings(batch_size=None))
    images = random_images(2)
    assert_same(predictor, images, run_openvino(tmp_path / "a.xml", images), "end2end")
    info = openvino.Core().read_model(tmp_path / "a.xml").get_rt_info("model_info")
    assert {name: info[name] for name in about} == about
    assert info["best_f1_threshold"] == "0.01237"
    assert not list(tmp_path.glob("*/"))


def test_torchscript(predictor: Predictor, tmp_path: Path) -> None:
    about = export(predictor, tmp_path / "a.torchscript", "torchscript", ExportSettings("raw", batch_size=2))
    files = {"metadata.json": ""}
    images = random_images(2)
    assert_same(predictor, images, torch.jit.load(tmp_path / "a.torchscript", _extra_files=files)(images), "raw")
    assert json.loads(files["metadata.json"]) == about
    assert about["best_f1_threshold"] == "0.01237"


def test_the_threshold_is_that_of_the_exported_branch(predictor: Predictor) -> None:
    for branch, thresholds, expected in (
        ("one2many", INFO["best_f1_thresholds"], "0.25"),
        ("one2one", {"one2one": None}, None),
        ("one2one", {}, None),  # of an earlier version
    ):
        info = replace(predictor.info, best_f1_thresholds=thresholds)
        about = export_metadata(Predictor(predictor.model, info, branch), "onnx", ExportSettings("raw"))
        assert about.get("best_f1_threshold") == expected


def test_torch_export_takes_any_batch(predictor: Predictor, tmp_path: Path) -> None:
    about = export(predictor, tmp_path / "a.pt2", "torch-export", ExportSettings(batch_size=None))
    files = {"metadata.json": ""}
    program = torch.export.load(tmp_path / "a.pt2", extra_files=files).module()
    for batch in (2, 5):
        images = random_images(batch)
        assert_same(predictor, images, [program(images)], "end2end")
    assert json.loads(files["metadata.json"]) == about
    assert about["best_f1_threshold"] == "0.01237"


def test_half_precision(predictor: Predictor, tmp_path: Path) -> None:
    images = random_images(1)
    truth = expected(predictor, images, "raw")
    export(predictor, tmp_path / "a.onnx", "onnx", ExportSettings("raw", half=True))
    num_parameters = sum(p.numel() for p in predictor.model.deploy().parameters())
    assert num_parameters * 2 < (tmp_path / "a.onnx").stat().st_size < num_parameters * 3
    export(predictor, tmp_path / "b.xml", "openvino", ExportSettings("raw", half=True))
    for results in (run_onnx(tmp_path / "a.onnx", images), run_openvino(tmp_path / "b.xml", images)):
        assert results[0].dtype == np.float32
        assert np.abs(results[0] - truth[0].numpy()).max() < 1
        assert 0 < np.abs(results[1] - truth[1].numpy()).max() < 0.02
