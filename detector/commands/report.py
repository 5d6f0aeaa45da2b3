"""``python -m detector report RUN``: write one HTML page about a run."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

from detector.commands.options import add_option, parse_score_threshold
from detector.evaluation import Backend, check_backend
from detector.evaluation.classification import totals
from detector.files import check_output
from detector.imaging.plot_files import Plot, save_plot
from detector.network.head import BranchName
from detector.report.advice import learning_warnings
from detector.report.analysis import Analysis, analyze
from detector.report.classifier import make_classifier_report
from detector.report.classifier_advice import learning_warning
from detector.report.content import make_report
from detector.report.leaks import leak_notes
from detector.report.run_folder import RunFolder, read_run
from detector.report.speed import Speed, measure, measure_classifier
from detector.report.suspects import find_suspects, suspect_entries
from detector.runs.folder import FIGURES, REPORT, SUSPECT_LABELS
from detector.text import plural


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add description, usage and options of the command ``report``."""
    parser.description = "Write one HTML page about a run: its results, its errors, and how it was trained."
    parser.usage = "%(prog)s RUN [--OPTION VALUE ...]"
    parser.add_argument(
        "folder", metavar="RUN", type=Path, help="folder of a run (runs/dyn_n), or of an evaluation (runs/dyn_n/eval_val)"
    )
    parser.add_argument("--out", type=Path, help="file to write; default RUN/report.html, which is replaced")
    add_option(parser, "--ground_truth", "--ground-truth", type=Path, help="COCO annotations; default: as recorded")
    parser.add_argument("--images", type=Path, help="folder of the evaluated images, if it has moved")
    threshold_help = "show detections from this score; default: best, the threshold of the best F1"
    add_option(parser, "--score_threshold", "--threshold", type=parse_score_threshold, default="best", help=threshold_help)
    add_option(parser, "--no_speed", "--no-speed", action="store_true", help="do not run the network to measure its speed")
    backend_help = "what computes the COCO numbers: %(default)s, or a faster package, see docs/reliability.md"
    parser.add_argument("--backend", default="pycocotools", help=backend_help)
    parser.set_defaults(run=run_report)


def run_report(options: argparse.Namespace) -> None:
    """Write the page, and its plots as files; print its path, and notes on what is missing."""
    score_threshold = None if options.score_threshold == "best" else options.score_threshold
    if score_threshold is not None and not 0 <= score_threshold <= 1:
        raise ValueError(f"--score_threshold is {score_threshold}; a score is in 0..1")
    if options.images is not None and not options.images.is_dir():
        raise ValueError(f"--images {options.images}: no such folder; give the one with the evaluated images")
    if options.ground_truth is not None and not options.ground_truth.is_file():
        raise ValueError(f"--ground_truth {options.ground_truth}: no such file; give the COCO annotations of the images")
    out = options.out or options.folder / REPORT
    run = read_run(options.folder, options.ground_truth)
    check_output(out, overwrite=True)
    if run.is_pretraining:
        report_pretraining(options, run, out)
        return
    check_backend(options.backend)
    analyses, notes = analyze_branches(run, score_threshold, options.backend)
    notes = [*learning_warnings(run, analyses), *leak_notes(run, analyses), *notes]
    branch = cast(BranchName, analyses[0].branch if analyses else "one2one")
    speed = None if options.no_speed else measured(run, lambda checkpoint: measure(checkpoint, branch), notes)
    images = None if options.images is None else str(options.images)
    page, plots = make_report(run, analyses, images, speed, notes)
    notes += write_page(out, page, plots)
    notes += write_suspects(out, analyses)
    best = [f"{a.branch}: best F1 {a.best.f1:.3f} at the score {a.best.threshold}" for a in analyses if a.best]
    print(*notes, *best, f"open {out}", sep="\n")


def report_pretraining(options: argparse.Namespace, run: RunFolder, out: Path) -> None:
    """Write the page about a run of pretrain.py. Raises ValueError for options about detections."""
    given = {"--ground_truth": options.ground_truth is not None, "--score_threshold": options.score_threshold != "best"}
    given["--backend"] = options.backend != "pycocotools"
    if wrong := [name for name, is_given in given.items() if is_given]:
        raise ValueError(f"{wrong[0]} is about detections, and {options.folder} is a pre-training: leave it out")
    notes = learning_warning(run)
    if not run.classification:
        notes.append("The run has no results: no validation was finished, or evaluation.write is false.")
    speed = None if options.no_speed else measured(run, measure_classifier, notes)
    page, plots = make_classifier_report(run, options.images, speed, notes)
    notes += write_page(out, page, plots)
    best = [f"{name} {value:.3f}" for name, value in totals(run.classification).items()] if run.classification else []
    print(*notes, *best, f"open {out}", sep="\n")


def measured(run: RunFolder, measure_speed: Callable[[Path], Speed], notes: list[str]) -> Speed | None:
    """Return the speed of the run's network, or None and the reason in ``notes``."""
    if run.checkpoint is None:
        notes.append("The run has no checkpoint, so the network is not measured.")
        return None
    try:
        return measure_speed(run.checkpoint)
    except ValueError as error:  # for example an incomplete checkpoint of a run that was killed
        notes.append(f"The network is not measured: {error}.")
        return None


def write_page(out: Path, page: str, plots: list[Plot]) -> list[str]:
    """Write the page, and its plots as files; return a note on other plots in their folder."""
    out.write_text(page, encoding="utf-8", errors="backslashreplace")  # names of files need not be UTF-8
    for plot in plots:
        save_plot(plot, out.parent / FIGURES)
    return _other_plots(out.parent / FIGURES, {plot.name for plot in plots})


def write_suspects(out: Path, analyses: list[Analysis]) -> list[str]:
    """Write the labels that may be wrong beside the page, by the main branch; return a note if there are some."""
    if not analyses:
        return []
    main = analyses[0]
    entries = list(suspect_entries(main, find_suspects(main.matching, main.errors)))
    path = out.parent / SUSPECT_LABELS
    path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    return [f"{plural(len(entries), 'label')} may be wrong or missing: {path}"] if entries else []


def _other_plots(folder: Path, names: set[str]) -> list[str]:
    """Return a note on plots in ``folder`` that this report does not have: those of an earlier one mislead."""
    others = sorted({path.stem for path in folder.glob("*.svg")} - names)
    return [f"{folder} also has files of an earlier report, not of this one: {', '.join(others)}."] if others else []


def analyze_branches(
    run: RunFolder, score_threshold: float | None = None, backend: Backend = "pycocotools"
) -> tuple[list[Analysis], list[str]]:
    """Return the results of each branch with predictions, and notes on what is missing."""
    if not run.predictions:
        reasons = "no validation was finished, the run trains without one, or evaluation.predictions is false"
        return [], [f"The run has no predictions: {reasons}. evaluate.py CKPT --config FILE makes some."]
    if run.ground_truth is None or not run.ground_truth.is_file():
        reason = "none is recorded" if run.ground_truth is None else f"{run.ground_truth} does not exist (any more)"
        return [], [f"The predictions cannot be evaluated without ground truth: {reason}; give it as --ground_truth."]
    truth = run.ground_truth
    analyses = [analyze(branch, path, truth, score_threshold, backend) for branch, path in run.predictions.items()]
    if len(analyses) > 1:
        return analyses, []
    branch = analyses[0].branch
    return analyses, [f"Only the branch {branch} was evaluated; with evaluation.branch: both, evaluate.py does both."]
