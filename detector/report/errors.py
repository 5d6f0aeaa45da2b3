"""Error types of detections and objects after TIDE (Bolya et al., arXiv:2008.08115), and the confusion matrix."""

from dataclasses import dataclass

import numpy as np

from detector.report.matching import Matching, box_ious

BACKGROUND_IOU = 0.1  # TIDE's: a smaller overlap is none
LOW_SCORE = 0.5  # of the threshold: a detection with a lower score is none

# A shown detection without a partner, by the object that it overlaps most.
FALSE_POSITIVES = {
    "localization": "right class, but the box fits no object well",
    "duplicate": "another detection with a higher score has the object already",
    "classification": "on an object of another class",
    "both": "near an object of another class",
    "background": "on no object",
}
# An object without a partner, by the detections near it; the first that applies.
MISSES = {
    "classification": "detected as another class",
    "low score": "detected, but with a score below the threshold (half of it at least)",
    "localization": "detected, but the box does not fit well",
    "missed": "no detection of any class has a score of half the threshold or more",
}


@dataclass(frozen=True)
class Errors:
    """N detections and G objects if only detections with scores of at least ``threshold`` are shown."""

    threshold: float
    shown: np.ndarray  # (N,) bool; counted detections only
    detected: np.ndarray  # (G,) bool
    false_positives: np.ndarray  # (N,) a key of FALSE_POSITIVES, "" where a detection is right or not shown
    misses: np.ndarray  # (G,) a key of MISSES, "" where an object is detected or a crowd
    confusions: np.ndarray  # (G,) the detection of another class that is paired with a missed object, -1 for none
    nearest: np.ndarray  # (N,) the object that a false positive is confused with or overlaps most, -1 for none
    overlaps: np.ndarray  # (N,) its IoU


def find_errors(matching: Matching, threshold: float) -> Errors:
    """Return the error types at a score threshold.

    Detections and objects without a partner of their class are paired across classes: every detection, from the highest
    score down, takes the free object that it overlaps most, if by ``matching.iou`` at least. These pairs are confusions.
    """
    shown = matching.counted & (matching.scores >= threshold)
    wrong = shown & (matching.matches < 0)
    detected = _objects_of(matching, shown)
    # Among hundreds of detections with any score one fits nearly every object: the weakest ones mean nothing.
    low_score = _objects_of(matching, matching.counted & ~shown & (matching.scores >= LOW_SCORE * threshold))
    confusions, nearest, overlaps, near = _overlaps(matching, wrong, detected)
    same_class = np.append(matching.obj_classes, -2)[nearest] == matching.det_classes
    hit = overlaps >= matching.iou
    false_positives = np.select(
        [~wrong, nearest < 0, hit & same_class, hit, same_class],
        ["", "background", "duplicate", "classification", "localization"],
        default="both",
    )
    misses = np.select(
        [detected | matching.crowds, confusions >= 0, low_score, near],
        ["", "classification", "low score", "localization"],
        default="missed",
    )
    return Errors(threshold, shown, detected, false_positives, misses, confusions, nearest, overlaps)


def _objects_of(matching: Matching, chosen: np.ndarray) -> np.ndarray:
    """Return a mask (G,) of the objects that are paired with the ``chosen`` (N,) detections."""
    mask = np.zeros(len(matching.areas), bool)
    mask[matching.matches[chosen & (matching.matches >= 0)]] = True
    return mask


def _overlaps(matching: Matching, wrong: np.ndarray, detected: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return ``confusions``, ``nearest``, ``overlaps`` of Errors, and (G,) bool: a wrong detection of the class is near."""
    confusions, near = np.full(len(detected), -1), np.zeros(len(detected), bool)
    nearest, overlaps = np.full(len(wrong), -1), np.zeros(len(wrong))
    for detections, objects in matching.by_image():
        objects = objects[~matching.crowds[objects]]
        detections = detections[wrong[detections]]
        detections = detections[np.argsort(-matching.scores[detections], kind="stable")]
        ious = box_ious(matching.det_boxes[detections], matching.obj_boxes[objects])
        same_class = matching.det_classes[detections, None] == matching.obj_classes[objects]
        near[objects] = ((ious >= BACKGROUND_IOU) & same_class).any(axis=0)
        free = ~detected[objects]
        for detection, row, same in zip(detections, ious, same_class) if len(objects) else ():
            candidates = np.where(free & ~same, row, -1)
            best = int(row.argmax())
            if candidates.max() >= matching.iou:
                best = int(candidates.argmax())
                free[best] = False
                confusions[objects[best]] = detection
            if row[best] >= BACKGROUND_IOU:
                nearest[detection], overlaps[detection] = objects[best], row[best]
    return confusions, nearest, overlaps, near


def confusion_matrix(matching: Matching, errors: Errors) -> np.ndarray:
    """Return counts (C + 1, C + 1): rows are the objects' classes, columns the detections', the last of both is nothing.

    The diagonal has the detected objects, the last column the objects that are missed and in no confusion, the last row the
    detections that are neither right nor in a confusion. Crowds and detections in them are left out.
    """
    nothing = matching.num_classes
    counts = np.zeros((nothing + 1, nothing + 1), dtype=np.int64)
    detected = matching.obj_classes[errors.detected]
    np.add.at(counts, (detected, detected), 1)
    missed = np.flatnonzero(~errors.detected & ~matching.crowds)
    confusions = errors.confusions[missed]
    detected_as = np.full(len(missed), nothing)
    detected_as[confusions >= 0] = matching.det_classes[confusions[confusions >= 0]]
    np.add.at(counts, (matching.obj_classes[missed], detected_as), 1)
    unpaired = np.setdiff1d(np.flatnonzero(errors.false_positives != ""), confusions)
    np.add.at(counts, (nothing, matching.det_classes[unpaired]), 1)
    return counts
