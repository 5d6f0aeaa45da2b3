"""The page: what is in it, in which order."""

import re
from collections import Counter
from html import escape

import numpy as np

from detector.evaluation.coco_eval import METRICS
from detector.report.advice import advice, next_commands
from detector.report.breakdown import Bin, by_ratio, by_size
from detector.report.curves import ap_by_limit, class_curve, precision_recall
from detector.report.findings import Findings
from detector.report.images import (
    describe_false_positive,
    describe_miss,
    draw_place,
    read_image,
    worst_false_positives,
    worst_misses,
)
from detector.report.matching import KINDS, MISSES, confusion_matrix
from detector.report.page import image_figure, keys, page, table
from detector.report.run_folder import RunFolder, image_folder
from detector.report.svg import COLORS, Line, bars, line_plot, matrix
from detector.report.training import training_sections
from detector.text import plural

STYLE = """
.top { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); gap: 0 2.5em }
.top h2 { margin-top: .8em } .top ul { padding-left: 1.2em; margin: .4em 0 } .top td, .top th { padding: .05em .3em }
.top table { font-size: 13.5px } .top td:nth-child(2) { color: var(--muted); font-size: 12px }
.top th:nth-child(2), .top td:nth-child(2) { text-align: left }
.top pre span, .top code span { white-space: nowrap }
.top pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .4em 0 }
.cards { display: flex; flex-wrap: wrap; gap: .7em; margin: .8em 0 0 } .wide { max-width: none }
.card { background: var(--panel); border-radius: 8px; padding: .35em 1em }
.card b { display: block; font-size: 1.65em; line-height: 1.2 }
"""
MOST_CURVES = 7  # single classes in a plot, the weakest
MANY_CLASSES = 30  # tables of more are folded
RECALL = np.linspace(0, 1, 101)
NUM_IMAGES = 12


def report_page(run: RunFolder, found: list[Findings], images: str | None, speed: str | None, notes: list[str]) -> str:
    """Return the report as HTML. ``found`` has the main branch first; ``images`` replaces the recorded image folder.

    ``speed`` is a section about the network, and ``notes`` are what could not be shown, and why.
    """
    head = heading(run)
    parts = [_top(run, found, head, notes)]
    if found:
        main = found[0]
        parts += [
            _classes(found),
            _curves(main),
            _confusions(main),
            _images(run, main, images),
            _breakdowns(main),
            _limits(found),
        ]
    parts += [training_sections(run), speed or "", _about(run)]
    return page(f"{head}: {run.folder.resolve().name}", "".join(parts), STYLE)


def heading(run: RunFolder) -> str:
    """Return what the page is about: a run, or an evaluation, of what, and on which split."""
    name = (run.judged_with.get("model") or {}).get("variant") or "run"
    if not run.is_evaluation:
        return f"{name}: report of a run"
    return f"{name}: evaluation of {run.evaluated.name if run.evaluated else 'a checkpoint'} on the {run.split} split"


def number(value: float) -> str:
    """Return a number of an evaluation; pycocotools has -1 where there is no such object."""
    return "none" if value < 0 else f"{value:.3f}"


def _top(run: RunFolder, found: list[Findings], head: str, notes: list[str]) -> str:
    data = run.judged_with.get("data") or {}
    facts = [f"folder {run.folder.resolve()}", f"data {data['root']}" if "root" in data else "", f"split {run.split}"]
    if run.is_evaluation and run.evaluated is None:
        facts.append("which checkpoint was evaluated is not recorded")
    if run.epochs:
        facts.append(plural(len(run.epochs), "epoch"))
    if "image_size" in data:
        facts.append(f"input {data['image_size']} px")
    if found:
        result = found[0].result
        facts.append(plural(result.num_images, "image"))
        facts[-1] += f", {plural(_num_objects(found[0]), 'object')}, {plural(result.num_detections, 'detection')}"
    line = escape(" · ".join(fact for fact in facts if fact))
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in advice(run, found))
    warned = "".join(f'<p class="warning wide">{escape(note)}</p>' for note in notes)
    todo = f"<div><h2>What to do</h2><ul>{said}</ul>{_next(run, found)}</div>" if said else ""
    top = f'<h1>{escape(head)}</h1><p class="muted wide">{line}</p>{warned}'
    if not found:
        return f'{top}<div class="top">{todo}</div>'
    numbers = f"<div><h2>The twelve numbers</h2>{_twelve(found)}</div>"
    return f'{top}{_cards(found[0])}<div class="top">{numbers}{todo}{_wrong(found[0])}</div>'


