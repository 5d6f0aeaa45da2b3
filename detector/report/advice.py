"""Advice in sentences, each with the numbers behind it."""

import shlex
from collections import Counter

import numpy as np

from detector.network.config import VARIANTS
from detector.report.analysis import Analysis
from detector.report.errors import FALSE_POSITIVES, MISSES
from detector.report.input_size import (
    config_size,
    data_setting,
    evaluated_size,
    evaluated_tile,
    in_pixels,
    sides_in_input,
    trained_size,
)
from detector.report.nothing_learned import (
    GOOD_AP50,
    LOW_SCORE,
    above_constant_box,
    compare_with_constant_box,
    how_to_learn,
    nothing_learned,
)
from detector.report.run_folder import RunFolder, series
from detector.report.training import still_rising, unfinished
from detector.runs.folder import BEST_CHECKPOINT, LAST_CHECKPOINT
from detector.text import plural, score_text

FEW_OBJECTS = 20  # the AP of a class with fewer is a matter of luck
FEW_DETECTIONS = 5  # that may all be of one class by chance
MOSTLY_ONE_CLASS = 0.95  # of the objects
CLEARLY = 0.05  # of AP above a constant box
MANY_DUPLICATES = 0.03  # of the shown detections, and 5 at least
MANY_TINY = 0.3  # of the objects, below one cell of the finest feature map
REMEDIES = {
    "localization": "Boxes fit badly: check how tightly the annotations are drawn, train longer.",
    "classification": "Classes are mixed up: see the confusion matrix and the images, check the labels.",
    "both": "Boxes and classes are unsure: train longer, or add examples.",
    "background": "Nothing is annotated there: look at the images below; some annotations may be missing.",
    "low score": "Scores are below the threshold: train longer, or add examples like these.",
    "missed": "Look at the images; if the objects are small, try a larger data.image_size.",
}


def advice(run: RunFolder, analyses: list[Analysis]) -> list[str]:
    """Return sentences, the most useful first; ``analyses`` has the main branch first and may be empty."""
    if not analyses:
        return _other_input(run) + _training(run)
    main, others = analyses[0], analyses[1:]
    if sentences := _nothing_learned(run, main, others):
        return sentences + _training(run)
    sentences = [*_threshold(main), *_constant_box(main)]
    sentences += _only_one_class(main) or _most_frequent_errors(main)
    sentences += [*_duplicates(main, others), *_weakest_class(main)]
    sentences += _small_in_the_input(run, main) or _small_objects(main)
    if others:
        sentences += _branches(main, others[0])
    return sentences + _other_input(run) + _training(run)


def _nothing_learned(run: RunFolder, main: Analysis, others: list[Analysis]) -> list[str]:
    """Return that the network has learned nothing yet, and what to do; no sentence if it has learned something."""
    if (evidence := nothing_learned(main)) is None:
        return []
    least_score = (run.evaluation_config.get("evaluation") or {}).get("score_threshold", 0)
    if not len(main.matching.scores) and least_score > LOW_SCORE:
        return [
            f"No detection has a score of {least_score} or more (evaluation.score_threshold), so nothing is known about the "
            f"network: evaluate it with --evaluation.score_threshold 0.001."
        ]
    if other_input := _other_input(run):
        return [f"These detections show nothing: {evidence}. The size of the input may be the reason.", *other_input]
    if _has_learned_before(run, main):
        return [f"The network has lost what it had learned: {evidence}. A lower learning rate may help: --model.lr."]
    if learned := [other for other in others if nothing_learned(other) is None]:
        other, ap = learned[0].branch, learned[0].result.metrics["AP"]
        start = f"The branch {main.branch} has learned nothing yet: {evidence}. {other} has, with AP {ap:.3f}: predict with "
        return [start + f"--branch {other}, or train longer.", *how_to_learn(run)]
    start = f"The network has learned nothing yet: {evidence}. "
    return [start + "Its errors say nothing about the annotations.", *how_to_learn(run)]


def _has_learned_before(run: RunFolder, main: Analysis) -> bool:
    """Return True if an earlier epoch of the run was clearly better than a constant box."""
    floor = 0.0 if main.floor is None else main.floor.metrics["AP"]
    return _best_was_earlier(run) and max(series(run.epochs, "val/AP")[1]) > floor + CLEARLY


def learning_warnings(run: RunFolder, analyses: list[Analysis]) -> list[str]:
    """Return that the network, or its main branch, has learned nothing yet, to be said before anything else; or nothing."""
    return _nothing_learned(run, analyses[0], analyses[1:])[:1] if analyses else []


