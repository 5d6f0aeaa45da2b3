"""What an editor knows of the public names. This file is not run: ``make types`` checks it, and must find the wrong uses."""

from typing import Any, assert_type

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import detector as package
from data import Annotations, CocoDataModule
from detector import Detector, DetectorModule, Predictor, build_detector, load_detector, make_dynamic
from detector.batch import Batch
from detector.dynamic import DynamicConv2d, collapse, dynamic_layers
from detector.network.decode import DetectionDict
from detector.predict import Detections


def names() -> None:
    assert_type(package.__version__, str)
    package.load_detectr  # type: ignore[attr-defined]  # noqa: B018
    from detector import build_detectr  # type: ignore[attr-defined]  # noqa: F401


def use(image: Tensor) -> None:
    predictor = load_detector("best.ckpt", branch="one2many", image_size=(640, 480))
    assert_type(predictor, Predictor)
    results = predictor([image, "image.jpg"], score_threshold="best", classes=["cat", 3])
    assert_type(results, list[Detections])
    assert_type(results[0].boxes, Tensor)
    assert_type(results[0].names, list[str])
    assert_type(predictor.deploy(), Predictor)
    assert_type(predictor.model.deploy("one2one"), Detector)
    assert_type(predictor.model.detect(image), list[DetectionDict])
    load_detector("best.ckpt", branch="one2mny")  # type: ignore[arg-type]
    predictor(image, score_threshold="low")  # type: ignore[arg-type]
    assert_type(results[0]["cat"].labels, Tensor)
    results[0].bboxes  # type: ignore[attr-defined]  # noqa: B018


def build(network: nn.Module, images: list[Tensor]) -> None:
    detector = build_detector("dyn_n", 20, dynamic={"num_experts": 8})
    assert_type(detector, Detector)
    assert_type(detector.strides, list[int])
    assert_type(make_dynamic(network, where="layer4.*conv2", kind="omni"), list[str])
    assert_type(dynamic_layers(network), dict[str, DynamicConv2d])
    assert_type(collapse(network, images), tuple[nn.Module, dict[str, Tensor]])
    build_detector("dyn_n")  # type: ignore[call-arg]
    make_dynamic(network, where=3)  # type: ignore[arg-type]


def train(images: Tensor) -> None:
    module = DetectorModule("dyn_n", ["cat", "dog"], image_size=640, optimizer="musgd")
    assert_type(module.model, Detector)
    assert_type(module.class_names, list[str])
    assert_type(DetectorModule.load_from_checkpoint("last.ckpt"), DetectorModule)
    batch: Batch = {"images": images, "targets": [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()}]}
    assert_type(module.training_step(batch, 0), Tensor)
    DetectorModule("dyn_n", ["cat"], optimizer="lion")  # type: ignore[arg-type]
    wrong: Batch = {"images": images}  # type: ignore[typeddict-item]
    del wrong


def load() -> None:
    data = CocoDataModule("datasets/shapes", cache="ram", image_size=(64, 96), val_split=0.2)
    assert_type(data.annotations, dict[str, Annotations])
    assert_type(data.class_names, list[str])
    assert_type(data.train_dataloader(), DataLoader[Any])
    assert_type(data.eval_dataloader("train"), DataLoader[Any])
    assert_type(data.ground_truth("val"), dict[str, Any])
    CocoDataModule(cache="disk")  # type: ignore[arg-type]
    data.eval_dataloader("valid")  # type: ignore[arg-type]
    data.annotation  # type: ignore[attr-defined]  # noqa: B018
