"""The folder of a run: the names of all its files, and the choice of a folder for a new run.

A run folder holds, each beside the function or callback that writes it:

    config.yaml, run.json                  train.py: settings and record of the first start; of the second config-2.yaml, ...
    last.ckpt, best.ckpt                   ModelCheckpoint and SaveOnSignal
    train.log                              EpochLog
    metrics.csv, tensorboard/              the loggers; of the second start resumed-2/metrics.csv
    predictions.json, ground_truth.json    CocoEvaluation; of the second branch predictions_one2many.json
    val_predictions.jpg                    PredictionSheet
    routing.png                            RoutingLog
    report.html, figures/                  python -m detector report
    eval_val/                              evaluate.py: evaluation.yaml, and predictions and images as above

In the files of a test split "test" takes the place of "val" or is added: predictions_test.json, test_predictions.jpg.
"""

import os
import re
from pathlib import Path
from typing import Any

from detector.runs.launch import RUN_DIR_VARIABLE

CONFIG, RECORD = "config.yaml", "run.json"  # one for every start of the run, see ``numbered``
LAST_CHECKPOINT, BEST_CHECKPOINT = "last.ckpt", "best.ckpt"
TRAIN_LOG = "train.log"
METRICS = "metrics.csv"
TENSORBOARD = "tensorboard"  # a folder
ROUTING_PLOT = "routing.png"
REPORT = "report.html"
FIGURES = "figures"  # a folder
EVALUATION_PREFIX = "eval_"  # of the folders of evaluations


def numbered(name: str, start: int) -> str:
    """Return the name of a file that every start of a run writes: config.yaml, then config-2.yaml, config-3.yaml, ..."""
    return name if start == 1 else f"{Path(name).stem}-{start}{Path(name).suffix}"


def numbered_files(run: Path, name: str) -> list[Path]:
    """Return the existing files of ``numbered`` in the order of the starts."""
    stem, suffix = Path(name).stem, Path(name).suffix
    pattern = re.compile(rf"{re.escape(stem)}(-(\d+))?{re.escape(suffix)}")
    starts = [(int(match[2] or 1), path) for path in run.glob(f"{stem}*") if (match := pattern.fullmatch(path.name))]
    return [path for _, path in sorted(starts)]


def metrics_folder(start: int) -> str:
    """Return the folder of metrics.csv within the run: the run itself for the first start, then resumed-2, resumed-3, ..."""
    return "" if start == 1 else f"resumed-{start}"


def metrics_files(run: Path) -> list[Path]:
    """Return the existing metrics.csv of all starts in their order."""
    resumed = sorted(run.glob(f"resumed-*/{METRICS}"), key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0))
    return [path for path in [run / METRICS, *resumed] if path.is_file()]


def predictions_file(split: str, second_branch: str = "") -> str:
    """Return the name of the detections of ``split`` (val or test); those of a second branch have its name in it."""
    return f"predictions{_test(split)}{second_branch and '_'}{second_branch}.json"


def ground_truth_file(split: str) -> str:
    """Return the name of the annotations that ``split`` was evaluated with."""
    return f"ground_truth{_test(split)}.json"


def evaluation_file(split: str) -> str:
    """Return the name of the settings of an evaluation by evaluate.py."""
    return f"evaluation{_test(split)}.yaml"


def sheet_file(split: str) -> str:
    """Return the name of the image with ground truth beside detections."""
    return f"{split}_predictions.jpg"


def _test(split: str) -> str:
    return "" if split == "val" else f"_{split}"


def wanted_run_dir(config: Any) -> Path:
    """Return the folder that the run would have if it were free: the given one, or that of its checkpoint."""
    if config["ckpt_path"] and not config["run_dir"]:
        return Path(config["ckpt_path"]).parent
    return Path(config["run_dir"] or config["trainer"]["default_root_dir"] or Path("runs") / config["model"]["variant"])


def choose_run_dir(config: Any) -> Path:
    """Return the folder to write to: never one in use, unless it is that of the run that is resumed."""
    if inherited := os.environ.get(RUN_DIR_VARIABLE):
        return Path(inherited)
    if config["eval"]:
        weights = Path(config["eval"])
        run = weights.parent
        folder = Path(config["run_dir"] or run)
        # The run's own config.yaml names its folder, and an older one's may name that of another run: those files must stay.
        if folder.resolve() == run.resolve() or numbered_files(folder, RECORD):
            which = "" if weights.suffix == ".ckpt" else f"_{weights.stem}"  # other weights may lie beside each other
            return run / f"{EVALUATION_PREFIX}{config['split']}{which}"
        return folder
    own = Path(config["ckpt_path"]).parent if config["ckpt_path"] else None
    folder = wanted = wanted_run_dir(config)
    number = 2
    while folder.exists() and any(folder.iterdir()) and (own is None or folder.resolve() != own.resolve()):
        folder, number = wanted.with_name(f"{wanted.name}-{number}"), number + 1
    return folder
