"""What a run left in its folder, read as far as it is there."""

import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.files import read_json, read_yaml
from detector.network.head import BRANCHES
from detector.runs.folder import (
    BEST_CHECKPOINT,
    CONFIG,
    EVALUATION_PREFIX,
    LAST_CHECKPOINT,
    METRICS,
    RECORD,
    ROUTING_PLOT,
    TRAIN_LOG,
    evaluation_file,
    ground_truth_file,
    metrics_files,
    numbered_files,
    predictions_file,
)
from detector.text import flatten
from detector.weights.files import read_weights

Epochs = dict[int, dict[str, float]]  # epoch -> name -> value


@dataclass(frozen=True)
class RunFolder:
    """The files of a run. What it does not have is empty or None."""

    folder: Path
    split: str  # val or test
    predictions: dict[str, Path]  # by branch, the main one first
    ground_truth: Path | None
    config: dict[str, Any]
    config_text: str
    config_name: str  # of a resumed run the newest, config-2.yaml
    is_evaluation: bool  # by evaluate.py
    evaluated: Path | None  # the checkpoint that it was given, if that is recorded
    judged_with: dict[str, Any]  # the configuration behind the predictions: of the evaluation if recorded, or of the run
    epochs: Epochs
    log: list[dict[str, str]]  # rows of train.log, an epoch each
    versions: dict[str, Any]
    checkpoint: Path | None  # the one that was evaluated, or else the best
    trained_size: tuple[int, int] | None  # height and width of the input that ``checkpoint`` was trained with
    routing: Path | None


def read_run(folder: Path, ground_truth: Path | None = None) -> RunFolder:
    """Read what is in ``folder``, a run or one of its evaluations (``eval_val``), whose run is then the folder above.

    ``ground_truth`` replaces what the run recorded. Raises ValueError if the folder is not that of a run.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give the folder of a run, as runs/dyn_n")
    folder = folder.resolve()
    run = folder.parent if folder.name.startswith(EVALUATION_PREFIX) and not (folder / CONFIG).is_file() else folder
    has = {split: (folder / predictions_file(split)).is_file() for split in ("val", "test")}
    split = "test" if has["test"] and not has["val"] else "val"
    config, text, name = _config(run)
    evaluated, judged_with = _evaluation(folder, split)
    judged_with = judged_with or config
    predictions = _predictions(folder, split, judged_with)
    epochs = _epochs(run)
    if not predictions and not epochs:
        raise ValueError(
            f"{folder}: has neither {predictions_file('val')} nor {METRICS} with an epoch in it; give the folder of a run"
        )
    checkpoints = [run / BEST_CHECKPOINT, run / LAST_CHECKPOINT]
    if evaluated is not None:
        path = evaluated.resolve()
        moved = [run / path.name] if path.parent.name == run.name else []  # the run may have been moved since
        checkpoints = [path, *moved]
    checkpoint = next((path for path in checkpoints if path.is_file()), None)
    return RunFolder(
        folder=folder,
        split=split,
        predictions=predictions,
        ground_truth=ground_truth or _ground_truth(folder, split, judged_with),
        config=config,
        config_text=text,
        config_name=name,
        is_evaluation=run != folder or evaluated is not None,
        evaluated=evaluated,
        judged_with=judged_with,
        epochs=epochs,
        log=_log(run),
        versions=_versions(run, text),
        checkpoint=checkpoint,
        trained_size=_trained_size(checkpoint),
        routing=path if (path := folder / ROUTING_PLOT).is_file() else None,
    )


def _trained_size(checkpoint: Path | None) -> tuple[int, int] | None:
    try:
        return None if checkpoint is None else read_weights(checkpoint).info.image_size
    except ValueError:  # half a file, of a run that was killed, say
        return None


def _config(run: Path) -> tuple[dict[str, Any], str, str]:
    if not (written := numbered_files(run, CONFIG)):
        return {}, "", CONFIG
    return _known(_settings(written[-1])), written[-1].read_text(encoding="utf-8"), written[-1].name


def _evaluation(folder: Path, split: str) -> tuple[Path | None, dict[str, Any]]:
    """Return the checkpoint and the configuration that evaluate.py has recorded, if it has."""
    path = folder / evaluation_file(split)
    content = _settings(path) if path.is_file() else {}
    return Path(content["eval"]) if isinstance(content.get("eval"), str) else None, _known(content)


def _settings(path: Path) -> dict[str, Any]:
    content = read_yaml(path, "restore it, or move it away to do without")
    return content if isinstance(content, dict) else {}


def _known(content: dict[str, Any]) -> dict[str, Any]:
    """Return the sections: a null in place of one, or something else of the reader's making, is as good as none."""
    return {key: value for key, value in content.items() if isinstance(value, dict)}


