"""The AP of a constant box on a data set: below it, the AP of a network shows nothing."""

from data.annotations import Annotations
from data.check.findings import Finding, Splits
from detector.evaluation.coco_files import load_ground_truth
from detector.evaluation.constant_box import MeanBoxes, evaluate_constant_box, mean_boxes

HIGH_FLOOR = 0.2  # an AP50 of the constant box that gives a warning


def constant_box_findings(splits: Splits) -> list[Finding]:
    """Return the AP of the mean boxes of train on val and test; of a single split's mean boxes on the split itself."""
    if not splits:
        return []
    source = "train" if "train" in splits else next(iter(splits))
    means = _mean_boxes(splits[source])
    evaluated = [split for split in splits if split != source] or [source]
    return [finding for split in evaluated for finding in _findings(split, splits[split], source, means)]


def _mean_boxes(annotations: Annotations) -> MeanBoxes:
    chosen = ~annotations.crowds
    sizes = annotations.sizes[annotations.image_indices()]
    return mean_boxes(annotations.bboxes[chosen], sizes[chosen], annotations.labels[chosen])


def _findings(split: str, annotations: Annotations, source: str, means: MeanBoxes) -> list[Finding]:
    result = evaluate_constant_box(load_ground_truth(annotations.ground_truth()), means)
    if result is None:  # without objects
        return []
    ap, ap50 = result.metrics["AP"], result.metrics["AP50"]
    boxes = f"the mean box of each class of {source}, the same on every image"
    text = f"a constant box ({boxes}) has AP50 {ap50:.3f} and AP {ap:.3f}"
    if ap50 < HIGH_FLOOR:
        return [Finding("note", split, f"{text}: a network at or below that shows nothing")]
    reason = "the objects are large or lie at one place"
    return [Finding("warning", split, f"{text}, as {reason}: an AP50 below {ap50:.3f} shows nothing; AP75 and AP say more")]
