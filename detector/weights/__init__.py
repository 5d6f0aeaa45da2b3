"""Read, write and load weights."""

from detector.weights.files import read_weights, save_weights
from detector.weights.info import Weights, WeightsInfo
from detector.weights.load import LoadReport, build_from, load_into

__all__ = [
    "LoadReport",
    "Weights",
    "WeightsInfo",
    "build_from",
    "load_into",
    "read_weights",
    "save_weights",
]
