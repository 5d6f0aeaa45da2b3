"""A Predictor whose network gives known detections, for tests of the settings."""

import numpy as np
import torch
from torch import Tensor

from detector import build_detector
from detector.network.head import RawOutput
from detector.predict import Predictor
from detector.weights.info import WeightsInfo
from tests.detector.fakes import CATEGORY_IDS, CLASS_NAMES, IMAGE, Answer, raw_output

BEST = {"one2one": 0.6, "one2many": 0.4}
INFO = WeightsInfo(
    "yolo26_n", class_names=CLASS_NAMES, category_ids=CATEGORY_IDS, image_size=(64, 64), best_f1_thresholds=BEST
)
# Without NMS: two boxes of a cat with an IoU of 0.6, two dogs, and a bird that the other branch does not see.
ONE2ONE: Answer = [
    ([10.0, 10, 50, 50], 0.9, 0),
    ([10.0, 10, 50, 34], 0.8, 0),
    ([60.0, 10, 100, 50], 0.5, 1),
    ([5.0, 60, 25, 75], 0.3, 1),
    ([70.0, 60, 90, 75], 0.1, 2),
]
ONE2MANY: Answer = ONE2ONE[:4]


def crafted_predictor(**settings: object) -> Predictor:
    """Return a Predictor that finds ONE2ONE, or ONE2MANY, in every image of the size IMAGE at an input of 64 x 64."""
    model = build_detector("yolo26_n", 3, width=0.125, depth=0.33)

    def forward(images: Tensor) -> RawOutput:
        outputs = {"one2one": raw_output([ONE2ONE] * len(images), 5), "one2many": raw_output([ONE2MANY] * len(images), 5)}
        return {**outputs, "points": torch.zeros(5, 2), "strides": torch.ones(5)}

    model.forward = forward
    return Predictor(model, INFO, **settings)


def blank_image() -> np.ndarray:
    return np.zeros((*IMAGE, 3), np.uint8)
