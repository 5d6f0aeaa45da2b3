"""Trainings and evaluations of a benchmark, by train.py and evaluate.py: the programs that users run."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

from detector.evaluation import evaluate, load_ground_truth, read_predictions
from detector.network.head import BRANCHES
from detector.runs.folder import EVALUATION_PREFIX, LAST_CHECKPOINT, TRAIN_LOG, predictions_file

RESULTS = Path(__file__).parent / "results"


def train(arguments: list[str], run: Path, epochs: int) -> None:
    """Train into ``run`` with ``arguments`` of train.py: start the run, or resume it if it has stopped before its end."""
    if finished(run, epochs):
        return
    last = run / LAST_CHECKPOINT
    start = ["--ckpt_path", str(last)] if last.exists() else ["--run_dir", str(run)]
    subprocess.run([sys.executable, "train.py", *arguments, *start], check=True)


def finished(run: Path, epochs: int) -> bool:
    """Return True if the log of ``run`` has its last epoch."""
    log = run / TRAIN_LOG
    return log.exists() and log.read_text().splitlines()[-1].split()[:1] == [str(epochs - 1)]


def run_coco_eval(arguments: list[str], checkpoint: Path, truth: Path, split: str = "val") -> dict[str, float]:
    """Return ``<branch> AP`` and ``<branch> AP50`` of a checkpoint, from the predictions that evaluate.py writes."""
    folder = checkpoint.parent / f"{EVALUATION_PREFIX}{split}"
    files = {branch: folder / predictions_file(split, second) for branch, second in zip(BRANCHES, ("", BRANCHES[1]))}
    if not all(file.exists() for file in files.values()):
        command = [sys.executable, "evaluate.py", str(checkpoint), *arguments, "--split", split]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    ground_truth = load_ground_truth(truth)
    numbers = {}
    for branch, file in files.items():
        metrics = evaluate(ground_truth, read_predictions(file)).metrics
        numbers |= {f"{branch} {metric}": metrics[metric] for metric in ("AP", "AP50")}
    return numbers


def ap_cell(values: list[float]) -> str:
    """Return a table cell with the APs of several seeds and their mean."""
    return f"{', '.join(f'{value:.3f}' for value in values) + f' (mean {mean(values):.3f})':<34}"


def write(name: str, content: object) -> None:
    """Write ``benchmarks/results/<name>.json``."""
    RESULTS.mkdir(exist_ok=True)
    print(f"written to {RESULTS / name}.json")
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
