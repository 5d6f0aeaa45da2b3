"""How much routing weights vary between images, as a column of a study: ``after: routing_variation:mean_variation``."""

import csv
from pathlib import Path
from statistics import mean

from detector.runs.folder import metrics_files


def mean_variation(checkpoint: Path, run: Path) -> dict[str, float]:
    """Return the standard deviation of routing weights over images in the last epoch of ``run``, the mean over layers."""
    with metrics_files(run)[-1].open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[-1] if name.startswith("routing/") and name.endswith("/variation")]
    return {"routing varies by": mean(float(next(row[name] for row in reversed(rows) if row[name])) for name in names)}
