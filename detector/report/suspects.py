"""Labels that look wrong: places where the network is sure and the annotations say something else."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detector.report.analysis import Analysis
from detector.report.errors import Errors
from detector.report.images import NUM_EXAMPLES, draw_example, take_turns, worst_misses
from detector.report.matching import Matching, box_ious
from detector.report.page import CaptionedImage
from detector.text import score_text

KINDS = {
    "no label": "a sure detection on no object: is a label missing?",
    "other class": "the network is sure of another class: is the class wrong?",
    "no detection": "no detection of any class answers to this label: is there such an object?",
}
SURE_RECALL = 0.5  # labels without an answer are suspect only in classes of which so many objects are detected


@dataclass(frozen=True)
class Suspect:
    """A label that may be wrong or missing: the row of a detection, the row of an object, or both (-1 for none)."""

    kind: str  # a key of KINDS
    detection: int = -1
    object: int = -1


def find_suspects(matching: Matching, errors: Errors) -> list[Suspect]:
    """Return all suspects, kind by kind: the highest scores first, and of labels those with the weakest answers.

    A detection is sure if its score is at least the median of the right detections. Without right detections there are no
    suspects: a network that knows nothing accuses nobody.
    """
    right = errors.shown & (matching.matches >= 0)
    if not right.any():
        return []
    sure = errors.shown & (matching.scores >= np.median(matching.scores[right]))
    wrong = np.argsort(-matching.scores, kind="stable")
    wrong = wrong[sure[wrong] & (errors.false_positives[wrong] != "")]
    suspects = [Suspect("no label", row) for row in wrong.tolist() if errors.false_positives[row] == "background"]
    for row in wrong.tolist():
        nearest = int(errors.nearest[row])
        fits = errors.false_positives[row] == "classification" and errors.overlaps[row] >= matching.iou
        if fits and not errors.detected[nearest]:
            suspects.append(Suspect("other class", row, nearest))
    recalls, answers = _recalls(matching, errors), _best_answers(matching)
    missed = worst_misses(matching, errors, len(matching.obj_boxes), most_per_image=None)
    for row in sorted(missed, key=lambda row: answers[row]):  # of equal ones the largest of their class first
        if errors.misses[row] == "missed" and recalls[matching.obj_classes[row]] >= SURE_RECALL:
            suspects.append(Suspect("no detection", object=row))
    return suspects


def _recalls(matching: Matching, errors: Errors) -> np.ndarray:
    """Return the share of the objects of each class that is detected, (C,)."""
    objects, detected = (
        np.bincount(matching.obj_classes[rows], minlength=matching.num_classes)
        for rows in (~matching.crowds, errors.detected & ~matching.crowds)
    )
    return detected / np.maximum(objects, 1)


def _best_answers(matching: Matching) -> np.ndarray:
    """Return the highest score of the detections of any class and score on each object, (G,); 0 without one."""
    answers = np.zeros(len(matching.areas))
    for detections, objects in matching.by_image():
        if len(detections) and len(objects):
            hit = box_ious(matching.det_boxes[detections], matching.obj_boxes[objects]) >= matching.iou
            answers[objects] = np.where(hit, matching.scores[detections][:, None], 0).max(axis=0)
    return answers


def suspect_entries(main: Analysis, suspects: list[Suspect]) -> Iterator[dict[str, Any]]:
    """Yield each suspect as an entry for JSON, with the ids, names and boxes (x y width height) of the annotation file."""
    matching = main.matching
    for one in suspects:
        row, source = (one.detection, matching.det_boxes) if one.detection >= 0 else (one.object, matching.obj_boxes)
        number = int((matching.det_images if one.detection >= 0 else matching.obj_images)[row])
        x1, y1, x2, y2 = source[row].tolist()
        yield {
            "image": main.coco.imgs[number].get("file_name"),
            "image_id": main.coco.image_ids.id(number),
            "kind": one.kind,
            "box": [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(float(matching.scores[row]), 4) if one.detection >= 0 else None,
            "class": main.class_names[matching.det_classes[row]] if one.detection >= 0 else None,
            "label": main.class_names[matching.obj_classes[one.object]] if one.object >= 0 else None,
            "annotation_id": main.coco.annotation_ids[one.object] if one.object >= 0 else None,
        }


def suspect_examples(main: Analysis, suspects: list[Suspect], folder: Path | None) -> list[CaptionedImage]:
    """Return suspects of each kind in turn as images, which are read from ``folder``."""
    matching = main.matching
    kinds = np.array([one.kind for one in suspects])
    images = [matching.det_images[s.detection] if s.detection >= 0 else matching.obj_images[s.object] for s in suspects]
    chosen = [suspects[n] for n in take_turns(np.arange(len(suspects)), kinds, np.array(images), NUM_EXAMPLES)]
    return [_example(main, folder, one) for one in chosen]


def _example(main: Analysis, folder: Path | None, one: Suspect) -> CaptionedImage:
    matching, names = main.matching, main.class_names
    label = f"label {names[matching.obj_classes[one.object]]}" if one.object >= 0 else "no label"
    if one.detection < 0:
        box, image = matching.obj_boxes[one.object], matching.obj_images[one.object]
        return draw_example(main, folder, f"{label}: {KINDS[one.kind]}", box, int(image))
    found = f"{names[matching.det_classes[one.detection]]} {score_text(matching.scores[one.detection])}"
    box, image = matching.det_boxes[one.detection], matching.det_images[one.detection]
    return draw_example(main, folder, f"{found}, {label}: {KINDS[one.kind]}", box, int(image))
