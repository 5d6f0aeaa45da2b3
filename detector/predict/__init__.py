"""Use a trained detector on images and videos."""

from detector.predict.predictor import Detections, Predictor, load_detector

__all__ = ["Detections", "Predictor", "load_detector"]
