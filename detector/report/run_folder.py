"""Read the folder of a run, complete or not."""

import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.files import read_json, read_yaml
from detector.network.head import BRANCHES
from detector.runs import folder as files
from detector.text import flatten
from detector.weights import read_weights

METRIC_OF_COCO = re.compile(r"/A[PR]\w*$|/AP_class/")
Epochs = dict[int, dict[str, float]]  # epoch -> name -> value


@dataclass(frozen=True)
class RunFolder:
    """The files of a run, and the content of its logs. Missing ones are empty or None."""

    folder: Path
    split: str  # val or test
    predictions: dict[str, Path]  # by branch, the main one first
    ground_truth: Path | None
    config: dict[str, Any]
    config_text: str
    config_name: str  # of a resumed run the newest, config-2.yaml
    is_evaluation: bool  # by evaluate.py
    evaluated: Path | None  # the checkpoint of an evaluation, if it is recorded
    evaluation_config: dict[str, Any]  # that the predictions were made with: of the evaluation if recorded, or of the run
    epochs: Epochs
    log: list[dict[str, str]]  # rows of train.log, an epoch each
    versions: dict[str, Any]
    checkpoint: Path | None  # the one that was evaluated, or else the best
    trained_size: tuple[int, int] | None  # height and width of the input that ``checkpoint`` was trained with
    routing: Path | None
    diagnosis: dict[str, Any]  # of the routing, by benchmarks.routing
    classification: dict[str, Any]  # the results of a classifier

    @property
    def is_pretraining(self) -> bool:
        """True for a run of pretrain.py, which trains a classifier."""
        return bool(self.classification) or "label_smoothing" in (self.config.get("model") or {})


def read_run(folder: Path, ground_truth: Path | None = None) -> RunFolder:
    """Read ``folder``, a run or one of its evaluations (``eval_val``), whose run is then the folder above.

    ``ground_truth`` replaces the recorded file. Raises ValueError if the folder is not that of a run.
    """
    if folder.is_file():
        raise ValueError(f"{folder}: is a file; give its folder, {folder.parent}")
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give the folder of a run, as runs/dyn_n")
    folder = folder.resolve()
    is_run = not folder.name.startswith(files.EVALUATION_PREFIX) or (folder / files.CONFIG).is_file()
    run = folder if is_run else folder.parent
    split = _split(folder)
    config, text, name = _config(run)
    evaluated, evaluation_config = _evaluation(folder, split)
    evaluation_config = evaluation_config or config
    predictions, epochs = _predictions(folder, split, evaluation_config), _epochs(run)
    classification = _classification(folder / files.classification_file("val"))
    if not predictions and not epochs and not classification:
        missing = f"neither {files.predictions_file('val')} nor {files.METRICS} with an epoch in it"
        raise ValueError(f"{folder}: has {missing}; give the folder of a run")
    checkpoint = _checkpoint(run, evaluated)
    return RunFolder(
        folder=folder,
        split=split,
        predictions=predictions,
        ground_truth=ground_truth or _ground_truth(folder, split, evaluation_config),
        config=config,
        config_text=text,
        config_name=name,
        is_evaluation=run != folder or evaluated is not None,
        evaluated=evaluated,
        evaluation_config=evaluation_config,
        epochs=epochs,
        log=_log(run),
        versions=_versions(run, text),
        checkpoint=checkpoint,
        trained_size=_trained_size(checkpoint),
        routing=path if (path := folder / files.ROUTING_PLOT).is_file() else None,
        diagnosis=_diagnosis(run / files.ROUTING_NUMBERS),
        classification=classification,
    )


def _split(folder: Path) -> str:
    """Return test if ``folder`` has predictions of that split only."""
    has_val, has_test = ((folder / files.predictions_file(split)).is_file() for split in ("val", "test"))
    return "test" if has_test and not has_val else "val"


def _checkpoint(run: Path, evaluated: Path | None) -> Path | None:
    """Return the evaluated checkpoint, or the best or the last one of a run; None if it does not exist."""
    candidates = [run / files.BEST_CHECKPOINT, run / files.LAST_CHECKPOINT]
    if evaluated is not None:
        path = evaluated.resolve()
        moved = [run / path.name] if path.parent.name == run.name else []  # with the run, after the evaluation
        candidates = [path, *moved]
    return next((path for path in candidates if path.is_file()), None)


def _trained_size(checkpoint: Path | None) -> tuple[int, int] | None:
    try:
        return None if checkpoint is None else read_weights(checkpoint).info.image_size
    except ValueError:  # an incomplete file of a run that was killed
        return None


