"""The worst errors as images: the surroundings of each, with objects and detections drawn in."""

from collections import Counter
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detector.imaging.draw import fit_longer_side
from detector.imaging.read import BadImageError, decode_image, exif_orientation, read_file, turn
from detector.imaging.sixteen_bits import FULL_RANGE, SampleRange, as_sample_range
from detector.report.analysis import Analysis
from detector.report.errors import FALSE_POSITIVES, MISSES, Errors
from detector.report.matching import Matching, box_ious
from detector.report.page import CaptionedImage
from detector.text import score_text

OBJECT, ERROR, OTHER = (60, 200, 90), (235, 60, 50), (70, 150, 245)  # RGB
MAX_PER_IMAGE = 2  # or one bad image would fill the page
NUM_EXAMPLES = 12
SIDE = 320  # pixels of the longer side of an example


def false_positive_examples(main: Analysis, folder: Path | None) -> list[CaptionedImage]:
    """Return wrong detections of each type in turn, those with the highest scores first; images are read from ``folder``."""
    rows = worst_false_positives(main.matching, main.errors, NUM_EXAMPLES)
    boxes, images = main.matching.det_boxes, main.matching.det_images
    return [draw_example(main, folder, _describe_false_positive(main, row), boxes[row], int(images[row])) for row in rows]


def miss_examples(main: Analysis, folder: Path | None) -> list[CaptionedImage]:
    """Return missed objects of each type in turn, the largest of their class first; images are read from ``folder``."""
    rows = worst_misses(main.matching, main.errors, NUM_EXAMPLES)
    boxes, images = main.matching.obj_boxes, main.matching.obj_images
    return [draw_example(main, folder, _describe_miss(main, row), boxes[row], int(images[row])) for row in rows]


def worst_false_positives(matching: Matching, errors: Errors, number: int) -> list[int]:
    """Return ``number`` detections at most: the error types take turns, each with its highest scores first."""
    wrong = np.flatnonzero(errors.false_positives != "")
    order = wrong[np.argsort(-matching.scores[wrong], kind="stable")]
    return take_turns(order, errors.false_positives, matching.det_images, number)


def worst_misses(matching: Matching, errors: Errors, number: int, most_per_image: int | None = MAX_PER_IMAGE) -> list[int]:
    """Return ``number`` objects at most: the error types take turns, each with those first that are largest in their class.

    Largest by rank in the class, so that classes of small objects are among them.
    """
    missed = np.flatnonzero(errors.misses != "")
    ranks = np.zeros(len(matching.areas))
    for label in np.unique(matching.obj_classes):
        rows = np.flatnonzero((matching.obj_classes == label) & ~matching.crowds)
        ranks[rows[np.argsort(matching.areas[rows], kind="stable")]] = (np.arange(len(rows)) + 1) / max(len(rows), 1)
    order = missed[np.lexsort((-matching.areas[missed], -ranks[missed]))]
    return take_turns(order, errors.misses, matching.obj_images, number, most_per_image)


def take_turns(
    order: np.ndarray, types: np.ndarray, images: np.ndarray, number: int, most_per_image: int | None = MAX_PER_IMAGE
) -> list[int]:
    """Return ``number`` rows: the types take turns, each in the given order, at most ``most_per_image`` rows of an image.

    The first row of each type is there in any case, so that no type is left out.
    """
    by_type = [order[types[order] == type_].tolist() for type_ in dict.fromkeys(types[order])]
    chosen: list[int] = []
    per_image: Counter[int] = Counter()
    for turn_number, rows in enumerate(zip_longest(*by_type)):
        for row in rows:
            if row is not None and (turn_number == 0 or most_per_image is None or per_image[images[row]] < most_per_image):
                per_image[images[row]] += 1
                chosen.append(row)
    return chosen[:number]


def _describe_false_positive(main: Analysis, row: int) -> str:
    """Return class, score and error type of a detection, and the object that it overlaps most."""
    matching, errors, names = main.matching, main.errors, main.class_names
    error = FALSE_POSITIVES[errors.false_positives[row]]
    text = f"{names[matching.det_classes[row]]} {score_text(matching.scores[row])}: {error}"
    if (nearest := errors.nearest[row]) >= 0:
        text += f" ({names[matching.obj_classes[nearest]]}, IoU {errors.overlaps[row]:.2f})"
    return text


