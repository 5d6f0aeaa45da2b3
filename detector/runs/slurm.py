"""SLURM jobs that are queued again: requeue the job, and resume its run when it starts."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from detector.runs.folder import LAST_CHECKPOINT, RECORD, numbered_files, requested_folder
from detector.runs.record import command_line


@rank_zero_only
def requeue() -> None:
    """Put this SLURM job into the queue again."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = os.environ["SLURM_JOB_ID"] if array is None else f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        rank_zero_warn(f"SLURM job {job} could not be queued again ({error}); resume the run in a new job")
    else:
        rank_zero_info(f"SLURM job {job} is queued again")


def resume_slurm_job(config: Any, prefix: str = "") -> bool:
    """Set ``config`` to resume the run of this SLURM job if the job was queued again; return True if there is such a run.

    SLURM starts a job that was queued again with the command it had the first time. For ``prefix`` see ``requested_folder``.
    """
    job = SLURMEnvironment.job_id()
    if job is None or int(os.environ.get("SLURM_RESTART_COUNT", 0)) == 0:
        return False
    requested = requested_folder(config, prefix)
    numbered_name = re.compile(re.escape(requested.name) + r"(-\d+)?")  # as training_folder numbers them
    for run in [folder for folder in requested.parent.glob("*") if numbered_name.fullmatch(folder.name)]:
        checkpoint = run / LAST_CHECKPOINT
        if _is_run_of(job, run) and checkpoint.is_file():
            config["ckpt_path"], config["run_dir"] = str(checkpoint), str(run)
            rank_zero_info(f"SLURM has started job {job} again: resuming from {checkpoint}")
            return True
    return False


def _is_run_of(job: int, run: Path) -> bool:
    """Return True if this job has started ``run`` by this command: one job may train several runs by several commands."""
    records = [json.loads(path.read_text()) for path in numbered_files(run, RECORD)]
    return any(r["environment"].get("SLURM_JOB_ID") == str(job) and r["command"] == command_line() for r in records)
