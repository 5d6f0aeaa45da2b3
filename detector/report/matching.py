"""Which detection found which object, and what kind of mistake the others are."""

from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.batch import xywh_to_xyxy, xyxy_to_xywh

LOW = 0.5  # of the threshold: a score below that is none
LOOSE = 0.1  # an overlap (IoU) below this is none

# After TIDE (arXiv:2008.08115): a detection without an object of its own, by the object that it overlaps most.
KINDS = {
    "loose": "right class, but the box fits no object well",
    "duplicate": "the object was found already, with a higher score",
    "class": "on an object of another class",
    "loose and class": "near an object of another class",
    "background": "on nothing",
}
# An object that was not found, by what is there instead; the first that applies.
MISSES = {
    "class": "found, but as another class",
    "low score": "found, but with a score below the threshold (half of it at least)",
    "loose": "found, but the box does not fit well",
    "unseen": "no detection of it, however it is named, has a score of half the threshold or more",
}


@dataclass(frozen=True)
class Matching:
    """Detections (N) and objects (G) in flat arrays, and which of them pycocotools paired at one IoU threshold."""

    det_images: np.ndarray  # (N,) image ids
    det_boxes: np.ndarray  # (N, 4) x1 y1 x2 y2 in pixels of the original images
    det_classes: np.ndarray  # (N,) numbers of the categories, 0..C-1, in the order of their ids
    scores: np.ndarray  # (N,)
    counted: np.ndarray  # (N,) bool; not: beyond the 100 best of image and class, in a crowd, or of an unknown class
    found: np.ndarray  # (N,) the object that a detection found, -1 for none
    obj_images: np.ndarray  # (G,) image ids
    obj_boxes: np.ndarray  # (G, 4)
    obj_classes: np.ndarray  # (G,)
    areas: np.ndarray  # (G,) as in the annotation file
    crowds: np.ndarray  # (G,) bool; crowds need not be found
    iou: float  # the threshold
    num_classes: int

    def by_image(self) -> "list[tuple[np.ndarray, np.ndarray]]":
        """Return the rows of detections and of objects of every image that has any."""
        images = np.unique(np.concatenate((self.det_images, self.obj_images)))
        return list(zip(_groups(self.det_images, images), _groups(self.obj_images, images)))


def _groups(values: np.ndarray, keys: np.ndarray) -> list[np.ndarray]:
    """Return the places of each of ``keys``, ascending, in ``values``."""
    order = np.argsort(values, kind="stable")
    starts = np.searchsorted(values[order], keys)
    return np.split(order, starts[1:]) if len(keys) else []


def matching(coco: COCO, judged: COCOeval, detections: np.ndarray, iou: float = 0.5) -> Matching:
    """Return what ``judged`` (see ``coco_metrics.judge``) decided about ``detections`` (N, 7) at the threshold ``iou``.

    ``coco`` comes from ``load_ground_truth``. The pairs are pycocotools' own: from the highest score down, every detection
    takes the free object of its class that it overlaps most, if by ``iou`` at least.
    """
    level = int(np.argmin(np.abs(judged.params.iouThrs - iou)))
    assert abs(judged.params.iouThrs[level] - iou) < 1e-6, iou
    objects = coco.dataset["annotations"]
    counted, found = np.zeros(len(detections), bool), np.full(len(detections), -1)
    limit = judged.params.maxDets[2]
    everything = judged.params.areaRng[0]
    for outcome in judged.evalImgs:
        if outcome is not None and outcome["aRng"] == everything and outcome["dtIds"]:
            rows = np.array(outcome["dtIds"][:limit]) - 1
            ignored = outcome["dtIgnore"][level, :limit].astype(bool)
            counted[rows] = ~ignored
            found[rows] = np.where(ignored, -1, outcome["dtMatches"][level, :limit].astype(int) - 1)
    numbers = {category_id: k for k, category_id in enumerate(judged.params.catIds)}
    return Matching(
        det_images=detections[:, 0].astype(np.int64),
        det_boxes=xywh_to_xyxy(detections[:, 1:5]),
        det_classes=np.array([numbers.get(int(i), -1) for i in detections[:, 6]], dtype=np.int64),
        scores=detections[:, 5],
        counted=counted,
        found=found,
        obj_images=np.array([a["image_id"] for a in objects], dtype=np.int64),
        obj_boxes=xywh_to_xyxy(np.array([a["bbox"] for a in objects], dtype=float).reshape(-1, 4)),
        obj_classes=np.array([numbers[a["category_id"]] for a in objects], dtype=np.int64),
        areas=np.array([a["area"] for a in objects], dtype=float),
        crowds=np.array([a["iscrowd"] for a in objects], dtype=bool),
        iou=iou,
        num_classes=len(numbers),
    )


