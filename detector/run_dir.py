"""Where a run is written, by the configuration of train.py."""

import json
import os
import re
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_info

from detector.run_record import command_line, starts

# What the processes that Lightning starts must know of their parent: where it writes, and its number.
RUN_DIR_VARIABLE, PARENT_VARIABLE = "DETECTOR_RUN_DIR", "DETECTOR_PARENT"


def continue_slurm_job(config: Any) -> bool:
    """Resume the run of a SLURM job that was queued again, which starts with the command it had the first time.

    Tell whether there is one.
    """
    job = SLURMEnvironment.job_id()
    if job is None or int(os.environ.get("SLURM_RESTART_COUNT", 0)) == 0 or config["eval"]:
        return False
    wanted = wanted_run_dir(config)
    own = re.compile(re.escape(wanted.name) + r"(-\d+)?")  # as choose_run_dir numbers them
    for run in [folder for folder in wanted.parent.glob("*") if own.fullmatch(folder.name)]:
        records = [json.loads(path.read_text()) for path in starts(run, "run", ".json")]
        # A job may train more than one thing, but each by a command of its own.
        same = [r["environment"].get("SLURM_JOB_ID") == str(job) and r["command"] == command_line() for r in records]
        if any(same) and (last := run / "last.ckpt").is_file():
            config["ckpt_path"], config["run_dir"] = str(last), str(run)
            rank_zero_info(f"SLURM has started job {job} again: going on from {last}")
            return True
    return False


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
        if folder.resolve() == run.resolve() or starts(folder, "run", ".json"):
            which = "" if weights.suffix == ".ckpt" else f"_{weights.stem}"  # other weights may lie beside each other
            return run / f"eval_{config['split']}{which}"
        return folder
    own = Path(config["ckpt_path"]).parent if config["ckpt_path"] else None
    folder = wanted = wanted_run_dir(config)
    number = 2
    while folder.exists() and any(folder.iterdir()) and (own is None or folder.resolve() != own.resolve()):
        folder, number = wanted.with_name(f"{wanted.name}-{number}"), number + 1
    return folder
