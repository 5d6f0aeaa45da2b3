"""What a reader in a hurry should know and do, in sentences. Every rule states the numbers that it goes by."""

import shlex
from collections import Counter
from typing import Any

import numpy as np

from detector.network.config import VARIANTS
from detector.report.findings import Findings
from detector.report.matching import KINDS, MISSES
from detector.report.run_folder import RunFolder, series
from detector.runs.folder import BEST_CHECKPOINT, LAST_CHECKPOINT
from detector.text import plural

FEW_OBJECTS = 20  # AP of a class with fewer is a matter of luck
MANY_DUPLICATES = 0.03  # of the detections that are shown, and 5 at least
MANY_TINY = 0.3  # of the objects, below one cell of the finest feature map
REMEDIES = {
    "loose": "boxes fit badly: check how tightly the annotations are drawn, train longer",
    "class": "an object is given another class, or two: see the confusion matrix and the images, check the labels",
    "loose and class": "boxes and classes are unsure: more training, or more examples",
    "background": "found where nothing is annotated: look at the images below; some may be missing annotations",
    "low score": "they are found, with scores below the threshold: more training, or more examples like them, raise these",
    "unseen": "nothing certain was found there: look at the images, and try a larger data.image_size if they are small",
}


def advice(run: RunFolder, found: list[Findings]) -> list[str]:
    """Return sentences, the most useful first; ``found`` has the main branch first and may be empty."""
    said = []
    if found:
        main = found[0]
        said += [*_threshold(main), *_commonest(main), *_duplicates(main, found[1:]), *_weakest_class(main)]
        said += _small_in_the_input(run, main) or _small_objects(main)
        if len(found) > 1:
            said += _branches(main, found[1])
    return said + _other_input(run) + _training(run)


def next_commands(run: RunFolder, found: list[Findings]) -> list[str]:
    """Return how to use the checkpoint as it was judged: to predict, and to export. Empty if that makes no sense (yet)."""
    if run.checkpoint is None or not found or found[0].best is None:
        return []
    start, main, checkpoint = ["python", "-m", "detector"], found[0], run.checkpoint
    if _later_than_the_best(run) and (last := run.folder / LAST_CHECKPOINT).is_file():
        checkpoint = last  # whose numbers, and threshold, these are
    trained, judged = _trained_size(run), _input_size(run.judged_with)
    size = ["--image_size", *map(str, judged)] if judged and judged != trained else []  # by default that of training
    nms = main.branch == "one2many"
    below = np.floor(main.best.threshold * 1e4) / 1e4  # rounded up it would leave out detections that are to be shown
    threshold = ["--score_threshold", f"{below:.4g}"]
    predict = [
        *start,
        "predict",
        str(checkpoint),
        "IMAGES",
        *threshold,
        *(["--branch", main.branch] if nms else []),
        *size,
    ]
    export = [*start, "export", str(checkpoint), *(["--branch", main.branch, "--output", "raw"] if nms else []), *size]
    return [shlex.join(predict), shlex.join(export)]


def _threshold(main: Findings) -> list[str]:
    if not (~main.matching.crowds).any():
        return ["The evaluated images have no objects, so that there is nothing to measure: evaluate on others."]
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
    for counts, table, what in ((wrong, KINDS, "wrong detection"), (missed, MISSES, "missed object")):
        if counts and main.best is not None:
            kind, number = counts.most_common(1)[0]
            remedy = REMEDIES.get(kind, "")
            said.append(
                f"{number} of {plural(counts.total(), what)}: {table[kind]}"
                + (f". {remedy[:1].upper() + remedy[1:]}." if remedy else ".")
            )
    return said


def _duplicates(main: Findings, others: list[Findings]) -> list[str]:
    number, shown = _num_duplicates(main)
    if number < max(5, MANY_DUPLICATES * shown):
        return []
    said = f"{number} of the {shown} detections of {main.branch} ({number / shown:.1%}) are duplicates: one object, several"
    said += " boxes. "
    if main.branch == "one2many":
        return [said + "A lower IoU threshold of NMS (--iou_threshold of predict) leaves fewer."]
    if not others:
        return [said + "Evaluate with evaluation.branch: both to see if one2many, with NMS, has fewer, or train longer."]
    fewer, of = _num_duplicates(others[0])
    compared = f"{others[0].branch}, with NMS, has {fewer} of {of} from the score {others[0].threshold:.3f} on"
    if fewer / max(of, 1) < number / shown / 2:
        return [f"{said}{compared}: predict with --branch {others[0].branch} if they are in the way, or train longer."]
    return [f"{said}{compared}, not much less: train longer."]


def _num_duplicates(found: Findings) -> tuple[int, int]:
    """Return how many of the detections that are shown are duplicates, and how many are shown."""
    return int((found.mistakes.kinds == "duplicate").sum()), int(found.mistakes.shown.sum())


def _weakest_class(main: Findings) -> list[str]:
    if len(main.names) < 2:
        return []
    objects = np.bincount(main.matching.obj_classes[~main.matching.crowds], minlength=len(main.names))
    known = [k for k, value in enumerate(main.result.per_class.values()) if value >= 0]
    if len(known) < 2:
        return []
    values = list(main.result.per_class.values())
    k = min(known, key=values.__getitem__)
    few = ", too few to be sure" if objects[k] < FEW_OBJECTS else ""
    return [f"The weakest class is {main.names[k]}: AP {values[k]:.3f} ({plural(objects[k], 'object')}{few})."]


