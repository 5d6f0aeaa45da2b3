"""Record the command, versions, code, machine and environment of a run, to repeat it or to explain a difference."""

import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from detector.text import package_version

PACKAGES = (
    *("torch", "torchvision", "lightning", "jsonargparse", "numpy", "timm"),
    *("albumentations", "opencv-python-headless", "pycocotools", "faster-coco-eval", "ultrafast-pycocotools"),
)
# Environment variables of devices, threads, launchers and determinism. Others may hold secrets.
VARIABLES = re.compile(
    r"(?!SLURM_JWT)(CUDA|CUBLAS|NVIDIA|NCCL|GLOO|OMP|MKL|KMP|OPENBLAS|TORCH|PYTORCH|PL|SLURM|MASTER|PYTHON)\w*"
    r"|(LOCAL_|NODE_|GROUP_)?RANK|(LOCAL_)?WORLD_SIZE"
)


def run_record() -> dict[str, Any]:
    """Return command, versions, state of the code, machine and environment of this process, for JSON."""
    return {
        "command": command_line(),
        "folder": os.getcwd(),
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "git": git_state(Path(__file__).parent),
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "cuda": torch.version.cuda,
            "gpus": gpus(),
        },
        "environment": {name: value for name, value in sorted(os.environ.items()) if VARIABLES.fullmatch(name)},
    }


def command_line() -> str:
    """Return the command that this process was started with."""
    return shlex.join([sys.executable, *sys.argv])


def gpus() -> list[str]:
    """Return the names of the GPUs, by nvidia-smi: torch would start CUDA, after which no process may be forked."""
    count = torch.cuda.device_count()
    if not count:
        return []
    try:
        result = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ["unknown"] * count
    return [line.partition(" (UUID")[0] for line in result.stdout.splitlines()]  # "GPU 0: NVIDIA A100"


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit, branch and changed files of the repository that the code in ``folder`` belongs to, or None.

    A folder that git ignores, like a package in a project's .venv, does not belong to the repository around it.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or not _git(folder, "ls-files"):
        return None
    changed = _git(folder, "status", "--porcelain") or ""
    return {"commit": commit, "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"), "changed": changed.splitlines()}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):  # git is not installed
        return None
    return result.stdout.rstrip() if result.returncode == 0 else None
