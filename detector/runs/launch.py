"""The processes of a run: what a process passes on to those that Lightning starts, and how they end with it."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detector.text import plural

RUN_DIR_VARIABLE, PARENT_VARIABLE = "DETECTOR_RUN_DIR", "DETECTOR_PARENT"


@contextmanager
def child_process_environment(run_dir: Path) -> Iterator[bool]:
    """Set environment variables for the processes that Lightning starts; yield True if this is one of them.

    A child process writes into the folder of its parent and ends with its parent.
    """
    if RUN_DIR_VARIABLE in os.environ:
        end_with_parent(int(os.environ[PARENT_VARIABLE]))
        yield True
        return
    os.environ |= {RUN_DIR_VARIABLE: str(run_dir), PARENT_VARIABLE: str(os.getpid())}
    try:
        yield False
    finally:
        del os.environ[RUN_DIR_VARIABLE], os.environ[PARENT_VARIABLE]


def inherited_run_dir() -> Path | None:
    """Return the run folder of the parent process if Lightning has started this process, else None."""
    return Path(folder) if (folder := os.environ.get(RUN_DIR_VARIABLE)) else None


def end_with_parent(parent: int, seconds: float = 2.0) -> None:
    """End this process when the process ``parent`` is gone, even if it was killed; a thread looks every few ``seconds``.

    Otherwise a process that waits for the others of a run in a collective can wait for a long time.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def check_torchrun(world_size: int) -> None:
    """Raise ValueError if torchrun has started more or fewer processes than the Trainer's ``world_size``.

    Each process would train by itself, into the same folder.
    """
    processes = int(os.environ.get("WORLD_SIZE", 1)) if "TORCHELASTIC_RUN_ID" in os.environ else world_size
    if processes != world_size:
        raise ValueError(
            f"torchrun has started {plural(processes, 'process', 'processes')}, but trainer.devices x trainer.num_nodes "
            f"is {world_size}: give --trainer.devices (and --trainer.num_nodes) as torchrun was given them"
        )
