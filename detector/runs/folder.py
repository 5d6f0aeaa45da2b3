"""The folder of a run: the names of all its files, and the choice of a folder for a new run.

The files of a run, and who writes them:

    config.yaml, run.json                  TrainingCLI; a resumed run adds config-2.yaml and run-2.json, then -3, ...
    last.ckpt, best.ckpt                   ModelCheckpoint and SaveOnSignal
    train.log                              EpochLog
    metrics.csv, tensorboard/              CSVLogger, TensorBoardLogger (TrainingCLI.loggers); resumed: resumed-2/metrics.csv
    predictions.json, ground_truth.json    CocoEvaluation; of the second branch predictions_one2many.json
    classification.json                    ClassEvaluation, in the place of these two in a pre-training
    val_predictions.jpg                    PredictionSheet
    routing.png                            RoutingLog
    routing.json                           python -m benchmarks.routing; routing-old.json of before a resume
    report.html, figures/                  python -m detector report; report-old.html and figures-old/ of before a resume
    suspect_labels.json                    python -m detector report: labels that may be wrong; -old likewise
    eval_val/                              evaluate.py: evaluation.yaml, and predictions and images as in the run

Evaluations of the test split write eval_test/, predictions_test.json, test_predictions.jpg and so on.
"""

import os
import re
from pathlib import Path
from typing import Any

CONFIG, RECORD = "config.yaml", "run.json"  # every start of a run writes its own, see ``numbered``
LAST_CHECKPOINT, BEST_CHECKPOINT = "last.ckpt", "best.ckpt"
TRAIN_LOG, METRICS = "train.log", "metrics.csv"
ROUTING_PLOT, ROUTING_NUMBERS, REPORT = "routing.png", "routing.json", "report.html"
SUSPECT_LABELS = "suspect_labels.json"  # beside the report
TENSORBOARD, FIGURES = "tensorboard", "figures"  # folders
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
    """Return the folder of metrics.csv within the run: the run itself, then resumed-2, resumed-3, ..."""
    return "" if start == 1 else f"resumed-{start}"


def metrics_files(run: Path) -> list[Path]:
    """Return the existing metrics.csv of all starts in their order."""
    resumed = sorted(run.glob(f"resumed-*/{METRICS}"), key=_start_number)
    return [path for path in [run / METRICS, *resumed] if path.is_file()]


def _start_number(metrics: Path) -> int:
    digits = re.sub(r"\D", "", metrics.parent.name)
    return int(digits) if digits else 0


def predictions_file(split: str, second_branch: str = "") -> str:
    """Return the name of the detections on ``split`` (val or test), of the main branch or of ``second_branch``."""
    branch_suffix = f"_{second_branch}" if second_branch else ""
    return f"predictions{_suffix(split)}{branch_suffix}.json"


def ground_truth_file(split: str) -> str:
    """Return the name of the annotations that ``split`` was evaluated with."""
    return f"ground_truth{_suffix(split)}.json"


def classification_file(split: str) -> str:
    """Return the name of the results of a classifier on ``split``."""
    return f"classification{_suffix(split)}.json"


def evaluation_file(split: str) -> str:
    """Return the name of the settings of an evaluation of ``split`` by evaluate.py."""
    return f"evaluation{_suffix(split)}.yaml"


def sheet_file(split: str) -> str:
    """Return the name of the image that shows ground truth beside detections."""
    return f"{split}_predictions.jpg"


def _suffix(split: str) -> str:
    return "" if split == "val" else f"_{split}"


def requested_folder(config: Any, prefix: str = "") -> Path:
    """Return the folder that the settings of a training ask for.

    That is run_dir; else the folder of the checkpoint when resuming; else trainer.default_root_dir; else
    runs/<prefix><variant>.
    """
    if config["ckpt_path"] and not config["run_dir"]:
        return Path(config["ckpt_path"]).parent
    default = Path("runs", prefix + config["model"]["variant"])
    return Path(config["run_dir"] or config["trainer"]["default_root_dir"] or default)


def training_folder(config: Any, prefix: str = "") -> Path:
    """Return the folder of a training: the requested one, or if another run has used it, the next free <name>-2, -3, ..."""
    resumed = Path(config["ckpt_path"]).parent.resolve() if config["ckpt_path"] else None
    requested = folder = requested_folder(config, prefix)
    check_writable(requested)
    number = 2
    while folder.exists() and any(folder.iterdir()) and folder.resolve() != resumed:
        folder, number = requested.with_name(f"{requested.name}-{number}"), number + 1
    return folder


def check_writable(folder: Path) -> None:
    """Raise ValueError if ``folder`` is a file, or if it could not be made and written to."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"--run_dir {folder}: {existing} is a file; give a folder to write into")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"--run_dir {folder}: no permission to write into {existing}; give another folder")


def evaluation_folder(checkpoint: Path, split: str, run_dir: str | None) -> Path:
    """Return the folder of an evaluation: ``run_dir``, or eval_<split> beside the checkpoint.

    If ``run_dir`` is the folder of a training, as when its config.yaml is passed, the evaluation does not write to it but
    to eval_<split>.
    """
    folder = Path(run_dir or checkpoint.parent)
    check_writable(folder)
    if folder.resolve() == checkpoint.parent.resolve() or numbered_files(folder, RECORD):
        suffix = "" if checkpoint.suffix == ".ckpt" else f"_{checkpoint.stem}"  # several weights files may lie in one folder
        return checkpoint.parent / f"{EVALUATION_PREFIX}{split}{suffix}"
    return folder