def box_ious(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU (N, M) of boxes (N, 4) and (M, 4), x1 y1 x2 y2, as pycocotools computes it."""
    if not len(boxes) or not len(others):
        return np.zeros((len(boxes), len(others)))
    return np.asarray(mask.iou(xyxy_to_xywh(boxes), xyxy_to_xywh(others), [0] * len(others)))


@dataclass(frozen=True)
class Mistakes:
    """What becomes of detections and objects if only detections with scores of at least ``threshold`` are shown."""

    threshold: float
    shown: np.ndarray  # (N,) bool, the counted detections
    found: np.ndarray  # (G,) bool
    kinds: np.ndarray  # (N,) a key of KINDS, "" where a detection is right or not shown
    misses: np.ndarray  # (G,) a key of MISSES, "" where an object was found or is a crowd
    confused: np.ndarray  # (G,) the detection of another class that took a missed object, -1 for none
    nearest: np.ndarray  # (N,) the object that a wrong detection overlaps most, -1 for none
    overlaps: np.ndarray = field(repr=False)  # (N,) by how much (IoU)


def mistakes(matching: Matching, threshold: float) -> Mistakes:
    """Sort what is wrong at a score threshold into kinds.

    Detections and objects that are left without a partner of their class are paired across classes: from the highest score
    down, every detection takes the free object that it overlaps most, if by ``matching.iou`` at least. That is a confusion.
    """
    num_objects = len(matching.obj_images)
    shown = matching.counted & (matching.scores >= threshold)
    right = shown & (matching.found >= 0)
    found = np.zeros(num_objects, bool)
    found[matching.found[right]] = True
    out = Mistakes(
        threshold=threshold,
        shown=shown,
        found=found,
        kinds=np.full(len(shown), "", dtype=object),
        misses=np.full(num_objects, "", dtype=object),
        confused=np.full(num_objects, -1),
        nearest=np.full(len(shown), -1),
        overlaps=np.zeros(len(shown)),
    )
    hidden_finds = np.zeros(num_objects, bool)
    # Among hundreds of detections without a threshold one fits nearly everything: weaker ones say nothing.
    close = matching.counted & ~shown & (matching.scores >= LOW * threshold)
    hidden_finds[matching.found[close & (matching.found >= 0)]] = True
    for detections, objects in matching.by_image():
        objects = objects[~matching.crowds[objects]]
        wrong = detections[shown[detections] & ~right[detections]]
        wrong = wrong[np.argsort(-matching.scores[wrong], kind="stable")]
        ious = box_ious(matching.det_boxes[wrong], matching.obj_boxes[objects])
        _confuse(out, matching, wrong, objects, ious)
        _name_kinds(out, matching, wrong, objects, ious)
        _name_misses(out, matching, wrong, objects, ious, hidden_finds)
    return out


def _confuse(out: Mistakes, matching: Matching, wrong: np.ndarray, objects: np.ndarray, ious: np.ndarray) -> None:
    free = ~out.found[objects]
    for n, row in enumerate(ious):
        candidates = np.where(free & (matching.obj_classes[objects] != matching.det_classes[wrong[n]]), row, -1)
        if len(objects) and candidates.max() >= matching.iou:
            best = int(candidates.argmax())
            free[best] = False
            out.confused[objects[best]] = wrong[n]


def _name_kinds(out: Mistakes, matching: Matching, wrong: np.ndarray, objects: np.ndarray, ious: np.ndarray) -> None:
    taken = {int(out.confused[o]): o for o in objects if out.confused[o] >= 0}
    for n, detection in enumerate(wrong):
        best = int(ious[n].argmax()) if len(objects) else -1
        overlap = ious[n, best] if len(objects) else 0.0
        if detection in taken:
            best = int(np.flatnonzero(objects == taken[detection])[0])
            overlap = ious[n, best]
        if overlap < LOOSE:
            out.kinds[detection] = "background"
            continue
        out.nearest[detection], out.overlaps[detection] = objects[best], overlap
        same = matching.obj_classes[objects[best]] == matching.det_classes[detection]
        if overlap >= matching.iou:
            out.kinds[detection] = "duplicate" if same else "class"
        else:
            out.kinds[detection] = "loose" if same else "loose and class"


def _name_misses(
    out: Mistakes, matching: Matching, wrong: np.ndarray, objects: np.ndarray, ious: np.ndarray, hidden_finds: np.ndarray
) -> None:
    for m, number in enumerate(objects):
        if out.found[number]:
            continue
        same = matching.det_classes[wrong] == matching.obj_classes[number]
        if out.confused[number] >= 0:
            out.misses[number] = "class"
        elif hidden_finds[number]:
            out.misses[number] = "low score"
        elif (ious[same, m] >= LOOSE).any():
            out.misses[number] = "loose"
        else:
            out.misses[number] = "unseen"


def confusion_matrix(matching: Matching, found: Mistakes) -> np.ndarray:
    """Return counts (C + 1, C + 1): rows are the objects' classes, columns the detections', the last of both is nothing.

    The diagonal has the objects that were found, the last column those that were missed and are not confused, the last
    row the detections that are neither right nor a confusion. Crowds and what is found in them are left out.
    """
    c = matching.num_classes
    counts = np.zeros((c + 1, c + 1), dtype=np.int64)
    right = matching.obj_classes[found.found]
    np.add.at(counts, (right, right), 1)
    missed = np.flatnonzero(~found.found & ~matching.crowds)
    taken = found.confused[missed]
    columns = np.where(taken >= 0, matching.det_classes[taken] if len(matching.det_classes) else c, c)
    np.add.at(counts, (matching.obj_classes[missed], columns), 1)
    wrong = np.flatnonzero(found.kinds != "")
    nothing = np.setdiff1d(wrong, taken)
    np.add.at(counts, (np.full(len(nothing), c), matching.det_classes[nothing]), 1)
    return counts
