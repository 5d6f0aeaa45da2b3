"""The lock of a study: one process works in its folder. Trainings inherit it, so that no other starts beside one of them."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = "lock"
STUDY = "study"  # in the file, the name of the process of the study; trainings have the names of their runs


@contextmanager
def locked(out: Path) -> Iterator[int]:
    """Keep other processes out of ``out``; yield the lock, which trainings inherit.

    Raises ValueError if it is taken, with the processes that have it.
    """
    with (out / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(_in_use(out)) from None
        note_processes(file.fileno(), {})
        yield file.fileno()


def note_processes(lock: int, trainings: Mapping[int, str]) -> None:
    """Write this process, and the run of each process in ``trainings``, into the file of ``lock``: for ``_in_use``."""
    lines = [f"{process} {name}\n" for process, name in ({os.getpid(): STUDY} | dict(trainings)).items()]
    os.ftruncate(lock, 0)
    os.write(lock, "".join(lines).encode())


def _in_use(out: Path) -> str:
    """Return who works in ``out``, and what to do."""
    noted = [line.split(maxsplit=1) for line in (out / LOCK).read_text().splitlines()]
    running = {process: name for process, name in noted if _is_running(int(process))}
    trainings = [process for process, name in running.items() if name != STUDY]
    if len(trainings) == len(running) > 0:
        names = " and ".join(running[process] for process in trainings)
        return (
            f"{out} is in use: the study was killed, but its training of {names} goes on. Wait until it has ended, or stop "
            f"it with: kill {' '.join(trainings)}. It saves a checkpoint, from which the next start of the study continues"
        )
    processes = ", ".join(running) or "unknown"
    return f"{out} is in use: this study is running already (process {processes}); wait until it has ended, or stop it"


def _is_running(process: int) -> bool:
    with suppress(ProcessLookupError):
        with suppress(PermissionError):  # of another user
            os.kill(process, 0)
        return True
    return False