def _next(run: RunFolder, found: list[Findings]) -> str:
    if not (commands := next_commands(run, found)):
        return ""
    # A line may end at any hyphen otherwise, also between the two of an option.
    predict, export = (re.sub(r"--\w+", r"<span>\g<0></span>", escape(command)) for command in commands)
    return (
        f"<p>Next, with your own images, videos or folders:</p><pre>{predict}</pre>"
        f'<p class="muted">For ONNX, OpenVINO and others: <code>{export}</code></p>'
    )


def _num_objects(main: Findings) -> int:
    return int((~main.matching.crowds).sum())


def _cards(main: Findings) -> str:
    metrics, best = main.result.metrics, main.best
    values = [(number(metrics["AP"]), "AP"), (number(metrics["AP50"]), "AP50"), (number(metrics["AP75"]), "AP75")]
    if best is not None:
        values += [(f"{best.threshold:.3f}", "score threshold of best F1")]
        values += [(f"{best.precision:.0%}", "precision there"), (f"{best.recall:.0%}", "recall there")]
    if best is None or main.threshold != best.threshold:
        values.append((f"{main.threshold:.3f}", "threshold of this page"))
        if (there := main.curve.at(main.threshold)) is not None:
            values += [(f"{there.precision:.0%}", "precision at it"), (f"{there.recall:.0%}", "recall at it")]
    cells = "".join(f'<div class="card"><b>{value}</b>{escape(what)}</div>' for value, what in values)
    return f'<div class="cards" aria-label="branch {main.branch}">{cells}</div>'


def _twelve(found: list[Findings]) -> str:
    rows = [[key, meaning, *(number(f.result.metrics[key]) for f in found)] for key, meaning in METRICS.items()]
    return table(["", "pycocotools", *(f.branch for f in found)], rows)


def _wrong(main: Findings) -> str:
    kinds, misses = Counter(k for k in main.mistakes.kinds if k), Counter(m for m in main.mistakes.misses if m)
    plots = []
    for counts, order, title, color in (
        (kinds, KINDS, "wrong detection", "var(--c1)"),
        (misses, MISSES, "missed object", "var(--c3)"),
    ):
        total = max(counts.total(), 1)
        names = [kind for kind in order if counts[kind]]
        texts = [f"{counts[kind]} ({counts[kind] / total:.0%})" for kind in names]
        of = int(main.mistakes.shown.sum()) if order is KINDS else _num_objects(main)
        plots.append(bars(f"{plural(counts.total(), title)} of {of}", names, [counts[k] for k in names], texts, color))
    told = f"At the score {main.threshold:.3f} and IoU {main.matching.iou}, branch {main.branch}."
    for title, table_, counts in (("Wrong", KINDS, kinds), ("Missed", MISSES, misses)):
        words = "; ".join(f"{kind}: {meaning}" for kind, meaning in table_.items() if counts[kind])
        told += f" {title}: {words}." if words else ""
    return f'<div><h2>What goes wrong</h2>{"".join(plots)}<p class="muted">{escape(told)}</p></div>'


def _classes(found: list[Findings]) -> str:
    main = found[0]
    objects = np.bincount(main.matching.obj_classes[~main.matching.crowds], minlength=len(main.names))
    halves = precision_recall(main.judged, 0.5).mean(axis=0)
    rows = []
    for k, name in enumerate(main.names):
        best = main.class_best[k]
        point = ["-"] * 4 if best is None else [f"{v:.3f}" for v in (best.threshold, best.precision, best.recall, best.f1)]
        aps = [number(list(f.result.per_class.values())[k]) for f in found]
        rows.append([name, str(objects[k]), *aps, "none" if np.isnan(halves[k]) else f"{halves[k]:.3f}", *point])
    head = ["class", "objects", *(f"AP {f.branch}" for f in found), "AP50", "best threshold", "precision", "recall", "F1"]
    told = (
        f'<p class="muted">AP50, and the score threshold of the best F1 at IoU 0.5 with what it gives, of {main.branch}.</p>'
    )
    return f'<h2 id="classes">Classes</h2>{told}{_folded(table(head, rows), len(rows), "classes")}'


