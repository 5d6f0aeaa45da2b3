"""Compare a checkpoint with the current settings and data: raise ValueError or log the differences."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from detector.files import read_yaml
from detector.network.config import saved_overrides
from detector.runs.folder import CONFIG, numbered_files
from detector.text import flatten, plural
from detector.weights import read_weights

# Settings of the model that a resumed run must keep. With other values, the saved weights would not fit, or other weights
# would be trained.
FIXED_BY_CHECKPOINT = (
    *("variant", "overrides", "class_names", "category_ids"),
    *("optimizer", "freeze", "lr_ratios", "backbone_lr_ratio", "layer_decay"),
)
DATA_MODULES = ("CocoDataModule", "ImageFolderDataModule")  # keys of a checkpoint with the position in the data
# Every config.yaml of a run has these. Files of users have few of them.
SECTIONS = {"seed_everything", "trainer", "model", "data", "ema", "evaluation"}
# Settings of evaluations. Old config.yaml of train.py have them, from before evaluate.py existed.
EVALUATION_SETTINGS = ("eval", "split", "flip_test", "tile", "overlap")
# Differences in these settings are not logged: the paths that a run starts from and writes to, and settings of evaluations.
NOT_LOGGED = (
    *("run_dir", "ckpt_path", "config", "model.weights", "model.backbone_weights", "model.accept_license"),
    *("model.new_parts", "model.block_files"),
    *EVALUATION_SETTINGS,
)


def saved_settings(path: str) -> dict[str, Any]:
    """Return the settings of the model that a checkpoint was trained with."""
    return torch.load(path, map_location="cpu", weights_only=True).get("hyper_parameters", {})


def is_run_config(settings: Any) -> bool:
    """Return True for the content of a run's config.yaml, which has all settings, and False for that of a user's file."""
    return isinstance(settings, dict) and settings.get("run_dir") is not None and settings.keys() >= SECTIONS


def check_resumable(path: str, hparams: dict[str, Any], max_epochs: int) -> None:
    """Raise ValueError if the checkpoint does not fit the model's ``hparams``; log the other differences."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    saved = dict(checkpoint.get("hyper_parameters", {}))
    if "variant" in saved:
        saved["overrides"] = saved_overrides(saved["variant"], saved.get("overrides") or {}) or None
    differing = {name: (saved.get(name), value) for name, value in hparams.items() if saved.get(name) != value}
    lines = {name: f"\n    {name}: {old} in the checkpoint, {new} here" for name, (old, new) in differing.items()}
    if fixed := "".join(line for name, line in lines.items() if name in FIXED_BY_CHECKPOINT):
        raise ValueError(f"{path} cannot be resumed with this configuration; set the model as it was:{fixed}")
    if lines:
        rank_zero_info(f"resuming {path} with other settings:{''.join(lines.values())}")
    _log_if_finished(path, checkpoint, max_epochs)


def _log_if_finished(path: str, checkpoint: dict[str, Any], max_epochs: int) -> None:
    # Use our position: Lightning's epoch would count a half-finished epoch as done. Old checkpoints have no position.
    saved = next((checkpoint[name] for name in DATA_MODULES if checkpoint.get(name)), None)
    position = saved or {"epoch": checkpoint["epoch"] + 1}
    if position["epoch"] >= max_epochs > 0:
        rank_zero_info(f"{path} is from the end of a run of {plural(max_epochs, 'epoch')}: nothing is left to train")


@rank_zero_only
def log_changed_settings(run_dir: Path, config: dict[str, Any]) -> None:
    """Log the settings in ``config`` that differ from those of the last start of the run in ``run_dir``."""
    configs = numbered_files(run_dir, CONFIG)
    if not configs:
        rank_zero_info(f"{run_dir} has no {CONFIG}: whether settings of data and trainer differ is not known")
        return
    before, now = flatten(read_yaml(configs[-1], "restore it, or move it away")), flatten(config)
    names = [name for name in sorted(before | now) if before.get(name) != now.get(name) and not _is_not_logged(name)]
    if names:
        lines = "\n".join(f"    {name}: {before.get(name)} before, {now.get(name)} now" for name in names)
        rank_zero_info(f"settings that differ from {configs[-1]}:\n{lines}")


def _is_not_logged(name: str) -> bool:
    # Overrides are those of the checkpoint, see FIXED_BY_CHECKPOINT. Old files have fewer settings of dynamic layers.
    return name in NOT_LOGGED or name.startswith("model.overrides.dynamic.")


def check_classes(path: str, class_names: list[str], category_ids: list[int]) -> None:
    """Raise ValueError if the weights in ``path`` have other classes than the data, by name and id.

    A checkpoint is used as it is and must have the classes in the same order. Other weights are loaded class by class, by
    name, and files of the public reference have no ids.
    """
    weights = read_weights(path)
    names, ids = weights.info.class_names, weights.info.category_ids
    if names is None:
        raise ValueError(f"{path} does not name its classes, so that nobody knows whether they are those of the data")
    classes: list[Any] = list(zip(ids, names)) if ids else names
    data_classes: list[Any] = list(zip(category_ids, class_names)) if ids else class_names
    if not weights.is_checkpoint:
        classes, data_classes = sorted(classes), sorted(data_classes)
    if classes != data_classes:
        hint = (
            "only the ids differ; evaluate on annotations with the ids of the training (--config RUN/config.yaml)"
            if list(names) == list(class_names)
            else "evaluate on data with the same classes"
        )
        raise ValueError(f"{path} knows the classes {classes}, but the data have {data_classes}; {hint}")
