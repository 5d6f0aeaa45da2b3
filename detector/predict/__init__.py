"""Use a trained detector on images and videos."""

from detector.predict.detections import DetectedObject, Detections
from detector.predict.predictor import Predictor, load_detector

__all__ = ["DetectedObject", "Detections", "Predictor", "load_detector"]
