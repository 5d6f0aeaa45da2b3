"""Tables about the training: its speed."""

import numpy as np

from detector.report.page import Table
from detector.report.run_folder import RunFolder, series


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