def _folded(content: str, rows: int, what: str) -> str:
    return content if rows <= MANY_CLASSES else f"<details><summary>{rows} {what}</summary>{content}</details>"


def _curves(main: Findings) -> str:
    half = precision_recall(main.judged, 0.5)
    known = [k for k in range(len(main.names)) if not np.isnan(half[0, k])]
    if not known:
        return ""
    weakest = sorted(known, key=lambda k: half[:, k].mean())[:MOST_CURVES]
    means = [(None, "mean, IoU 0.50:0.95", True), (0.75, "mean, IoU 0.75", True), (0.5, "mean, IoU 0.50", False)]
    several = len(known) > 1
    lines = [
        Line(main.names[k], RECALL, half[:, k], COLORS[(n + 1) % 8], 1.2) for n, k in enumerate(sorted(weakest)) if several
    ]
    for n, (iou, name, dashed) in enumerate(means):
        mean = precision_recall(main.judged, iou)[:, known].mean(axis=1)
        lines.append(Line(name, RECALL, mean, ("var(--muted)", "var(--c0)", "var(--ink)")[n], 2.4, dashed))
    plots = [line_plot("Precision over recall", lines, "recall", (0, 1), (0, 1.02), size=(420, 260))]
    curve = main.curve
    overall = [
        Line("precision", curve.thresholds, curve.precision, COLORS[0]),
        Line("recall", curve.thresholds, curve.recall, COLORS[1]),
        Line("F1", curve.thresholds, curve.f1, "var(--ink)", 2.4),
    ]
    mark = None if main.best is None else (main.best.threshold, f"{main.best.threshold:.3f}")
    plots.append(
        line_plot("All classes, by score threshold", _thinned(overall), "score", (0, 1), (0, 1.02), mark, (360, 260))
    )
    if several:
        f1 = []
        for n, k in enumerate(sorted(weakest)):
            own = class_curve(main.matching, k)
            f1.append(Line(main.names[k], own.thresholds, own.f1, COLORS[(n + 1) % 8]))
        plots.append(
            line_plot("F1 of classes, by score threshold", _thinned(f1), "score", (0, 1), (0, 1.02), size=(360, 260))
        )
    few = "" if len(known) <= MOST_CURVES else f" Single curves are the {MOST_CURVES} classes with the lowest AP50."
    told = f"Precision over recall is pycocotools' own, 100 detections a class and image; branch {main.branch}.{few}"
    return f'<h2 id="curves">Precision, recall and thresholds</h2><p class="muted">{escape(told)}</p>{"".join(plots)}'


def _thinned(lines: list[Line], most: int = 400) -> list[Line]:
    """Return lines with fewer points: a plot has no more pixels, and a file with a million scores would be large."""
    out = []
    for line in lines:
        chosen = (
            np.unique(np.linspace(0, len(line.x) - 1, min(most, len(line.x))).round().astype(int)) if len(line.x) else []
        )
        out.append(Line(line.name, line.x[chosen], line.y[chosen], line.color, line.width, line.dashed))
    return out


def _confusions(main: Findings) -> str:
    counts = confusion_matrix(main.matching, main.mistakes)
    names = [*main.names, "nothing"]
    told = (
        f"Detections with scores from {main.threshold:.3f} on, branch {main.branch}. Pairs of one class are pycocotools' "
        f"own: from the highest score down, a detection takes the free object of its class that it overlaps most, if with "
        f"IoU {main.matching.iou} at least. What is left over is then paired across classes in the same way, and what is "
        f"still left is in the row (detections) or column (objects) called nothing. Crowds are left out."
    )
    pairs = [(counts[i, j], i, j) for i, j in zip(*np.nonzero(counts)) if i != j]
    rows = [[names[i], names[j], str(n), f"{n / counts[i].sum():.0%}"] for n, i, j in sorted(pairs, reverse=True)[:10]]
    largest = table(["object", "taken for", "number", "of the row"], rows) if rows else "<p>Nothing is confused.</p>"
    plot = matrix("Objects (rows) and what they were taken for (columns)", counts, names, "object", "detected as")
    return f'<h2 id="confusions">Confusion matrix</h2><p class="muted">{told}</p>{plot}<h3>Most frequent</h3>{largest}'


