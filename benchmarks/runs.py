"""Trainings and evaluations of a benchmark, by train.py, pretrain.py and evaluate.py: the programs that users run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.common import print_table
from detector.evaluation import evaluate, load_ground_truth, read_predictions
from detector.files import read_json
from detector.network.head import BRANCHES
from detector.runs.folder import EVALUATION_PREFIX, LAST_CHECKPOINT, TRAIN_LOG, ground_truth_file, predictions_file

ROOT = Path(__file__).parents[1]  # of the project: train.py and evaluate.py are there


def train(arguments: list[str], run: Path, epochs: int, log: Path | None = None, program: str = "train.py") -> None:
    """Train into ``run`` with ``arguments`` of train.py: start the run, or resume it if it has stopped before its end.

    The output goes to the end of the file ``log``, or is printed. ``program`` can be pretrain.py. Raises RuntimeError with
    the last lines of the output if it fails.
    """
    if log_is_finished(run, epochs):
        return
    last = run / LAST_CHECKPOINT
    if not last.exists():
        shutil.rmtree(run, ignore_errors=True)  # stopped before its first epoch ended
    start = ["--ckpt_path", str(last)] if last.exists() else ["--run_dir", str(run)]
    command = [sys.executable, str(ROOT / program), *arguments, *start]
    if log is None:
        subprocess.run(command, check=True)
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        finished = subprocess.run(command, stdout=file, stderr=file)
    if finished.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")


def log_is_finished(run: Path, epochs: int) -> bool:
    """Return True if the log of a run has the last of its ``epochs``."""
    lines = log.read_text().splitlines() if (log := run / TRAIN_LOG).exists() else []
    return bool(lines) and lines[-1].split()[:1] in ([f"{epochs}/{epochs}"], [str(epochs - 1)])


def as_arguments(settings: Mapping[str, object], configs: Sequence[str] = ()) -> list[str]:
    """Return the arguments of train.py for settings and configuration files, e.g. ``{"data.root": "datasets/bccd"}``."""
    return [f"--config={config}" for config in configs] + [f"--{name}={value}" for name, value in settings.items()]


def published_arguments(settings: Mapping[str, object], configs: Sequence[str] = ()) -> list[str]:
    """Return the same, but with the published value of what they leave open, not one chosen by the number of images."""
    return as_arguments(settings, ("configs/published.yaml", *configs))


def run_coco_eval(arguments: list[str], checkpoint: Path, root: Path, split: str = "val") -> dict[str, float]:
    """Return ``<branch> AP`` and ``<branch> AP50`` of a checkpoint, from the predictions that evaluate.py writes."""
    folder = checkpoint.parent / f"{EVALUATION_PREFIX}{split}"
    if not all(file.exists() for file in prediction_files(folder, split).values()):
        command = [sys.executable, str(ROOT / "evaluate.py"), str(checkpoint), *arguments, "--split", split]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return written_ap(folder, split, annotations_file(root, split))


def written_ap(folder: Path, split: str = "val", annotations: Path | None = None) -> dict[str, float]:
    """Return ``<branch> AP`` and ``<branch> AP50`` from the predictions in a run or evaluation ``folder``.

    ``annotations`` is the ground truth, by default the file of it in ``folder``.
    """
    ground_truth, numbers = load_ground_truth(annotations or folder / ground_truth_file(split)), {}
    for branch, file in prediction_files(folder, split).items():
        metrics = evaluate(ground_truth, read_predictions(file, ground_truth)).metrics
        numbers |= {f"{branch} {metric}": metrics[metric] for metric in ("AP", "AP50")}
    return numbers


def ap_by_source(folder: Path, root: Path, split: str = "val") -> dict[str, dict[str, dict[str, float]]]:
    """Return the AP and AP50 of both branches, from the predictions in a run or evaluation ``folder``.

    The keys are the branch; then ``all`` for all images, each ``source`` that the annotation file notes (see
    ``dynamic_data``), and ``macro`` for the mean over the sources; then the metric. The AP of a source is the mean over the
    classes that its images have.
    """
    path = annotations_file(root, split)
    sources = {image["id"]: image["source"] for image in read_json(path, dict, "annotations of dynamic_data")["images"]}
    ground_truth = load_ground_truth(path)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for branch, file in prediction_files(folder, split).items():
        rows = read_predictions(file, ground_truth)
        parts = {"all": list(sources)} | {name: [i for i in sources if sources[i] == name] for name in {*sources.values()}}
        aps = {}
        for name in sorted(parts):
            metrics = evaluate(ground_truth, rows[np.isin(rows[:, 0], parts[name])], parts[name]).metrics
            aps[name] = {metric: metrics[metric] for metric in ("AP", "AP50")}
        macro = {metric: mean(aps[name][metric] for name in aps if name != "all") for metric in ("AP", "AP50")}
        results[branch] = aps | {"macro": macro}
    return results


def prediction_files(folder: Path, split: str = "val") -> dict[str, Path]:
    """Return the predictions of each branch in the folder of a run or of an evaluation that has evaluated both."""
    return {branch: folder / predictions_file(split, second) for branch, second in zip(BRANCHES, ("", BRANCHES[1]))}


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
