"""The content of the page: texts, tables and plots for ``templates/report.html``."""

from collections import Counter
from typing import Any

import numpy as np

from detector.evaluation import METRICS
from detector.imaging.plot_files import Plot
from detector.report.advice import advice, next_commands
from detector.report.analysis import Analysis
from detector.report.breakdown import Bin, by_ratio, by_size
from detector.report.curves import ap_by_limit, class_curve, precision_recall
from detector.report.errors import FALSE_POSITIVES, MISSES, confusion_matrix
from detector.report.figures import MOST_CURVES, confusion_plot, curve_plots, error_plots, training_plots
from detector.report.images import ERROR, OBJECT, OTHER, false_positive_examples, miss_examples
from detector.report.page import Table, render
from detector.report.routing import ap_table, layer_table, routing_table
from detector.report.run_folder import RunFolder, image_folder, series
from detector.report.speed import Speed
from detector.report.suspects import KINDS, find_suspects, suspect_examples
from detector.report.training import epoch_time_table
from detector.runs.folder import SUSPECT_LABELS
from detector.text import plural


def make_report(
    run: RunFolder, analyses: list[Analysis], images: str | None, speed: Speed | None, notes: list[str]
) -> tuple[str, list[Plot]]:
    """Return the page, and the plots in it.

    ``analyses`` has the main branch first, ``images`` replaces the recorded folder, ``notes`` name what is missing and why.
    """
    training = training_plots(run.epochs)
    content = {
        "heading": heading(run),
        "facts": _facts(run, analyses),
        "notes": notes,
        "advice": advice(run, analyses),
        "commands": next_commands(run, analyses),
        "main": None,
        "training": training,
        "routing": routing_table(run.epochs),
        "diagnosis": [part(run.diagnosis) for part in (ap_table, layer_table)] if run.diagnosis else [],
        "epoch_times": epoch_time_table(run),
        "speed": speed,
        "versions": Table(["", "when the run was made"], [[name, str(value)] for name, value in run.versions.items()]),
        "run": run,
    }
    plots = training
    if analyses:
        results = _results(run, analyses, images)
        content |= results
        plots = [*results["error_plots"], *results["curve_plots"], results["confusion_plot"], *training]
    return render("report.html", **content), plots


def heading(run: RunFolder) -> str:
    """Return the title: a run or an evaluation, its variant and split."""
    name = (run.evaluation_config.get("model") or {}).get("variant") or "run"
    if not run.is_evaluation:
        return f"{name}: report of a run"
    return f"{name}: evaluation of {run.evaluated.name if run.evaluated else 'a checkpoint'} on the {run.split} split"


def _facts(run: RunFolder, analyses: list[Analysis]) -> list[str]:
    data = run.evaluation_config.get("data") or {}
    facts = [f"folder {run.folder}", f"data {data['root']}" if "root" in data else "", f"split {run.split}"]
    if run.is_evaluation and run.evaluated is None:
        facts.append("which checkpoint was evaluated is not recorded")
    facts += [plural(len(run.epochs), "epoch") if run.epochs else ""]
    facts += [f"input {data['image_size']} px" if "image_size" in data else ""]
    validated, _ = series(run.epochs, "val/AP")
    if analyses and validated and not run.is_evaluation:
        facts.append(f"predictions of epoch {validated[-1] + 1}, counted from 1, the last that was validated")
    if analyses:
        result, num_objects = analyses[0].result, analyses[0].matching.num_objects
        images, objects = plural(result.num_images, "image"), plural(num_objects, "object")
        facts.append(f"{images}, {objects}, {plural(result.num_detections, 'detection')}")
    return [fact for fact in facts if fact]


def _results(run: RunFolder, analyses: list[Analysis], images: str | None) -> dict[str, Any]:
    """Return the content of the sections about the predictions."""
    main = analyses[0]
    folder = image_folder(run, main.coco.dataset.get("info", {}), images)
    suspects = find_suspects(main.matching, main.errors)
    return {
        "main": main,
        "cards": _cards(main),
        "metrics": _metrics_table(analyses),
        "error_plots": error_plots(main),
        "error_types": {"Wrong": (main.errors.false_positives, FALSE_POSITIVES), "Missed": (main.errors.misses, MISSES)},
        "classes": _class_table(analyses),
        "curve_plots": curve_plots(main),
        "num_single_curves": MOST_CURVES if sum(ap >= 0 for ap in main.result.per_class.values()) > MOST_CURVES else 0,
        "confusion_plot": confusion_plot(main),
        "confusions": _confusion_table(confusion_matrix(main.matching, main.errors), [*main.class_names, "nothing"]),
        "colors": {"the error": f"rgb{ERROR}", "objects": f"rgb{OBJECT}", _others(main): f"rgb{OTHER}"},
        "wrong": false_positive_examples(main, folder),
        "missed": miss_examples(main, folder),
        "suspects": suspect_examples(main, suspects, folder),
        "num_suspects": {kind: sum(one.kind == kind for one in suspects) for kind in KINDS},
        "suspects_file": SUSPECT_LABELS,
        "image_folder": folder,
        "sizes": _bin_table("side of objects (square root of the area)", by_size(main.matching, main.errors)),
        "ratios": _bin_table("width : height", by_ratio(main.matching, main.errors)),
        "limits": _limit_table(analyses),
        "most_detections": max(max(Counter(a.matching.det_images.tolist()).values(), default=0) for a in analyses),
    }


