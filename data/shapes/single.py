"""Draws images of one shape each, whose kind is their class. They are painted like the images of the embedded set."""

import numpy as np

from data.shapes.draw import CLASSES, DECOYS, SPLITS, outline, paint_image, pose, stamp

KINDS = (*CLASSES, *DECOYS)  # the classes, in the order in which ``num_classes`` takes them
SMALLEST_SIDE = 16  # of an image, in px
SIZES = (0.45, 0.9)  # range of the longer side of the shape's box, as a share of the image's side
STREAM = 1  # set the random streams apart from those of draw_image


def draw_single(kind: str, seed: int, split: str, index: int, side: int) -> np.ndarray:
    """Draw a shape of one of KINDS, wholly within the image. Returns (side, side, 3) uint8, BGR.

    The image is a function of the arguments alone.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), index, STREAM))
    size = side * rng.uniform(*SIZES)
    contours = pose(outline(kind, rng), size, rng)
    slack = (side - 1 - size) / 2  # the box, of at most ``size`` px, stays half a pixel within the image
    center = side / 2 + rng.uniform(-slack, slack, 2)
    shape = stamp(kind, [contour + center for contour in contours], side, side)
    return paint_image([shape], side, side, rng)