def next_commands(run: RunFolder, analyses: list[Analysis]) -> list[str]:
    """Return the commands that predict and export with the evaluated checkpoint; none if it has learned nothing."""
    if run.checkpoint is None or not analyses or (best := analyses[0].best) is None or nothing_learned(analyses[0]):
        return []
    start, main, checkpoint = ["python", "-m", "detector"], analyses[0], run.checkpoint
    if _best_was_earlier(run) and (last := run.folder / LAST_CHECKPOINT).is_file():
        checkpoint = last  # the threshold belongs to it
    trained, evaluated = trained_size(run), evaluated_size(run)
    size = ["--image_size", *map(str, evaluated)] if evaluated and evaluated != trained else []  # default: of the training
    with_nms = main.branch == "one2many"
    branch = ["--branch", main.branch] if with_nms else []
    threshold = ["--score_threshold", str(best.threshold)]
    predict = [*start, "predict", str(checkpoint), "IMAGES", *threshold, *branch, *size, *_options_of_views(run)]
    export = [*start, "export", str(checkpoint), *branch, *(["--output", "raw"] if with_nms else []), *size]
    return [shlex.join(predict), shlex.join(export)]


def _options_of_views(run: RunFolder) -> list[str]:
    """Return the options of predict that cut and mirror images as the evaluation did: the threshold is that of both."""
    config, tile = run.evaluation_config, evaluated_tile(run)
    options = [] if tile is None else ["--tile", *map(str, dict.fromkeys(tile))]
    if tile is not None and config.get("overlap") is not None:
        options += ["--overlap", str(config["overlap"])]
    return [*options, "--flip_test"] if (config.get("evaluation") or {}).get("flip_test") else options


def _threshold(main: Analysis) -> list[str]:
    if not main.matching.num_objects:
        return ["The evaluated images have no objects, so there is nothing to measure: evaluate on others."]
    if main.best is None:
        return ["No detection is right at IoU 0.5: train longer, and look at the data with python -m data check."]
    p = main.best
    return [
        f"Show detections with scores from {p.threshold} on: {p.precision:.0%} of them are right, and "
        f"{p.recall:.0%} of the objects are detected (F1 {p.f1:.3f})."
    ]


def _constant_box(main: Analysis) -> list[str]:
    """Return a warning if AP is not above that of a constant box, though scores are high."""
    if not main.matching.num_objects or above_constant_box(main):
        return []
    start = f"The {compare_with_constant_box(main)}, though scores reach {score_text(main.matching.scores.max())}: "
    if main.result.metrics["AP50"] >= GOOD_AP50:
        return [start + "the objects lie at one place, and these images cannot show whether the network looks at them."]
    return [start + "check that classes, boxes and input size of these annotations are those of the training."]


def _only_one_class(main: Analysis) -> list[str]:
    """Return a sentence if all shown detections are of one class, and the objects are not."""
    classes = main.matching.det_classes[main.errors.shown]
    objects = main.matching.obj_classes[~main.matching.crowds]
    if (
        not len(objects)
        or len(classes) < FEW_DETECTIONS
        or (classes != classes[0]).any()
        or (objects == classes[0]).mean() > MOSTLY_ONE_CLASS
    ):
        return []
    name, others = main.class_names[classes[0]], int((objects != classes[0]).sum())
    return [
        f"All {len(classes)} shown detections are {name}, but {others} of {plural(len(objects), 'object')} are of other "
        f"classes: the network does not tell classes apart yet. Train longer; python -m data check shows the class balance."
    ]


def _most_frequent_errors(main: Analysis) -> list[str]:
    if main.best is None:
        return []
    wrong = (main.errors.false_positives, FALSE_POSITIVES, "wrong detection")
    sentences = []
    for types, meanings, noun in (wrong, (main.errors.misses, MISSES, "missed object")):
        counts = Counter(types[types != ""].tolist())
        for type_, number in counts.most_common(1):
            remedy = REMEDIES.get(type_, "")
            sentences.append(f"{number} of {plural(counts.total(), noun)}: {meanings[type_]}. {remedy}".rstrip())
    return sentences


def _duplicates(main: Analysis, others: list[Analysis]) -> list[str]:
    number, shown = _count_duplicates(main)
    if number < max(5, MANY_DUPLICATES * shown):
        return []
    start = f"{number} of the {shown} detections of {main.branch} ({number / shown:.1%}) are duplicates. "
    if main.branch == "one2many":
        return [start + "A lower IoU threshold of NMS (--iou_threshold of predict) leaves fewer."]
    if not others:
        return [start + "Evaluate with evaluation.branch: both to see if one2many, with NMS, has fewer, or train longer."]
    other = others[0]
    other_number, other_shown = _count_duplicates(other)
    score = other.errors.threshold
    comparison = f"{other.branch}, with NMS, has {other_number} of {other_shown} from the score {score} on"
    if other_number / max(other_shown, 1) < number / shown / 2:
        return [f"{start}{comparison}: predict with --branch {other.branch} if they are in the way, or train longer."]
    return [f"{start}{comparison}, not much less: train longer."]


def _count_duplicates(analysis: Analysis) -> tuple[int, int]:
    """Return the numbers of duplicates and of shown detections."""
    return int((analysis.errors.false_positives == "duplicate").sum()), int(analysis.errors.shown.sum())


