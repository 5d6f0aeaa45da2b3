"""Where a run is written, by the configuration of train.py."""

import os
import re
from pathlib import Path
from typing import Any

from detector.runs.launch import RUN_DIR_VARIABLE


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
        if folder.resolve() == run.resolve() or numbered_files(folder, "run", ".json"):
            which = "" if weights.suffix == ".ckpt" else f"_{weights.stem}"  # other weights may lie beside each other
            return run / f"eval_{config['split']}{which}"
        return folder
    own = Path(config["ckpt_path"]).parent if config["ckpt_path"] else None
    folder = wanted = wanted_run_dir(config)
    number = 2
    while folder.exists() and any(folder.iterdir()) and (own is None or folder.resolve() != own.resolve()):
        folder, number = wanted.with_name(f"{wanted.name}-{number}"), number + 1
    return folder


def numbered_files(run: Path, stem: str, suffix: str) -> list[Path]:
    """Return what the starts of a run have written, the first one and every resume: config.yaml, config-2.yaml, ..."""
    name = re.compile(rf"{stem}(-(\d+))?\{suffix}")
    found = [(int(match[2] or 1), path) for path in run.glob(f"{stem}*{suffix}") if (match := name.fullmatch(path.name))]
    return [path for _, path in sorted(found)]
