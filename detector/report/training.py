"""Tables about the training: routing and speed."""

import re

import numpy as np

from detector.report.page import Table
from detector.report.run_folder import Epochs, RunFolder, series


def routing_table(epochs: Epochs) -> Table:
    """Return the mean routing weights of each dynamic layer, as last logged; without rows if there is none."""
    layers: dict[str, dict[str, float]] = {}
    for values in epochs.values():
        for name, value in values.items():
            if match := re.fullmatch(r"routing/(.+)/(expert\d+|entropy|variation)", name):
                layers.setdefault(match[1], {})[match[2]] = value
    most = max((sum(key.startswith("expert") for key in values) for values in layers.values()), default=0)
    keys = (*(f"expert{i}" for i in range(most)), "entropy", "variation")
    rows = [[name, *(f"{values[key]:.3f}" if key in values else "" for key in keys)] for name, values in layers.items()]
    return Table(["layer", *(f"expert {i}" for i in range(most)), "entropy", "variation"], rows)


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
