"""``python -m detector report RUN``."""

import argparse
from pathlib import Path

from detector.report.content import report_page
from detector.report.findings import Findings, find
from detector.report.run_folder import RunFolder, read_run
from detector.report.speed import measure
from detector.report.training import network_section
from detector.runs.folder import REPORT


def add_report_command(commands: argparse._SubParsersAction) -> None:
    """Add ``report``."""
    parser = commands.add_parser(
        "report",
        help="write one HTML page about a run",
        description="Write one HTML page about a run: what it is worth, what goes wrong, and how it was trained.",
    )
    parser.add_argument(
        "folder", metavar="RUN", type=Path, help="folder of a run (runs/dyn_n), or of an evaluation (runs/dyn_n/eval_val)"
    )
    parser.add_argument("--out", type=Path, help="file to write; default RUN/report.html, which is replaced")
    parser.add_argument("--ground-truth", type=Path, help="COCO annotations of the evaluated images; default: as recorded")
    parser.add_argument("--images", type=Path, help="folder of the evaluated images, if it has moved")
    parser.add_argument(
        "--threshold", type=float, help="score from which detections are shown; default: that of the best F1"
    )
    parser.add_argument("--no-speed", action="store_true", help="do not run the network to measure it")
    parser.set_defaults(run=write_report)


def write_report(options: argparse.Namespace) -> int:
    """Write the page and say where it is. Returns 0."""
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise ValueError(f"--threshold is {options.threshold}; a score is in 0..1")
    if options.images is not None and not options.images.is_dir():
        raise ValueError(f"--images {options.images}: no such folder; give the one with the evaluated images")
    out = options.out or options.folder / REPORT
    run = read_run(options.folder, options.ground_truth)
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; give the name of a file in it")
    if not out.parent.is_dir():
        raise ValueError(f"{out.parent}: no such folder; make it first")
    found, notes = judge_run(run, options.threshold)
    speed = None
    if run.checkpoint is None:
        notes.append("The run has no checkpoint, so that the network is not measured.")
    elif not options.no_speed:
        try:
            speed = network_section(measure(run.checkpoint, found[0].branch if found else "one2one"), run.checkpoint.name)
        except ValueError as error:  # half a checkpoint, of a run that was killed, say
            notes.append(f"The network is not measured: {error}.")
    images = None if options.images is None else str(options.images)
    out.write_text(report_page(run, found, images, speed, notes), encoding="utf-8")
    for note in notes:
        print(note)
    print(f"open {out}")
    return 0


def judge_run(run: RunFolder, threshold: float | None = None) -> tuple[list[Findings], list[str]]:
    """Return what was found of each branch that there are predictions of, and what a reader must know is missing."""
    if not run.predictions:
        return [], ["The run has no predictions: no validation was finished, or evaluation.predictions is false."]
    if run.ground_truth is None or not run.ground_truth.is_file():
        named = "none is recorded" if run.ground_truth is None else f"{run.ground_truth} is not there (any more)"
        return [], [f"The predictions cannot be judged without ground truth: {named}; give it as --ground-truth."]
    found = [find(branch, path, run.ground_truth, threshold) for branch, path in run.predictions.items()]
    notes = []
    if len(found) == 1:
        notes.append(
            f"Only the branch {found[0].branch} was evaluated; with evaluation.branch: both, train.py --eval does both."
        )
    return found, notes
