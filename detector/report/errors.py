"""Error types of detections and objects after TIDE (Bolya et al., arXiv:2008.08115), and the confusion matrix."""

from dataclasses import dataclass, field

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
    nearest: np.ndarray  # (N,) the object that a false positive overlaps most, -1 for none
    overlaps: np.ndarray = field(repr=False)  # (N,) its IoU


def find_errors(matching: Matching, threshold: float) -> Errors:
    """Return the error types at a score threshold.

    Detections and objects without a partner of their class are paired across classes: every detection, from the highest
    score down, takes the free object that it overlaps most, if by ``matching.iou`` at least. These pairs are confusions.
    """
    num_detections, num_objects = len(matching.scores), len(matching.areas)
    shown = matching.counted & (matching.scores >= threshold)
    right = shown & (matching.matches >= 0)
    errors = Errors(
        threshold=threshold,
        shown=shown,
        detected=_objects_of(matching, right),
        false_positives=np.full(num_detections, "", dtype=object),
        misses=np.full(num_objects, "", dtype=object),
        confusions=np.full(num_objects, -1),
        nearest=np.full(num_detections, -1),
        overlaps=np.zeros(num_detections),
    )
    # Among hundreds of detections with any score one fits nearly every object: the weakest ones mean nothing.
    weak = _objects_of(matching, matching.counted & ~shown & (matching.scores >= LOW_SCORE * threshold))
    for detections, objects in matching.by_image():
        objects = objects[~matching.crowds[objects]]
        wrong = detections[shown[detections] & ~right[detections]]
        wrong = wrong[np.argsort(-matching.scores[wrong], kind="stable")]
        ious = box_ious(matching.det_boxes[wrong], matching.obj_boxes[objects])
        _pair_across_classes(errors, matching, wrong, objects, ious)
        _set_false_positives(errors, matching, wrong, objects, ious)
        _set_misses(errors, matching, wrong, objects, ious, weak)
    return errors


def _objects_of(matching: Matching, chosen: np.ndarray) -> np.ndarray:
    """Return a mask (G,) of the objects that are paired with the ``chosen`` (N,) detections."""
    mask = np.zeros(len(matching.areas), bool)
    mask[matching.matches[chosen & (matching.matches >= 0)]] = True
    return mask


def _pair_across_classes(
    errors: Errors, matching: Matching, wrong: np.ndarray, objects: np.ndarray, ious: np.ndarray
) -> None:
    free = ~errors.detected[objects]
    for n, row in enumerate(ious):
        candidates = np.where(free & (matching.obj_classes[objects] != matching.det_classes[wrong[n]]), row, -1)
        if len(objects) and candidates.max() >= matching.iou:
            best = int(candidates.argmax())
            free[best] = False
            errors.confusions[objects[best]] = wrong[n]


def _set_false_positives(
    errors: Errors, matching: Matching, wrong: np.ndarray, objects: np.ndarray, ious: np.ndarray
) -> None:
    confused = {int(errors.confusions[o]): m for m, o in enumerate(objects) if errors.confusions[o] >= 0}
    for n, detection in enumerate(wrong.tolist()):
        best = confused.get(detection, int(ious[n].argmax()) if len(objects) else -1)
        overlap = ious[n, best] if len(objects) else 0.0
        if overlap < BACKGROUND_IOU:
            errors.false_positives[detection] = "background"
            continue
        errors.nearest[detection], errors.overlaps[detection] = objects[best], overlap
        same_class = matching.obj_classes[objects[best]] == matching.det_classes[detection]
        if overlap >= matching.iou:
            errors.false_positives[detection] = "duplicate" if same_class else "classification"
        else:
            errors.false_positives[detection] = "localization" if same_class else "both"


def _set_misses(
    errors: Errors, matching: Matching, wrong: np.ndarray, objects: np.ndarray, ious: np.ndarray, weak: np.ndarray
) -> None:
    """``weak`` (G,) bool: objects that are paired with a detection below the threshold, but not far below."""
    for m, row in enumerate(objects):
        if errors.detected[row]:
            continue
        same_class = matching.det_classes[wrong] == matching.obj_classes[row]
        if errors.confusions[row] >= 0:
            errors.misses[row] = "classification"
        elif weak[row]:
            errors.misses[row] = "low score"
        elif (ious[same_class, m] >= BACKGROUND_IOU).any():
            errors.misses[row] = "localization"
        else:
            errors.misses[row] = "missed"


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
