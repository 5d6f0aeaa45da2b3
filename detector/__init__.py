"""A YOLO26 detector with dynamic convolutions, in PyTorch Lightning."""

from detector.config import VARIANTS
from detector.lightning_module import DetectorModule
from detector.model import Detector, build_detector

__all__ = ["VARIANTS", "Detector", "DetectorModule", "build_detector"]
