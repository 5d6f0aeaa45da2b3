"""Tables and sentences about the training: its speed, and whether it was long enough."""

import numpy as np

from detector.report.page import Table
from detector.report.run_folder import RunFolder, series
from detector.text import plural


def epoch_time_table(run: RunFolder) -> Table:
    """Return how fast the training was, over its epochs."""

    def logged(column: str) -> list[float]:
        return [float(row[column]) for row in run.log if row.get(column, "-") != "-"]

    quantities = (
        ("training images per second", logged("images/s") or logged("img/s"), 1),
        ("seconds of training per epoch", logged("train_s"), 1),
        ("seconds of validation", logged("val_s"), 1),
        ("seconds of pycocotools", series(run.epochs, "val/eval_seconds")[1], 2),
        ("share of time that steps waited for data", series(run.epochs, "train/data_wait")[1], 2),
    )
    rows = []
    for name, values, digits in quantities:
        if values:
            rows.append([name, *(f"{value:.{digits}f}" for value in (np.median(values), min(values), max(values)))])
    return Table(["over epochs", "median", "lowest", "highest"], rows)


def unfinished(run: RunFolder) -> list[str]:
    """Return a sentence if the run has fewer epochs than planned."""
    goal, reached = (run.config.get("trainer") or {}).get("max_epochs"), max(run.epochs, default=-1) + 1
    if not isinstance(goal, int) or not 0 < reached < goal:
        return []
    return [f"The run has finished {reached} of {goal} planned epochs: it was cut short or goes on."]


def still_rising(run: RunFolder, metric: str, name: str) -> list[str]:
    """Return a sentence if ``metric``, whose ``name`` is shown, still rose at the end of the training."""
    epochs, values = series(run.epochs, metric)
    early = [value for epoch, value in zip(epochs, values) if epoch <= epochs[-1] * 0.8]
    if len(values) < 10 or not early:
        return []
    best, last = int(np.argmax(values)), len(values) - 1
    rises = max(early) < 0.97 * values[best] and best > last * 0.9
    return [f"{name} still rose in the last fifth of the epochs: more epochs may help."] if rises else []


def num_steps(run: RunFolder) -> int:
    """Return the number of optimizer steps so far."""
    return int(max(series(run.epochs, "step")[1], default=-1)) + 1


def so_far(run: RunFolder) -> str:
    """Return how long the run has trained, in brackets; empty if nothing is known."""
    steps, epochs = num_steps(run), plural(len(run.epochs), "epoch")
    return f" (so far {plural(steps, 'optimizer step')} in {epochs})" if steps else ""


def planned(run: RunFolder) -> str:
    """Return the number of epochs that were planned, after "more": " than 100"; empty if it is not known."""
    epochs = (run.config.get("trainer") or {}).get("max_epochs")
    return f" than {epochs}" if isinstance(epochs, int) else ""
