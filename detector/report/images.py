"""The worst mistakes as images: the place around each, with what should have been found and what was."""

from collections import Counter
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detector.imaging.draw import Color, fit_longer_side
from detector.imaging.read import BadImageError, decode_image, exif_orientation, read_file, turn
from detector.report.matching import KINDS, MISSES, Matching, Mistakes, box_ious

TRUTH, WRONG, OTHER = (60, 200, 90), (235, 60, 50), (70, 150, 245)  # RGB
MAX_PER_IMAGE = 2  # or one bad image would fill the page


def worst_false_positives(matching: Matching, found: Mistakes, number: int) -> list[int]:
    """Return wrong detections of every kind in turn, of each those with the highest scores."""
    wrong = np.flatnonzero(found.kinds != "")
    order = wrong[np.argsort(-matching.scores[wrong], kind="stable")]
    return _in_turns(order, found.kinds, matching.det_images, number)


def worst_misses(matching: Matching, found: Mistakes, number: int) -> list[int]:
    """Return missed objects of every kind in turn, of each those that are largest in their class: these stand out.

    Largest is by rank in the class, so that classes of small objects are among them.
    """
    missed = np.flatnonzero(found.misses != "")
    ranks = np.zeros(len(matching.areas))
    for label in np.unique(matching.obj_classes):
        own = np.flatnonzero((matching.obj_classes == label) & ~matching.crowds)
        ranks[own[np.argsort(matching.areas[own], kind="stable")]] = (np.arange(len(own)) + 1) / max(len(own), 1)
    order = missed[np.lexsort((-matching.areas[missed], -ranks[missed]))]
    return _in_turns(order, found.misses, matching.obj_images, number)


def _in_turns(order: np.ndarray, kinds: np.ndarray, images: np.ndarray, number: int) -> list[int]:
    """Return ``number`` rows: the kinds take turns, each in the given order, at most MAX_PER_IMAGE of an image.

    The first of a kind is there whatever its image, so that none is left out.
    """
    by_kind = [order[kinds[order] == kind].tolist() for kind in dict.fromkeys(kinds[order])]
    chosen: list[int] = []
    seen: Counter[int] = Counter()
    for turn_number, rows in enumerate(zip_longest(*by_kind)):
        for row in rows:
            if row is not None and (turn_number == 0 or seen[images[row]] < MAX_PER_IMAGE):
                seen[images[row]] += 1
                chosen.append(row)
    return chosen[:number]


def describe_false_positive(matching: Matching, found: Mistakes, row: int, names: list[str]) -> str:
    """Say what was claimed, and what is there."""
    text = f"{names[matching.det_classes[row]]} {matching.scores[row]:.2f}: {KINDS[found.kinds[row]]}"
    if (near := found.nearest[row]) >= 0:
        text += f" ({names[matching.obj_classes[near]]}, IoU {found.overlaps[row]:.2f})"
    return text


def describe_miss(matching: Matching, found: Mistakes, row: int, names: list[str]) -> str:
    """Say what was missed, and which detection of its class, shown or not, came closest."""
    width, height = matching.obj_boxes[row, 2:] - matching.obj_boxes[row, :2]
    text = f"{names[matching.obj_classes[row]]}, {width:.0f} x {height:.0f} px: {MISSES[found.misses[row]]}"
    own = np.flatnonzero(
        (matching.det_images == matching.obj_images[row]) & (matching.det_classes == matching.obj_classes[row])
    )
    overlaps = box_ious(matching.det_boxes[own], matching.obj_boxes[row : row + 1])[:, 0]
    if len(own) and overlaps.max() >= 0.1:
        best = int(overlaps.argmax())
        text += f" (closest: score {matching.scores[own[best]]:.2f}, IoU {overlaps[best]:.2f})"
    return text


def draw_place(image: np.ndarray, matching: Matching, found: Mistakes, box: np.ndarray, image_id: int) -> np.ndarray:
    """Return the surroundings of ``box``: all objects green, detections that are shown blue, what this is about red.

    ``image`` (H, W, 3) uint8 RGB has the pixels that boxes are in.
    """
    x1, y1, x2, y2 = _window(box, image.shape[1], image.shape[0])
    objects = matching.obj_boxes[(matching.obj_images == image_id) & ~matching.crowds]
    others = matching.det_boxes[(matching.det_images == image_id) & found.shown]
    groups = [(others, OTHER, 1), (objects, TRUTH, 2), (box[None], WRONG, 3)]
    boxes = np.concatenate([boxes for boxes, _, _ in groups]) - np.array([x1, y1, x1, y1])
    drawn, boxes = fit_longer_side(image[y1:y2, x1:x2], boxes, 320)
    for (of_group, color, width), part in zip(groups, np.split(boxes, np.cumsum([len(g) for g, _, _ in groups])[:-1])):
        assert len(part) == len(of_group)
        _outline(drawn, part, color, width)
    return drawn


def _window(box: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """Return a square in the image (as far as it goes), thrice as long as the box, and a fifth of the image at least."""
    side = max(3 * float((box[2:] - box[:2]).max()), 0.2 * max(width, height), 48.0)
    edges = []
    for center, limit in zip(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), (width, height)):
        length = min(side, limit)
        low = min(max(center - length / 2, 0), limit - length)
        edges.append((int(low), max(int(low + length), int(low) + 1)))
    (x1, x2), (y1, y2) = edges
    return x1, y1, x2, y2


def _outline(image: np.ndarray, boxes: np.ndarray, color: Color, width: int) -> None:
    for x1, y1, x2, y2 in np.clip(boxes, -1e4, 1e4).round().astype(int).tolist():
        cv2.rectangle(image, (x1, y1), (x2, y2), color, width)


def read_image(folder: Path, image: dict[str, Any], upright: bool) -> np.ndarray | None:
    """Return the image of an ``images`` entry, (H, W, 3) uint8 RGB in the pixels of its boxes; None if it is not there.

    A rotation in the EXIF data is applied if the run's boxes were ``upright``, or if only then the size is that on file.
    """
    try:
        content = read_file(folder / str(image.get("file_name", "")))
    except BadImageError:
        return None
    stored, size = decode_image(content), (image.get("height"), image.get("width"))
    if stored is None:
        return None
    turned = turn(stored, exif_orientation(content))
    ways = (turned,) if upright else (stored, turned)
    return next((pixels for pixels in ways if None in size or pixels.shape[:2] == size), None)
