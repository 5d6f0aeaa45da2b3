"""SLURM jobs that are queued again: requeue the job, and resume its run when it starts."""

import json
import os
import re
import subprocess
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only, rank_zero_warn

from detector.runs.folder import LAST_CHECKPOINT, RECORD, numbered_files, wanted_run_dir
from detector.runs.record import command_line


@rank_zero_only
def requeue() -> None:
    """Put this SLURM job into the queue again."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = os.environ["SLURM_JOB_ID"] if array is None else f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        rank_zero_warn(f"SLURM job {job} could not be queued again ({error}); submit it again, it goes on by itself")
    else:
        rank_zero_info(f"SLURM job {job} is queued again")


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
        records = [json.loads(path.read_text()) for path in numbered_files(run, RECORD)]
        # A job may train more than one thing, but each by a command of its own.
        same = [r["environment"].get("SLURM_JOB_ID") == str(job) and r["command"] == command_line() for r in records]
        if any(same) and (last := run / LAST_CHECKPOINT).is_file():
            config["ckpt_path"], config["run_dir"] = str(last), str(run)
            rank_zero_info(f"SLURM has started job {job} again: going on from {last}")
            return True
    return False
