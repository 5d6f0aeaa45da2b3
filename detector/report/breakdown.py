"""How detection depends on size and shape."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from detector.report.matching import Matching, Mistakes

SIDES = (0, 8, 16, 32, 64, 96, 192, 384, np.inf)  # pixels, of the square root of the area; 32 and 96 are COCO's limits
RATIOS = (0, 1 / 3, 1 / 2, 2 / 3, 3 / 2, 2, 3, np.inf)  # width / height
RATIO_NAMES = ("under 1:3", "1:3 to 1:2", "1:2 to 2:3", "2:3 to 3:2", "3:2 to 2:1", "2:1 to 3:1", "over 3:1")


@dataclass(frozen=True)
class Bin:
    """Objects and shown detections of one range."""

    name: str
    objects: int
    found: int
    shown: int
    right: int


def by_size(matching: Matching, mistakes: Mistakes) -> list[Bin]:
    """Count by side: the square root of an object's area as annotated, and of a detection's box."""
    names = [f"{low:g} to {high:g} px" for low, high in pairwise(SIDES[:-1])] + [f"over {SIDES[-2]:g} px"]
    return _count(
        matching, mistakes, np.sqrt(matching.areas), np.sqrt(np.prod(_sides(matching.det_boxes), axis=1)), SIDES, names
    )


def by_ratio(matching: Matching, mistakes: Mistakes) -> list[Bin]:
    """Count by width / height of the boxes."""
    objects, detections = _ratio(matching.obj_boxes), _ratio(matching.det_boxes)
    return _count(matching, mistakes, objects, detections, RATIOS, RATIO_NAMES)


def _sides(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).clip(0)  # a network that has learned little may give the right side before the left


def _ratio(boxes: np.ndarray) -> np.ndarray:
    width, height = np.maximum(_sides(boxes), 1e-9).T
    return width / height


def _count(
    matching: Matching,
    mistakes: Mistakes,
    objects: np.ndarray,
    detections: np.ndarray,
    edges: tuple[float, ...],
    names: list[str] | tuple[str, ...],
) -> list[Bin]:
    """Return the bins from one edge up to the next that have anything in them."""
    object_bins, detection_bins = (np.searchsorted(edges, values, side="right") - 1 for values in (objects, detections))
    real, right = ~matching.crowds, mistakes.shown & (mistakes.kinds == "")
    bins = []
    for n, name in enumerate(names):
        here, seen = object_bins == n, detection_bins == n
        counts = [(here & real), (here & mistakes.found), (seen & mistakes.shown), (seen & right)]
        bins.append(Bin(name, *(int(count.sum()) for count in counts)))
    return [found for found in bins if found.objects or found.shown]
