"""The plots of the page."""

import itertools

import numpy as np

from detector.imaging.plot_files import Plot
from detector.imaging.plot_style import COLORS, INK, MUTED, legible
from detector.imaging.plots import Line, bar_plot, line_plot, matrix
from detector.network.head import BRANCHES
from detector.report.analysis import Analysis
from detector.report.curves import class_curve, precision_recall
from detector.report.errors import FALSE_POSITIVES, MISSES, confusion_matrix
from detector.report.run_folder import Epochs, series
from detector.text import plural

RECALL = np.linspace(0, 1, 101)
MOST_CURVES = 7  # of single classes in a plot: those with the lowest AP50


def error_plots(main: Analysis) -> list[Plot]:
    """Return bars of the types of wrong detections, and of missed objects."""
    errors, num_objects = main.errors, main.matching.num_objects
    return [
        _error_bars("wrong detection", int(errors.shown.sum()), errors.false_positives, FALSE_POSITIVES, COLORS[1]),
        _error_bars("missed object", num_objects, errors.misses, MISSES, COLORS[3]),
    ]


def _error_bars(noun: str, total: int, types: np.ndarray, meanings: dict[str, str], color: str) -> Plot:
    counts = {type_: number for type_ in meanings if (number := int((types == type_).sum()))}
    num_errors = sum(counts.values())
    title, texts = f"{plural(num_errors, noun)} of {total}", [f"{n} ({n / num_errors:.0%})" for n in counts.values()]
    return bar_plot(f"{noun.replace(' ', '_')}s", title, list(counts), {"": list(counts.values())}, {"": texts}, [color])


def curve_plots(main: Analysis) -> list[Plot]:
    """Return precision over recall, and precision, recall and F1 over the score threshold; none without objects."""
    ap50 = precision_recall(main.coco_eval, 0.5).mean(axis=0)
    known = [k for k, value in enumerate(ap50) if not np.isnan(value)]
    if not known:
        return []
    weakest = sorted(sorted(known, key=ap50.__getitem__)[:MOST_CURVES]) if len(known) > 1 else []
    plots = [_precision_recall(main, known, weakest), _thresholds(main)]
    return [*plots, _f1_of_classes(main, weakest)] if weakest else plots


def _precision_recall(main: Analysis, known: list[int], weakest: list[int]) -> Plot:
    at_half, names = precision_recall(main.coco_eval, 0.5), legible(main.class_names)
    lines = [Line(names[k], RECALL, at_half[:, k], _class_color(n), 1.2) for n, k in enumerate(weakest)]
    for iou, label, color in ((None, "0.50:0.95", MUTED), (0.75, "0.75", COLORS[0]), (0.5, "0.50", INK)):
        mean = precision_recall(main.coco_eval, iou)[:, known].mean(axis=1)
        lines.append(Line(f"mean, IoU {label}", RECALL, mean, color, 2.4, dashed=color != INK))
    limits = ((0, 1), (0, 1.02))
    return line_plot("precision_recall", "Precision over recall", lines, "recall", "precision", *limits, size=(350, 250))


def _class_color(number: int) -> str:
    return COLORS[(number + 1) % len(COLORS)]


def _thresholds(main: Analysis) -> Plot:
    curve, title = main.curve, "All classes, by score threshold"
    lines = [
        Line("precision", curve.thresholds, curve.precision, COLORS[0]),
        Line("recall", curve.thresholds, curve.recall, COLORS[1]),
        Line("F1", curve.thresholds, curve.f1, INK, 2.4),
    ]
    mark = None if main.best is None else (main.best.threshold, str(main.best.threshold))
    return line_plot("score_thresholds", title, lines, "score", "", _score_limits(main), (0, 1.02), mark, (300, 250))


def _score_limits(main: Analysis) -> tuple[float, float]:
    """Return the ends of an axis of scores: 0 and 1, or closer to scores that are all small, as of a short training."""
    lowest, highest = main.curve.thresholds[[-1, 0]].tolist() if len(main.curve.thresholds) else (0, 1)
    if not 0 < highest < 0.5:
        return 0, 1
    return (lowest if highest / 2 < lowest < highest else 0), highest + (highest - lowest) / 20


def _f1_of_classes(main: Analysis, classes: list[int]) -> Plot:
    names, title = legible(main.class_names), "F1 of classes, by score threshold"
    curves = {k: class_curve(main.matching, k) for k in classes}
    lines = [Line(names[k], curve.thresholds, curve.f1, _class_color(n)) for n, (k, curve) in enumerate(curves.items())]
    return line_plot("f1_of_classes", title, lines, "score", "", _score_limits(main), (0, 1.02), size=(300, 250))


def confusion_plot(main: Analysis) -> Plot:
    """Return the confusion matrix."""
    counts, names = confusion_matrix(main.matching, main.errors), [*legible(main.class_names), "nothing"]
    title = "Number and color: how many objects of the row's class were detected as the column's"
    return matrix("confusion_matrix", title, counts, names, "object", f"detected as, scores from {main.errors.threshold} on")


def training_plots(epochs: Epochs, top5_name: str = "top-5") -> list[Plot]:
    """Return AP or accuracy, learning rate and losses over the epochs, as far as they were logged."""
    ap = [
        *_metric(epochs, "val/AP", "AP", INK),
        *_metric(epochs, "val/AP50", "AP50", COLORS[0]),
        *_metric(epochs, "val/AP75", "AP75", COLORS[1]),
        *_metric(epochs, "val/one2many/AP", "AP one2many", COLORS[3], dashed=True),
    ]
    accuracy = [*_metric(epochs, "val/top1", "top-1", INK), *_metric(epochs, "val/top5", top5_name, COLORS[0])]
    learning_rate, total = _metric(epochs, "train/lr", "", INK), _losses(epochs, "total")
    contents = [
        ("ap", "AP on the validation set", "AP", ap),
        ("accuracy", "accuracy on the validation images", "share of the images", accuracy),
        ("loss", "loss (training images are augmented, others are not)", "loss", _losses(epochs, "loss")),
        ("learning_rate", "learning rate of the first group", "learning rate", learning_rate),
        ("total_loss", "total loss (the weights of the branches change with the epoch)", "loss", total),
    ]
    for branch, term in itertools.product(BRANCHES, ("box", "cls", "l1")):
        contents.append((f"{branch}_{term}_loss", f"{branch} {term} loss", "loss", _losses(epochs, f"{branch}/{term}")))
    limits = (min(epochs), max(max(epochs), min(epochs) + 1)) if epochs else None
    size = (290, 160)
    from_zero = dict.fromkeys(
        ("AP", "share of the images"), (0.0, None)
    )  # or a change of AP by 0.01 looks as large as one by 0.5
    return [
        line_plot(name, title, lines, "epoch", y_label, limits, from_zero.get(y_label), size=size)
        for name, title, y_label, lines in contents
        if lines
    ]


def _metric(epochs: Epochs, metric: str, name: str, color: str, dashed: bool = False) -> list[Line]:
    x, y = series(epochs, metric)
    return [Line(name, np.array(x), np.array(y), color, dashed=dashed)] if x else []


def _losses(epochs: Epochs, name: str) -> list[Line]:
    training = _metric(epochs, f"train/{name}", "training", COLORS[0])
    return training + _metric(epochs, f"val/{name}", "validation", COLORS[1], dashed=True)