def _others(main: Analysis) -> str:
    return f"other detections with scores from {main.errors.threshold} on"


def _number(value: float) -> str:
    """Return a metric with three digits; pycocotools has -1 where there is no such object."""
    return "none" if value < 0 or np.isnan(value) else f"{value:.3f}"


def _cards(main: Analysis) -> list[tuple[str, str]]:
    """Return the most important numbers with their names."""
    cards = [(_number(main.result.metrics[name]), name) for name in ("AP", "AP50", "AP75")]
    if main.best is not None:
        cards += [(str(main.best.threshold), "score threshold of best F1")]
        cards += [(f"{main.best.precision:.0%}", "precision at best F1"), (f"{main.best.recall:.0%}", "recall at best F1")]
    if main.best is None or main.errors.threshold != main.best.threshold:
        point = main.curve.at(main.errors.threshold)
        cards += [(str(main.errors.threshold), "threshold of this page")]
        cards += [
            (f"{point.precision:.0%}", "precision at this threshold"),
            (f"{point.recall:.0%}", "recall at this threshold"),
        ]
    return cards


def _metrics_table(analyses: list[Analysis]) -> Table:
    results = {a.branch: a.result for a in analyses}
    if (floor := analyses[0].floor) is not None:
        results["constant box"] = floor
    rows = [[name, meaning, *(_number(r.metrics[name]) for r in results.values())] for name, meaning in METRICS.items()]
    return Table(["", "", *results], rows)


def _class_table(analyses: list[Analysis]) -> Table:
    main = analyses[0]
    objects = np.bincount(main.matching.obj_classes[~main.matching.crowds], minlength=len(main.class_names))
    ap50 = precision_recall(main.coco_eval, 0.5).mean(axis=0)
    rows = []
    for k, name in enumerate(main.class_names):
        best = class_curve(main.matching, k).best()
        ratios = [] if best is None else [f"{v:.3f}" for v in (best.precision, best.recall, best.f1)]
        point = ["-"] * 4 if best is None else [str(best.threshold), *ratios]
        aps = [_number(list(a.result.per_class.values())[k]) for a in analyses]
        rows.append([name, str(objects[k]), *aps, _number(ap50[k]), *point])
    branches = [f"AP {a.branch}" for a in analyses]
    return Table(["class", "objects", *branches, "AP50", "best threshold", "precision", "recall", "F1"], rows)


def _confusion_table(counts: np.ndarray, names: list[str]) -> Table:
    pairs = sorted(((counts[i, j], i, j) for i, j in zip(*np.nonzero(counts)) if i != j), reverse=True)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares[-1] = np.nan  # the last row has detections on nothing, and no objects
    rows = [[names[i], names[j], str(n), "-" if np.isnan(shares[i, j]) else f"{shares[i, j]:.0%}"] for n, i, j in pairs[:10]]
    return Table(["object", "detected as", "number", "share of the objects"], rows)


def _bin_table(title: str, bins: list[Bin]) -> Table:
    rows = []
    for b in bins:
        detected = f"{b.num_detected / b.num_objects:.0%}" if b.num_objects else "-"
        correct = f"{b.num_correct / b.num_detections:.0%}" if b.num_detections else "-"
        rows.append([b.name, str(b.num_objects), detected, str(b.num_detections), correct])
    return Table([title, "objects", "detected", "detections", "right"], rows)


def _limit_table(analyses: list[Analysis]) -> Table:
    by_branch = [ap_by_limit(a.coco_eval) for a in analyses]
    rows = [[str(limit), *(_number(v) for limits in by_branch for v in limits[limit])] for limit in by_branch[0]]
    names = [f"{name} {a.branch}" for a in analyses for name in ("AP", "AR")]
    return Table(["detections per image and class", *names], rows)