def _weakest_class(main: Analysis) -> list[str]:
    objects = np.bincount(main.matching.obj_classes[~main.matching.crowds], minlength=len(main.class_names))
    values = list(main.result.per_class.values())
    known = [k for k, value in enumerate(values) if value >= 0]
    if len(known) < 2:
        return []
    k = min(known, key=values.__getitem__)
    few = ", too few to be sure" if objects[k] < FEW_OBJECTS else ""
    return [f"The weakest class is {main.class_names[k]}: AP {values[k]:.3f} ({plural(objects[k], 'object')}{few})."]


def _best_was_earlier(run: RunFolder) -> bool:
    """Return True if the numbers are of a run's last epoch and another epoch was better."""
    _, values = series(run.epochs, "val/AP")
    is_last = not run.is_evaluation and run.split == "val" and bool(values)
    return is_last and max(values) - values[-1] > 0.002


def _small_in_the_input(run: RunFolder, main: Analysis) -> list[str]:
    size, sides = evaluated_size(run), sides_in_input(run, main)
    if size is None or not len(sides):
        return []
    model = run.evaluation_config.get("model") or {}
    variant, overrides = str(model.get("variant")), model.get("overrides") or {}
    has_p2 = variant.endswith("-p2") or overrides.get("min_level") == 2
    cell = 4 if has_p2 else 8  # pixels, of the finest feature map
    median, tiny = float(np.median(sides)), float((sides < cell).mean())
    if median >= 2 * cell and tiny < MANY_TINY:
        return []
    larger = tuple(64 * round(np.ceil(side * min(max(2 * cell / median, 1.25), 2) / 64)) for side in size)
    finer = f"the variant {variant}-p2" if f"{variant}-p2" in VARIANTS else "model.overrides: {min_level: 2}"
    if evaluated_tile(run) is not None:
        return [
            f"Objects are small in the network input of {in_pixels(size)}, also in tiles: half of them have sides below "
            f"{median:.1f} px. Train on smaller tiles (docs/predict.md)" + ("." if has_p2 else f", or with {finer}.")
        ]
    return [
        f"Objects are small in the network input of {in_pixels(size)}: half of them have sides below {median:.1f} px, and "
        f"{tiny:.0%} below {cell} px, a cell of the finest feature map. Train with a larger data.image_size, for example "
        f"{in_pixels(larger)}, or on tiles, if the images are larger (docs/predict.md)"
        + ("." if has_p2 else f", or with {finer}, whose cells are 4 px.")
    ]


def _small_objects(main: Analysis) -> list[str]:
    small, large = main.result.metrics["AP_small"], max(main.result.metrics[f"AP_{s}"] for s in ("medium", "large"))
    areas = main.matching.areas[~main.matching.crowds]
    share = float((areas <= 32**2).mean()) if len(areas) else 0.0
    if small < 0 or share < 0.02 or small > large / 2:
        return []
    return [
        f"Small objects (up to 32 x 32 px, {share:.0%} of all) have AP {small:.3f}, others up to {large:.3f}: try a larger "
        f"data.image_size, or a variant with -p2."
    ]


def _other_input(run: RunFolder) -> list[str]:
    trained, evaluated = trained_size(run), evaluated_size(run)
    if not trained or not evaluated or trained == evaluated:
        return []
    return [
        f"Evaluated with an input of {in_pixels(evaluated)}, trained with {in_pixels(trained)}: this can lower AP a lot; "
        f"compare with --data.image_size {data_setting(trained)}. "
        f"predict and export use the size of the training unless you give --image_size {' '.join(map(str, evaluated))}."
    ]


def _branches(main: Analysis, other: Analysis) -> list[str]:
    gap = other.result.metrics["AP"] - main.result.metrics["AP"]
    if gap < 0.01:
        return []
    cost = ", at the cost of NMS" if other.branch == "one2many" else ""
    return [f"The branch {other.branch} is better by {gap:.3f} AP{cost}."]


def _training(run: RunFolder) -> list[str]:
    epochs, values = series(run.epochs, "val/AP")
    if not epochs:
        return []
    best, last = int(np.argmax(values)), len(values) - 1
    sentences = []
    if _best_was_earlier(run):
        sentences += [
            f"These numbers are of epoch {epochs[last]}; epoch {epochs[best]} was better (AP {values[best]:.3f}).",
            *_evaluate_best(run),
        ]
    return [*sentences, *unfinished(run), *still_rising(run, "val/AP", "AP")]


def _evaluate_best(run: RunFolder) -> list[str]:
    checkpoint = run.folder / BEST_CHECKPOINT
    if not checkpoint.is_file():
        return []
    trained = trained_size(run)
    size = ["--data.image_size", data_setting(trained)] if trained and trained != config_size(run.config) else []
    config = str(run.folder / run.config_name)
    command = shlex.join(["python", "evaluate.py", str(checkpoint), "--config", config, *size])
    return [f"For the numbers of {BEST_CHECKPOINT}: {command}, and a report on eval_val."]
