"""Trainings and evaluations of a benchmark, by train.py and evaluate.py: the programs that users run."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.common import print_table
from detector.evaluation import evaluate, load_ground_truth, read_predictions
from detector.network.head import BRANCHES
from detector.runs.folder import EVALUATION_PREFIX, LAST_CHECKPOINT, TRAIN_LOG, predictions_file


def train(arguments: list[str], run: Path, epochs: int) -> None:
    """Train into ``run`` with ``arguments`` of train.py: start the run, or resume it if it has stopped before its end."""
    log, last = run / TRAIN_LOG, run / LAST_CHECKPOINT
    if log.exists() and log.read_text().splitlines()[-1].split()[0] in (f"{epochs}/{epochs}", str(epochs - 1)):
        return  # the log has the last epoch
    start = ["--ckpt_path", str(last)] if last.exists() else ["--run_dir", str(run)]
    subprocess.run([sys.executable, "train.py", *arguments, *start], check=True)


def as_arguments(settings: Mapping[str, object], configs: Sequence[str] = ()) -> list[str]:
    """Return the arguments of train.py for settings and configuration files, e.g. ``{"data.root": "datasets/bccd"}``."""
    return [f"--config={config}" for config in configs] + [f"--{name}={value}" for name, value in settings.items()]


def run_coco_eval(arguments: list[str], checkpoint: Path, root: Path, split: str = "val") -> dict[str, float]:
    """Return ``<branch> AP`` and ``<branch> AP50`` of a checkpoint, from the predictions that evaluate.py writes."""
    folder = checkpoint.parent / f"{EVALUATION_PREFIX}{split}"
    files = {branch: folder / predictions_file(split, second) for branch, second in zip(BRANCHES, ("", BRANCHES[1]))}
    if not all(file.exists() for file in files.values()):
        command = [sys.executable, "evaluate.py", str(checkpoint), *arguments, "--split", split]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    ground_truth = load_ground_truth(annotations_file(root, split))
    numbers = {}
    for branch, file in files.items():
        metrics = evaluate(ground_truth, read_predictions(file, ground_truth)).metrics
        numbers |= {f"{branch} {metric}": metrics[metric] for metric in ("AP", "AP50")}
    return numbers


def annotations_file(root: Path, split: str = "val") -> Path:
    """Return the annotation file of a split of a data set laid out as in ``configs/data/bccd.yaml``."""
    return root / "annotations" / f"instances_{split}.json"


def measure_all(
    measure: Callable[[str, int], Any], names: Iterable[str], seeds: Sequence[int], jobs: int
) -> dict[str, list[Any]]:
    """Return ``measure(name, seed)`` of every name, one entry for each seed; ``jobs`` at a time share the cores."""
    if jobs > 1:
        os.environ["OMP_NUM_THREADS"] = str(max((os.cpu_count() or 1) // jobs, 1))
    pairs = list(product(seeds, names))
    results: dict[str, list[Any]] = {name: [] for _, name in pairs}
    with ThreadPoolExecutor(jobs) as pool:
        for (_, name), numbers in zip(pairs, pool.map(lambda pair: measure(pair[1], pair[0]), pairs), strict=True):
            results[name].append(numbers)
    return results


def by_metric(numbers: list[dict[str, float]]) -> dict[str, list[float]]:
    """Return the values of all seeds by metric."""
    return {metric: [values[metric] for values in numbers] for metric in numbers[0]}


def print_ap(heading: str, results: dict[str, dict[str, list[float]]]) -> None:
    """Print the APs of several seeds and their mean, for both branches."""
    rows = []
    for name, numbers in results.items():
        aps = [numbers[f"{branch} AP"] for branch in BRANCHES]
        rows.append(
            [name, *(f"{', '.join(f'{value:.3f}' for value in values)} (mean {mean(values):.3f})" for values in aps)]
        )
    print_table((heading, "NMS-free", "with NMS"), *rows)
