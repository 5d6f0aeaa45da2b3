"""What a reader in a hurry should know and do, in sentences. Every rule states the numbers that it goes by."""

import shlex
from collections import Counter

import numpy as np

from detector.report.findings import Findings
from detector.report.matching import KINDS, MISSES
from detector.report.run_folder import RunFolder, series

FEW_OBJECTS = 20  # AP of a class with fewer is a matter of luck
REMEDIES = {
    "loose": "boxes fit badly: check how tightly the annotations are drawn, train longer",
    "duplicate": "one object, several boxes: if this is the NMS-free branch, compare the other or train longer",
    "class": "an object is given another class, or two: see the confusion matrix and the pictures, check the labels",
    "loose and class": "boxes and classes are unsure: more training, or more examples",
    "background": "found where nothing is annotated: look at the pictures below; some may be missing annotations",
    "low score": "they are found, with scores below the threshold: more training, or more examples like them, raise these",
    "unseen": "nothing certain was found there: look at the pictures, and try a larger data.image_size if they are small",
}


def advice(run: RunFolder, found: list[Findings]) -> list[str]:
    """Return sentences, the most useful first; ``found`` has the main branch first and may be empty."""
    said = []
    if found:
        main = found[0]
        said += [*_threshold(main), *_commonest(main), *_weakest_class(main), *_small_objects(main)]
        if len(found) > 1:
            said += _branches(main, found[1])
    return said + _training(run)


def _threshold(main: Findings) -> list[str]:
    if not (~main.scene.crowds).any():
        return ["The evaluated pictures have no objects, so that there is nothing to measure: evaluate on others."]
    if main.best is None:
        return ["No detection is right at IoU 0.5: train longer, and look at the data with python -m data check."]
    p = main.best
    return [
        f"Show detections with scores from {p.threshold:.3f} on: {p.precision:.0%} of what is shown is right, and "
        f"{p.recall:.0%} of the objects are found (F1 {p.f1:.3f})."
    ]


def _commonest(main: Findings) -> list[str]:
    wrong = Counter(kind for kind in main.mistakes.kinds if kind)
    missed = Counter(kind for kind in main.mistakes.misses if kind)
    said = []
    for counts, table, what in ((wrong, KINDS, "wrong detections"), (missed, MISSES, "missed objects")):
        if counts and main.best is not None:
            kind, number = counts.most_common(1)[0]
            remedy = REMEDIES.get(kind, "")
            said.append(
                f"{number} of {counts.total()} {what}: {table[kind]}"
                + (f". {remedy[:1].upper() + remedy[1:]}." if remedy else ".")
            )
    return said


def _weakest_class(main: Findings) -> list[str]:
    if len(main.names) < 2:
        return []
    objects = np.bincount(main.scene.obj_classes[~main.scene.crowds], minlength=len(main.names))
    known = [k for k, value in enumerate(main.result.per_class.values()) if value >= 0]
    if len(known) < 2:
        return []
    values = list(main.result.per_class.values())
    k = min(known, key=values.__getitem__)
    few = ", too few to be sure" if objects[k] < FEW_OBJECTS else ""
    return [f"The weakest class is {main.names[k]}: AP {values[k]:.3f} ({objects[k]} objects{few})."]


def _small_objects(main: Findings) -> list[str]:
    small, large = main.result.metrics["AP_small"], max(main.result.metrics[f"AP_{s}"] for s in ("medium", "large"))
    areas = main.scene.areas[~main.scene.crowds]
    share = float((areas <= 32**2).mean()) if len(areas) else 0.0
    if small < 0 or share < 0.02 or small > large / 2:
        return []
    return [
        f"Small objects (up to 32 x 32 px, {share:.0%} of all) have AP {small:.3f}, others up to {large:.3f}: a larger "
        f"data.image_size, or a variant with -p2."
    ]


def _branches(main: Findings, other: Findings) -> list[str]:
    gap = other.result.metrics["AP"] - main.result.metrics["AP"]
    if gap < 0.01:
        return []
    return [f"The branch {other.branch} is better by {gap:.3f} AP, at the cost of NMS if it is one2many."]


def _training(run: RunFolder) -> list[str]:
    epochs, values = series(run.epochs, "val/AP")
    if not epochs:
        return []
    best, last, said = int(np.argmax(values)), len(values) - 1, []
    if values[best] - values[last] > 0.002 and not run.is_evaluation and run.split == "val":
        said.append(f"These numbers are of epoch {epochs[last]}; epoch {epochs[best]} was better (AP {values[best]:.3f}).")
        if (checkpoint := run.folder / "best.ckpt").is_file():
            command = shlex.join(
                ["python", "train.py", "--config", str(run.folder / run.config_name), "--eval", str(checkpoint)]
            )
            said.append(f"For the numbers of best.ckpt: {command}, and a report on eval_val.")
    planned = (run.config.get("trainer") or {}).get("max_epochs")
    reached = max(run.epochs)
    if isinstance(planned, int) and 0 < reached + 1 < planned:
        said.append(f"The run has reached epoch {reached}, of {planned} epochs planned: it was cut short or goes on.")
    early = [value for epoch, value in zip(epochs, values) if epoch <= epochs[last] * 0.8]
    if len(values) >= 10 and early and max(early) < 0.97 * values[best] and best > last * 0.9:
        said.append("AP still rose in the last fifth of the epochs: more epochs may help.")
    return said
