"""A YOLO26 detector with dynamic convolutions, in PyTorch Lightning."""

from detector.config import VARIANTS
from detector.lightning_module import DetectorModule
from detector.model import Detector, build_detector
from detector.predict import Predictor, load_detector

__all__ = ["VARIANTS", "Detector", "DetectorModule", "Predictor", "build_detector", "load_detector"]