def _images(run: RunFolder, main: Findings, images: str | None) -> str:
    info = main.coco.dataset.get("info", {})
    folder = image_folder(run, info | ({"pictures": images} if images else {}))
    matching, found, names = main.matching, main.mistakes, main.names
    wrong, missed = worst_false_positives(matching, found, NUM_IMAGES), worst_misses(matching, found, NUM_IMAGES)
    parts = ['<h2 id="pictures">The worst mistakes</h2>']
    colors = {
        "what this is about": "rgb(235,60,50)",
        "objects": "rgb(60,200,90)",
        "other detections shown": "rgb(70,150,245)",
    }
    parts.append(f"<p>{keys(colors)}</p>")
    lost = 0
    for title, rows, boxes, owners, describe in (
        (
            "Wrong detections: the kinds in turn, highest scores first",
            wrong,
            matching.det_boxes,
            matching.det_images,
            describe_false_positive,
        ),
        (
            "Missed objects: the kinds in turn, largest of their class first",
            missed,
            matching.obj_boxes,
            matching.obj_images,
            describe_miss,
        ),
    ):
        parts.append(f"<h3>{title}</h3>" + ("" if rows else "<p>None.</p>"))
        for row in rows:
            entry = main.coco.imgs[int(owners[row])]
            caption = f"{describe(matching, found, row, names)}. {entry.get('file_name', 'image ' + str(entry['id']))}"
            pixels = None if folder is None else read_image(folder, entry, bool(info.get("upright")))
            if pixels is None:
                lost += 1
                parts.append(f"<p>{escape(caption)}</p>")
            else:
                drawn = draw_place(pixels, matching, found, boxes[row], int(owners[row]))
                parts.append(image_figure(drawn, caption))
    if lost:
        where = "no folder of images is known" if folder is None else f"not there, broken, or of another size, in {folder}"
        said = f"{plural(lost, 'image')} could not be shown: {where}. Give the folder as --images."
        parts.insert(1, f'<p class="warning">{escape(said)}</p>')
    return "".join(parts)


def _breakdowns(main: Findings) -> str:
    parts = ['<h2 id="sizes">Size and shape</h2>']
    told = f"At the score {main.threshold:.3f}, branch {main.branch}. Sizes are in pixels of the original images."
    parts.append(f'<p class="muted">{told} AP by COCO\'s three sizes is among the twelve numbers.</p>')
    for title, bins in (("side of objects (square root of the area)", by_size), ("width : height", by_ratio)):
        rows = bins(main.matching, main.mistakes)
        parts.append(table([title, "objects", "found", "shown", "right"], [_bin_row(b) for b in rows]))
    return "".join(parts)


def _bin_row(b: Bin) -> list[str]:
    found = f"{b.found / b.objects:.0%}" if b.objects else "-"
    right = f"{b.right / b.shown:.0%}" if b.shown else "-"
    return [b.name, str(b.objects), found, str(b.shown), right]


def _limits(found: list[Findings]) -> str:
    by_branch = [ap_by_limit(f.judged) for f in found]
    rows = [[str(limit), *(number(v) for limits in by_branch for v in limits[limit])] for limit in by_branch[0]]
    head = ["limit", *(f"{what} {f.branch}" for f in found for what in ("AP", "AR"))]
    most = max(int(np.unique(f.matching.det_images, return_counts=True)[1].max(initial=0)) for f in found)
    told = (
        f"For dense images: pycocotools' default counts the 100 best detections of an image and class. The predictions "
        f"have up to {most} an image, all classes together (evaluation.max_detections of the run bounds it)."
    )
    return f'<h2 id="limits">AP with more detections</h2><p class="muted">{told}</p>{table(head, rows)}'


def _about(run: RunFolder) -> str:
    rows = [[name, str(value)] for name, value in run.versions.items()]
    versions = table(["", "when the run was made"], rows) if rows else "<p>The run recorded none.</p>"
    config = f"<pre>{escape(run.config_text)}</pre>" if run.config_text else "<p>The folder has no config.yaml.</p>"
    folded = f"<details><summary>{escape(run.config_name)}</summary>{config}</details>"
    return f'<h2 id="config">Versions and configuration</h2>{versions}{folded}'
