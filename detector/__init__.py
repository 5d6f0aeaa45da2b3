"""A YOLO26 detector with dynamic convolutions, in PyTorch Lightning."""

import gc

_collects = gc.isenabled()
gc.disable()  # a third of the time that the imports take

from detector.config import VARIANTS
from detector.lightning_module import DetectorModule
from detector.model import Detector, build_detector
from detector.predict import Predictor, load_detector

if _collects:
    gc.enable()

__all__ = ["VARIANTS", "Detector", "DetectorModule", "Predictor", "build_detector", "load_detector"]