def _describe_miss(main: Analysis, row: int) -> str:
    """Return class, size and error type of an object, and the detection of its class, shown or not, that is closest."""
    matching = main.matching
    width, height = matching.obj_boxes[row, 2:] - matching.obj_boxes[row, :2]
    miss = MISSES[main.errors.misses[row]]
    text = f"{main.class_names[matching.obj_classes[row]]}, {width:.0f} x {height:.0f} px: {miss}"
    same_image = matching.det_images == matching.obj_images[row]
    rows = np.flatnonzero(same_image & (matching.det_classes == matching.obj_classes[row]))
    overlaps = box_ious(matching.det_boxes[rows], matching.obj_boxes[row : row + 1])[:, 0]
    if len(rows) and overlaps.max() >= 0.1:
        best = int(overlaps.argmax())
        text += f" (closest: score {score_text(matching.scores[rows[best]])}, IoU {overlaps[best]:.2f})"
    return text


def draw_example(main: Analysis, folder: Path | None, description: str, box: np.ndarray, image_id: int) -> CaptionedImage:
    """Return the surroundings of ``box`` with a caption; without pixels if the image is not in ``folder``."""
    entry = main.coco.imgs[image_id]
    caption = f"{description}. {entry.get('file_name', 'image ' + str(image_id))}"
    info = main.coco.dataset.get("info", {})
    sample_range = as_sample_range(info.get("sixteen_bit_range") or FULL_RANGE)
    pixels = None if folder is None else read_image(folder, entry, bool(info.get("upright")), sample_range)
    return CaptionedImage(caption, None if pixels is None else draw_error(pixels, main.matching, main.errors, box, image_id))


def draw_error(image: np.ndarray, matching: Matching, errors: Errors, box: np.ndarray, image_id: int) -> np.ndarray:
    """Return the surroundings of ``box``: all objects green, shown detections blue, ``box`` itself red.

    ``image`` (H, W, 3) uint8 RGB has the pixels that boxes are in.
    """
    x1, y1, x2, y2 = _window(box, image.shape[1], image.shape[0])
    objects = matching.obj_boxes[(matching.obj_images == image_id) & ~matching.crowds]
    others = matching.det_boxes[(matching.det_images == image_id) & errors.shown]
    boxes = np.concatenate((others, objects, box[None])) - np.array([x1, y1, x1, y1])
    drawn, boxes = fit_longer_side(image[y1:y2, x1:x2], boxes, SIDE)
    others, objects, itself = np.split(boxes, (len(others), len(others) + len(objects)))
    for group, color, width in ((others, OTHER, 1), (objects, OBJECT, 2), (itself, ERROR, 3)):
        for x1, y1, x2, y2 in np.clip(group, -1e4, 1e4).round().astype(int).tolist():
            cv2.rectangle(drawn, (x1, y1), (x2, y2), color, width)
    return drawn


def _window(box: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """Return a square around the box, within the image if it fits: three times the box, at least a fifth of the image."""
    side = max(3 * float((box[2:] - box[:2]).max()), 0.2 * max(width, height), 48.0)
    limits = np.array([width, height])
    lengths = np.minimum(side, limits)
    low = np.clip((box[:2] + box[2:]) / 2 - lengths / 2, 0, limits - lengths)
    start = low.astype(int)
    return *start.tolist(), *np.maximum((low + lengths).astype(int), start + 1).tolist()


def read_image(
    folder: Path, image: dict[str, Any], upright: bool, sixteen_bit_range: SampleRange = FULL_RANGE
) -> np.ndarray | None:
    """Return the image of an ``images`` entry, (H, W, 3) uint8 RGB in the pixels of its boxes; None without such an image.

    The EXIF rotation is applied if the run's boxes were ``upright``, or if the image has the size of the entry only then.
    """
    try:
        content = read_file(folder / str(image.get("file_name", "")))
        stored = decode_image(content, sixteen_bit_range=sixteen_bit_range)
    except BadImageError:
        return None
    size = image.get("height"), image.get("width")
    turned = turn(stored, exif_orientation(content))
    candidates = (turned,) if upright else (stored, turned)
    return next((pixels for pixels in candidates if None in size or pixels.shape[:2] == size), None)
