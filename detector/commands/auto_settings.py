"""Settings of train.py that are ``auto``: chosen for a new run when its data are known, or as in the run that is resumed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from detector.arguments import AUTO
from detector.commands.run_trainer import RunTrainer
from detector.files import read_yaml
from detector.runs.folder import CONFIG, numbered_files
from detector.text import flatten
from detector.training.recipe import Start
from detector.weights import NONE

# The name of each setting, by field of the recipe
KEYS: Mapping[str, str] = {
    "optimizer": "model.optimizer",
    "lr": "model.lr",
    "weight_decay": "model.weight_decay",
    "nominal_batch": "model.nominal_batch",
    "warmup_epochs": "model.warmup_epochs",
    "warmup_bias_lr": "model.warmup_bias_lr",
    "epochs": "trainer.max_epochs",
    "mosaic": "data.augment.mosaic",
    "close_mosaic": "data.augment.close_mosaic",
    "ema_decay": "ema.decay",
    "ema_tau": "ema.tau",
}


class DetectorTrainer(RunTrainer):
    """The Trainer of detectors; ``max_epochs`` may be "auto": train.py then sets it when the data are known."""

    def __init__(self, *, max_epochs: int | Literal["auto"] | None = None, **settings: Any) -> None:
        """Make the Trainer.

        Args:
            max_epochs: epochs of the training; -1 for one that only a signal or another limit ends. ``auto``: by the number
                of images and the start, see docs/finetune.md.
        """
        super().__init__(max_epochs=None if max_epochs == AUTO else max_epochs, **settings)


def automatic_keys(config: Any) -> dict[str, str]:
    """Return the settings in ``config`` that are auto, by field of the recipe."""
    return {name: key for name, key in KEYS.items() if config.get(key) == AUTO}


def given_values(config: Any) -> dict[str, Any]:
    """Return the values in ``config`` that are not auto, by field of the recipe; none for settings that it does not have."""
    return {name: config[key] for name, key in KEYS.items() if key in config and config[key] != AUTO}


def start_of(config: Any) -> Start:
    """Return what the run of ``config`` starts from."""
    if config["model"]["weights"] is not None:
        return "detector"
    return "scratch" if config["model"]["backbone_weights"] in (None, NONE) else "backbone"


def take_values_of_run(config: Any, checkpoint: str) -> None:
    """Set what is auto in ``config`` as in the run of ``checkpoint``, which is resumed: its data may have changed since.

    Raises ValueError if the folder of the run does not have its configuration, or not the values.
    """
    if not (keys := automatic_keys(config)):
        return
    configs = numbered_files(Path(checkpoint).parent, CONFIG)
    saved = read_yaml(configs[-1], "restore it, or move it away") if configs else {}
    values = flatten(saved)
    if missing := [key for key in keys.values() if values.get(key, AUTO) == AUTO]:
        source = f"{configs[-1]} does not have that" if configs else f"{Path(checkpoint).parent} has no {CONFIG}"
        options = " ".join(f"--{key} VALUE" for key in missing)
        raise ValueError(
            f"auto: {', '.join(missing)}; {checkpoint} goes on with the values of its run, but {source}: "
            f"copy the file there, or give {options}"
        )
    for key in keys.values():
        config[key] = values[key]
