"""Read, write and load weights. ``read_weights`` reads a file, ``build_from`` and ``load_into`` make a detector of it."""

from detector.weights.backbone import BackboneReport, load_backbone
from detector.weights.backbone_files import NONE
from detector.weights.files import metadata, read_weights, save_weights
from detector.weights.info import Origin, Weights, WeightsInfo, saved_license
from detector.weights.load import LoadReport, build_from, load_into

__all__ = [
    "NONE", "BackboneReport", "LoadReport", "Origin", "Weights", "WeightsInfo", "build_from", "load_backbone", "load_into",
    "metadata", "read_weights", "save_weights", "saved_license",
]  # fmt: skip