def _input_size(config: dict[str, Any]) -> tuple[int, ...] | None:
    """Return the network input's (height, width), or only its side if it is square."""
    size = (config.get("data") or {}).get("image_size")
    sides = tuple(dict.fromkeys(size)) if isinstance(size, list) else (size,)
    return sides if all(isinstance(side, int) for side in sides) else None


def _trained_size(run: RunFolder) -> tuple[int, ...] | None:
    """Return the input of the training as ``_input_size`` does: a resumed run's configuration may have another."""
    return _input_size(run.config) if run.trained_size is None else tuple(dict.fromkeys(run.trained_size))


def _setting(size: tuple[int, ...]) -> str:
    """Return what ``data.image_size`` takes."""
    return str(size[0] if len(size) == 1 else list(size))


def _later_than_the_best(run: RunFolder) -> bool:
    """Whether the numbers are of a run's last epoch, and another one was better."""
    _, values = series(run.epochs, "val/AP")
    is_last = not run.is_evaluation and run.split == "val" and bool(values)
    return is_last and max(values) - values[-1] > 0.002


def _pixels(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size)) + " px" + (" (height x width)" if len(size) > 1 else "")


def _small_in_the_input(run: RunFolder, main: Findings) -> list[str]:
    size, sides = _input_size(run.judged_with), sides_in_input(run, main)
    if size is None or not len(sides):
        return []
    model = run.judged_with.get("model") or {}
    variant, overrides = str(model.get("variant")), model.get("overrides") or {}
    fine = variant.endswith("-p2") or overrides.get("min_level") == 2
    cell = 4 if fine else 8  # pixels, of the finest feature map
    median, tiny = float(np.median(sides)), float((sides < cell).mean())
    if median >= 2 * cell and tiny < MANY_TINY:
        return []
    larger = tuple(64 * round(np.ceil(side * min(max(2 * cell / median, 1.25), 2) / 64)) for side in size)
    finer = f"the variant {variant}-p2" if f"{variant}-p2" in VARIANTS else "model.overrides: {min_level: 2}"
    return [
        f"Objects are small in the network input of {_pixels(size)}: half of them have sides below {median:.1f} px, and "
        f"{tiny:.0%} below {cell} px, a cell of the finest feature map. Train with a larger data.image_size, say "
        f"{_pixels(larger)}" + ("." if fine else f", or with {finer}, whose cells are 4 px.")
    ]


def sides_in_input(run: RunFolder, main: Findings) -> np.ndarray:
    """Return the square root of the box area of each object that has one, in pixels of the letterboxed network input.

    Crowds are left out.
    """
    size = _input_size(run.judged_with)
    objects = np.flatnonzero(~main.matching.crowds)
    entries = [main.coco.imgs[image] for image in main.matching.obj_images[objects].tolist()]
    if size is None or any(not entry.get(side) for entry in entries for side in ("height", "width")):
        return np.empty(0)
    ratios = [min(size[0] / entry["height"], size[-1] / entry["width"]) for entry in entries]
    boxes = main.matching.obj_boxes[objects]
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)) * ratios
    return sides[sides > 0]  # boxes without area are in the ground truth all the same


def _other_input(run: RunFolder) -> list[str]:
    trained, judged = _trained_size(run), _input_size(run.judged_with)
    if not trained or not judged or trained == judged:
        return []
    option = " ".join(map(str, judged))
    return [
        f"Evaluated with an input of {_pixels(judged)}, trained with {_pixels(trained)}: AP may be far lower for it; "
        f"compare with --data.image_size {_setting(trained)}. "
        f"predict and export take that of training unless told --image_size {option}."
    ]


def _small_objects(main: Findings) -> list[str]:
    small, large = main.result.metrics["AP_small"], max(main.result.metrics[f"AP_{s}"] for s in ("medium", "large"))
    areas = main.matching.areas[~main.matching.crowds]
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
    cost = ", at the cost of NMS" if other.branch == "one2many" else ""
    return [f"The branch {other.branch} is better by {gap:.3f} AP{cost}."]


def _training(run: RunFolder) -> list[str]:
    epochs, values = series(run.epochs, "val/AP")
    if not epochs:
        return []
    best, last, said = int(np.argmax(values)), len(values) - 1, []
    if _later_than_the_best(run):
        said.append(f"These numbers are of epoch {epochs[last]}; epoch {epochs[best]} was better (AP {values[best]:.3f}).")
        if (checkpoint := run.folder / BEST_CHECKPOINT).is_file():
            trained, now = _trained_size(run), _input_size(run.config)
            size = ["--data.image_size", _setting(trained)] if trained and trained != now else []
            config = str(run.folder / run.config_name)
            command = shlex.join(["python", "evaluate.py", str(checkpoint), "--config", config, *size])
            said.append(f"For the numbers of best.ckpt: {command}, and a report on eval_val.")
    planned = (run.config.get("trainer") or {}).get("max_epochs")
    reached = max(run.epochs)
    if isinstance(planned, int) and 0 < reached + 1 < planned:
        said.append(f"The run has reached epoch {reached}, of {planned} epochs planned: it was cut short or goes on.")
    early = [value for epoch, value in zip(epochs, values) if epoch <= epochs[last] * 0.8]
    if len(values) >= 10 and early and max(early) < 0.97 * values[best] and best > last * 0.9:
        said.append("AP still rose in the last fifth of the epochs: more epochs may help.")
    return said
