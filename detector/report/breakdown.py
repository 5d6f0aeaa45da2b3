"""Objects and detections by size and by shape."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from detector.report.errors import Errors
from detector.report.matching import Matching

SIDES = (0, 8, 16, 32, 64, 96, 192, 384, np.inf)  # pixels, of the square root of the area; 32 and 96 are COCO's limits
RATIOS = (0, 1 / 3, 1 / 2, 2 / 3, 3 / 2, 2, 3, np.inf)  # width / height
RATIO_NAMES = ("under 1:3", "1:3 to 1:2", "1:2 to 2:3", "2:3 to 3:2", "3:2 to 2:1", "2:1 to 3:1", "over 3:1")


@dataclass(frozen=True)
class Bin:
    """Counts of one range of sizes or shapes."""

    name: str
    num_objects: int
    num_detected: int  # objects
    num_detections: int
    num_correct: int  # detections


def by_size(matching: Matching, errors: Errors) -> list[Bin]:
    """Count by side: the square root of an object's area as annotated, and of a detection's box."""
    names = [f"{low:g} to {high:g} px" for low, high in pairwise(SIDES[:-1])] + [f"over {SIDES[-2]:g} px"]
    return _count(
        matching, errors, np.sqrt(matching.areas), np.sqrt(np.prod(_sides(matching.det_boxes), axis=1)), SIDES, names
    )


def by_ratio(matching: Matching, errors: Errors) -> list[Bin]:
    """Count by width / height of the boxes."""
    objects, detections = _ratio(matching.obj_boxes), _ratio(matching.det_boxes)
    return _count(matching, errors, objects, detections, RATIOS, RATIO_NAMES)


def _sides(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).clip(0)  # an untrained network may give the right edge before the left


def _ratio(boxes: np.ndarray) -> np.ndarray:
    width, height = np.maximum(_sides(boxes), 1e-9).T
    return width / height


def _count(
    matching: Matching,
    errors: Errors,
    objects: np.ndarray,
    detections: np.ndarray,
    edges: tuple[float, ...],
    names: list[str] | tuple[str, ...],
) -> list[Bin]:
    """Return the bins from one edge up to the next that have anything in them."""
    object_bins, detection_bins = (np.searchsorted(edges, values, side="right") - 1 for values in (objects, detections))
    real, right = ~matching.crowds, errors.shown & (errors.false_positives == "")
    bins = []
    for n, name in enumerate(names):
        object_here, detection_here = object_bins == n, detection_bins == n
        counts = [object_here & real, object_here & errors.detected, detection_here & errors.shown, detection_here & right]
        bins.append(Bin(name, *(int(count.sum()) for count in counts)))
    return [bin_ for bin_ in bins if bin_.num_objects or bin_.num_detections]