def _config(run: Path) -> tuple[dict[str, Any], str, str]:
    if not (written := files.numbered_files(run, files.CONFIG)):
        return {}, "", files.CONFIG
    return _sections(_settings(written[-1])), written[-1].read_text(encoding="utf-8"), written[-1].name


def _evaluation(folder: Path, split: str) -> tuple[Path | None, dict[str, Any]]:
    """Return the checkpoint and the configuration that evaluate.py has recorded, if it has."""
    path = folder / files.evaluation_file(split)
    content = _settings(path) if path.is_file() else {}
    tiles = {key: content[key] for key in ("tile", "overlap") if content.get(key) is not None}
    return Path(content["eval"]) if isinstance(content.get("eval"), str) else None, _sections(content) | tiles


def _diagnosis(path: Path) -> dict[str, Any]:
    """Return the numbers of benchmarks.routing, if there are any. Raises ValueError for another file of that name."""
    if not path.is_file():
        return {}
    content = read_json(path, dict, "numbers of benchmarks.routing")
    if missing := [key for key in ("layers", "ap", "ap_sd", "drops") if not isinstance(content.get(key), dict)]:
        raise ValueError(f"{path}: has no {', '.join(missing)}; run benchmarks.routing again, or move the file away")
    return content


def _classification(path: Path) -> dict[str, Any]:
    """Return the results of a classifier, if there are any. Raises ValueError for another file of that name."""
    if not path.is_file():
        return {}
    content = read_json(path, dict, "the results of a classifier")
    keys = ("split", "epoch", "images", "top1", "top5", "top5_of", "classes", "confusions", "mistakes")
    if missing := [key for key in keys if key not in content]:
        raise ValueError(f"{path}: has no {', '.join(missing)}; restore it as pretrain.py wrote it, or move it away")
    return content


def _settings(path: Path) -> dict[str, Any]:
    content = read_yaml(path, "restore it, or move it away to do without")
    return content if isinstance(content, dict) else {}


def _sections(content: dict[str, Any]) -> dict[str, Any]:
    """Return the sections without those that are no mapping."""
    return {key: value for key, value in content.items() if isinstance(value, dict)}


def _predictions(folder: Path, split: str, config: dict[str, Any]) -> dict[str, Path]:
    chosen = (config.get("evaluation") or {}).get("branch", "both")
    main = chosen if chosen in BRANCHES else BRANCHES[0]
    second = BRANCHES[1 - BRANCHES.index(main)]
    paths = {main: folder / files.predictions_file(split), second: folder / files.predictions_file(split, second)}
    return {branch: path for branch, path in paths.items() if path.is_file()}


def _ground_truth(folder: Path, split: str, config: dict[str, Any]) -> Path | None:
    """Return the recorded file, or for older runs, which recorded none, the file that the configuration names."""
    recorded = folder / files.ground_truth_file(split)
    return recorded if recorded.is_file() else _data_path(config, f"{split}_annotations")


def image_folder(run: RunFolder, info: dict[str, Any], images: str | None = None) -> Path | None:
    """Return the folder of the evaluated images: ``images``, else as ``info`` or the settings name it."""
    folder = images or info.get("pictures")
    return Path(folder) if isinstance(folder, str) else _data_path(run.evaluation_config, f"{run.split}_images")


def _data_path(config: dict[str, Any], name: str) -> Path | None:
    data = config.get("data") or {}
    return Path(str(data.get("root") or ""), data[name]) if isinstance(data.get(name), str) else None


def _epochs(run: Path) -> Epochs:
    """Return the metrics by epoch. Every start of a run writes its own file; where epochs repeat, the later file counts.

    COCO metrics of -1 are left out: there was no object for them.
    """
    epochs: Epochs = {}
    for path in files.metrics_files(run):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if (epoch := _number(row.get("epoch"))) is None:  # the last line of a run that was cut off
                    continue
                values = {name: number for name, value in row.items() if name and (number := _number(value)) is not None}
                values = {
                    name: number for name, number in values.items() if not (number < 0 and METRIC_OF_COCO.search(name))
                }
                epochs.setdefault(int(epoch), {}).update(values)
    return dict(sorted(epochs.items()))


def _number(value: Any) -> float | None:
    """Return ``value`` as a number, None if it is none or NaN."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else number


def _log(run: Path) -> list[dict[str, str]]:
    path = run / files.TRAIN_LOG
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
    paths = files.numbered_files(run, files.RECORD)
    if records := [read_json(path, dict, "the file as it was, or move it away") for path in paths]:
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
    """Return the epochs that have the metric ``name``, and its values."""
    points = {epoch: values[name] for epoch, values in epochs.items() if name in values}
    return list(points), list(points.values())
