"""Run train.py, pretrain.py and evaluate.py of a clone as commands: ``detector train ...``."""

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

NEEDED = ("data/__init__.py", "configs/base.yaml", "detector/commands/run_cli.py")  # beside a program of ours


@dataclass(frozen=True)
class CloneProgram:
    """A command, the program in the root of a clone that it runs, and what it does."""

    command: str
    file: str
    purpose: str


PROGRAMS = (
    CloneProgram("train", "train.py", "train a detector (in a clone)"),
    CloneProgram("pretrain", "pretrain.py", "pre-train a backbone as a classifier (in a clone)"),
    CloneProgram("evaluate", "evaluate.py", "evaluate a checkpoint on labeled images (in a clone)"),
)


def run_program(program: CloneProgram, args: list[str]) -> int:
    """Run a program of a clone with ``args`` in place of this process: its exit status and signals are those of this one.

    Raises ValueError, with what to do, if there is no clone. With ``--help`` it prints the same.
    """
    clone = find_clone(program)
    if clone is None:
        if "--help" not in args and "-h" not in args:
            raise ValueError(no_clone_message(program, args))
        print(no_clone_message(program, []))
        return 0
    path = program.file if clone == Path.cwd() else str(clone / program.file)
    command = [sys.executable, *interpreter_options(), path, *args]
    sys.stdout.flush()
    if os.name == "nt":  # exec of Windows ends this process, and with it the wait of the shell, at once
        return subprocess.call(command)
    os.execv(sys.executable, command)  # does not return


def find_clone(program: CloneProgram) -> Path | None:
    """Return the clone around the working directory, else the one that this package is part of, or None."""
    cwd = Path.cwd()
    for folder in (cwd, *cwd.parents, Path(__file__).resolve().parents[2]):
        if all((folder / name).is_file() for name in (program.file, *NEEDED)):
            return folder
    return None


def interpreter_options() -> list[str]:
    """Return the options of Python itself that this process was started with: ``-u`` of ``python -u -m detector``."""
    options = sys.orig_argv[1 : max(1, len(sys.orig_argv) - len(sys.argv))]
    return options[:-1] if options[-1:] in (["-m"], ["-c"]) else options


def no_clone_message(program: CloneProgram, args: list[str]) -> str:
    """Return why the program is not there, and how to run it."""
    repository = repository_address()
    folder = repository.rpartition("/")[2]
    return (
        f"detector {program.command} runs {program.file} of a clone, and there is none around {Path.cwd()}. pip installs "
        "the package detector alone, without data/ (which reads data sets), configs/ and the programs. Get them with\n"
        f"    git clone {repository} && cd {folder}\n"
        "    pip install -e .\n"
        f"    detector {' '.join([program.command, *args])}\n"
        "Then the command works in any folder. Without a clone, detector.DetectorModule trains in your own code, with a "
        "Trainer of Lightning and a dataloader of yours: docs/python.md"
    )


def repository_address() -> str:
    """Return the address of the repository from the metadata of the installed package."""
    try:
        urls = metadata("lightning-dyn-detector").get_all("Project-URL") or []
    except PackageNotFoundError:
        urls = []
    addresses = dict(url.split(", ", 1) for url in urls)
    return addresses.get("Repository", "ADDRESS/lightning-dyn-detector")
