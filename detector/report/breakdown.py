"""Objects and detections by size and by shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from detector.report.errors import Errors
from detector.report.matching import Matching

SIDES = (0, 8, 16, 32, 64, 96, 192, 384)  # pixels, of the square root of the area; 32 and 96 are COCO's limits
# Lower edges by name
SIZES = {f"{low} to {high} px": low for low, high in pairwise(SIDES)} | {f"over {SIDES[-1]} px": SIDES[-1]}
RATIOS = {"under 1:3": 0, "1:3 to 1:2": 1 / 3, "1:2 to 2:3": 1 / 2, "2:3 to 3:2": 2 / 3, "3:2 to 2:1": 3 / 2}
RATIOS |= {"2:1 to 3:1": 2, "over 3:1": 3}  # width / height


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
    det_sides = np.sqrt(_sides(matching.det_boxes).prod(axis=1))
    return _count(errors, np.sqrt(matching.areas), det_sides, SIZES)


def by_ratio(matching: Matching, errors: Errors) -> list[Bin]:
    """Count by width / height of the boxes."""
    return _count(errors, _ratio(matching.obj_boxes), _ratio(matching.det_boxes), RATIOS)


def _sides(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).clip(0)  # an untrained network may give the right edge before the left


def _ratio(boxes: np.ndarray) -> np.ndarray:
    width, height = np.maximum(_sides(boxes), 1e-9).T
    return width / height


def _count(errors: Errors, objects: np.ndarray, detections: np.ndarray, lower_edges: Mapping[str, float]) -> list[Bin]:
    """Return the bins from one edge up to the next that have anything in them."""
    edges = list(lower_edges.values())
    object_bins, detection_bins = (np.searchsorted(edges, values, side="right") - 1 for values in (objects, detections))
    real = errors.detected | (errors.misses != "")  # without crowds
    right = errors.shown & (errors.false_positives == "")
    bins = []
    for n, name in enumerate(lower_edges):
        object_here, detection_here = object_bins == n, detection_bins == n
        counts = [object_here & real, object_here & errors.detected, detection_here & errors.shown, detection_here & right]
        bins.append(Bin(name, *(int(count.sum()) for count in counts)))
    return [bin_ for bin_ in bins if bin_.num_objects or bin_.num_detections]
