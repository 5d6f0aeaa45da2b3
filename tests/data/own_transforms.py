"""A transform that is no part of albumentations, as users write them."""

import random
from collections.abc import Callable
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch

# All generators that a transform of one's own may draw a number below 256 from.
SOURCES: dict[str, Callable[[A.BasicTransform], Any]] = {
    "self.py_random": lambda transform: transform.py_random.randrange(256),
    "self.random_generator": lambda transform: transform.random_generator.integers(256),
    "random": lambda _: random.randrange(256),
    "np.random": lambda _: np.random.randint(256),  # noqa: NPY002
    "torch": lambda _: torch.randint(256, ()),
    "cv2": lambda _: cv2.randu(np.zeros(1, np.uint8), 0, 256)[0],
}


class Draws(A.ImageOnlyTransform):
    """Writes a number of each generator into the first row of the image."""

    def apply(self, image: np.ndarray, **_: Any) -> np.ndarray:
        image = image.copy()
        image[0, : len(SOURCES)] = np.array([[int(draw(self))] * 3 for draw in SOURCES.values()])
        return image


class NoTransform:
    """Not a transform."""