def _predictions(folder: Path, split: str, config: dict[str, Any]) -> dict[str, Path]:
    chosen = (config.get("evaluation") or {}).get("branch", "both")
    main = chosen if chosen in BRANCHES else BRANCHES[0]
    second = BRANCHES[1 - BRANCHES.index(main)]
    paths = {main: folder / predictions_file(split), second: folder / predictions_file(split, second)}
    return {branch: path for branch, path in paths.items() if path.is_file()}


def _ground_truth(folder: Path, split: str, config: dict[str, Any]) -> Path | None:
    """Return what the run recorded, or, for runs of before it did, the file that its configuration names."""
    recorded = folder / ground_truth_file(split)
    if recorded.is_file():
        return recorded
    data = config.get("data") or {}
    named = data.get(f"{split}_annotations")
    return Path(str(data.get("root") or ""), named) if isinstance(named, str) else None


def image_folder(run: RunFolder, info: dict[str, Any]) -> Path | None:
    """Return where the evaluated images were when the run was made, by ``info`` of its ground truth or else its config."""
    if isinstance(info.get("pictures"), str):
        return Path(info["pictures"])
    data = run.judged_with.get("data") or {}
    named = data.get(f"{run.split}_images")
    return Path(str(data.get("root") or ""), named) if isinstance(named, str) else None


def _epochs(run: Path) -> Epochs:
    """Return the metrics by epoch. Resumed runs write files of their own; where epochs repeat, the later one counts."""
    epochs: Epochs = {}
    for path in metrics_files(run):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if (epoch := _number(row.get("epoch"))) is None:  # the last line of a run that was cut off
                    continue
                values = {name: number for name, value in row.items() if name and (number := _number(value)) is not None}
                epochs.setdefault(int(epoch), {}).update(values)
    return dict(sorted(epochs.items()))


def _number(value: Any) -> float | None:
    """Return a number, not NaN, or None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else number


def _log(run: Path) -> list[dict[str, str]]:
    path = run / TRAIN_LOG
    rows: list[dict[str, str]] = []
    head: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        cells = line.split()
        if cells[:1] == ["epoch"]:
            head = cells
        elif len(cells) == len(head) > 0:
            rows.append(dict(zip(head, cells)))
    return rows


def _versions(run: Path, config_text: str) -> dict[str, Any]:
    if records := [read_json(path, dict, "the file as it was, or move it away") for path in numbered_files(run, RECORD)]:
        first = {"command": records[0].get("command")}
        resumed = {"resumed by": [record.get("command") for record in records[1:]]}
        # The environment is too much for a page.
        last = {name: value for name, value in records[-1].items() if name not in ("command", "environment")}
        flat = flatten(first | resumed | last, " ")
        shown = {name: ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in flat.items()}
        return {name: value for name, value in shown.items() if value not in (None, "")}
    match = re.match(r"# lightning\.pytorch==(\S+)", config_text)
    return {"lightning": match[1]} if match else {}


def series(epochs: Epochs, name: str) -> tuple[list[int], list[float]]:
    """Return the epochs that have a value called ``name``, and these values."""
    found = [(epoch, values[name]) for epoch, values in epochs.items() if name in values]
    return [epoch for epoch, _ in found], [value for _, value in found]
