"""Does a checkpoint go with this configuration, to be resumed or evaluated, and what is different?"""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from detector.files import read_yaml
from detector.runs.folder import CONFIG, numbered_files
from detector.text import flatten, plural
from detector.weights.files import read_weights
from detector.weights.info import OWN_CHECKPOINT

# Resuming with others makes no sense: other weights, or others that are trained.
MAY_DIFFER = ("run_dir", "ckpt_path", "eval", "config", "model.weights")  # without a word, when a run is resumed
FIXED_BY_CHECKPOINT = ("variant", "overrides", "class_names", "category_ids", "optimizer", "freeze", "lr_ratios")


def check_resumable(path: str, hparams: dict[str, Any], max_epochs: int) -> None:
    """Refuse to resume another network or other classes, and say which other settings of the model differ."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    saved = checkpoint.get("hyper_parameters", {})
    differing = {name: (saved.get(name), value) for name, value in hparams.items() if saved.get(name) != value}
    lines = "\n".join(f"    {name}: {old} in the checkpoint, {new} here" for name, (old, new) in differing.items())
    if any(name in differing for name in FIXED_BY_CHECKPOINT):
        raise ValueError(f"{path} cannot be resumed with this configuration; set the model as it was:\n{lines}")
    if differing:
        rank_zero_info(f"resuming {path} with other settings:\n{lines}")
    place = checkpoint.get("CocoDataModule") or {"epoch": checkpoint["epoch"] + 1, "samples": 0}
    if place["epoch"] >= max_epochs > 0:  # Lightning's own counts the epoch of a run that was stopped in the middle of it
        rank_zero_info(f"{path} is from the end of a run of {plural(max_epochs, 'epoch')}: nothing is left to train")


@rank_zero_only
def report_differences(run_dir: Path, config: dict[str, Any]) -> None:
    """Say which settings are not those of the run's last start; ``config`` has those of this one."""
    written = numbered_files(run_dir, CONFIG)
    if not written:
        rank_zero_info(f"{run_dir} has no {CONFIG}: whether settings of data and trainer differ is not known")
        return
    before, now = flatten(read_yaml(written[-1], "restore it, or move it away")), flatten(config)
    names = [name for name in sorted(before | now) if before.get(name) != now.get(name) and name not in MAY_DIFFER]
    if names:
        lines = "\n".join(f"    {name}: {before.get(name)} before, {now.get(name)} now" for name in names)
        rank_zero_info(f"settings that differ from {written[-1]}:\n{lines}")


def check_classes(path: str, class_names: list[str], category_ids: list[int]) -> None:
    """Refuse to evaluate the weights in ``path`` on data with other classes, which are given by name and id.

    A checkpoint is used as it is and must have them in the same order; other weights are loaded class by class, by name,
    and files of the public reference know no ids.
    """
    weights = read_weights(path)
    names, ids = weights.info.class_names, weights.info.category_ids
    if names is None:
        raise ValueError(f"{path} does not name its classes, so that nobody knows whether they are those of the data")
    known = list(zip(ids, names)) if ids else names
    wanted = list(zip(category_ids, class_names)) if ids else class_names
    if weights.kind != OWN_CHECKPOINT:
        known, wanted = sorted(known), sorted(wanted)
    if known != wanted:
        raise ValueError(
            f"{path} knows the classes {known}, but the data have {wanted}; evaluate on data with the same classes"
        )
