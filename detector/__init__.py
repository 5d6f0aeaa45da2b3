"""A YOLO26 detector with dynamic convolutions, in PyTorch Lightning."""

from detector.dynamic import DynamicConv2d, make_dynamic
from detector.network.config import VARIANTS
from detector.network.model import Detector, build_detector
from detector.predict import Predictor, load_detector
from detector.training.classifier_module import ClassifierModule
from detector.training.module import DetectorModule

__all__ = [
    "VARIANTS", "ClassifierModule", "Detector", "DetectorModule", "DynamicConv2d", "Predictor", "build_detector",
    "load_detector", "make_dynamic",
]  # fmt: skip
