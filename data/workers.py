"""Worker processes: one thread each, and when one fails or dies, it is known which image it was at."""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing import current_process
from multiprocessing.util import get_temp_dir
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

MAX_SOCKET_PATH = 103  # bytes that every system allows in the name of a socket; Linux has 4 more


class Describable(Protocol):
    """A dataset that can tell in words what a key stands for."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: Any) -> Any: ...
    def describe(self, key: Any) -> str: ...


def check_temporary_folder() -> None:
    """Raise a ValueError if the sockets that batches go through cannot have a name: workers would then wait for ever."""
    folder = tempfile.gettempdir()
    if len(f"{folder}/pymp-12345678/listener-12345678".encode()) > MAX_SOCKET_PATH:
        raise ValueError(
            f"the temporary folder {folder} has too long a name for workers to send batches through; set TMPDIR to another "
            "folder, or data.num_workers to 0"
        )


def init_worker(worker_id: int) -> None:
    """One thread per worker process: more would compete with the other workers.

    Signals that are meant for the run often reach every process of it: Ctrl-C does, and so does a cluster that wants its
    machine back. Workers then go on, so that the training process can finish its step; they end when that tells them to.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for signum in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)
    # If the main process has a temporary folder already, a forked worker inherits its name, and must not remove it.
    current_process()._config.pop("tempdir", None)
    # A program that ends, interrupted or not, terminates its workers, and torch's own handler leaves this folder behind.
    folder = get_temp_dir()  # has the socket that batches go through
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, args=(os.getppid(), folder), daemon=True).start()
    else:  # macOS
        signal.signal(signal.SIGTERM, lambda signum, frame: _leave(folder))


def _obey_parent(parent: int, folder: str) -> None:
    """Wait for a SIGTERM that the process ``parent`` has sent; those of others are meant for the run."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    _leave(folder)


def _leave(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


class WatchedDataset(Dataset):
    """Passes on what ``dataset`` gives. Errors are told which image they are about, and workers write down where they
    are, for the case that one is killed and cannot tell any more.
    """

    def __init__(self, dataset: Describable, num_workers: int) -> None:
        self.dataset = dataset
        self.board = torch.zeros(num_workers, 5, dtype=torch.int64).share_memory_()  # process, then the key in numbers

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Any) -> Any:
        worker = get_worker_info()
        if worker is not None:
            index, epoch, (height, width) = key if isinstance(key, tuple) else (key, 0, (0, 0))
            self.board[worker.id] = torch.tensor([os.getpid(), index, epoch, height, width])
        try:
            return self.dataset[key]
        except Exception as error:
            error.add_note(f"This happened at {self.dataset.describe(key)}.")
            raise

    def whereabouts(self, message: str) -> str:
        """Say what the workers were at whose process number is in ``message``, or all if none is."""
        rows = [row for row in self.board.tolist() if row[0]]
        rows = [row for row in rows if str(row[0]) in message] or rows
        keys = [(index, epoch, (height, width)) if height else index for _, index, epoch, height, width in rows]
        lines = [f"Worker process {row[0]} was at {self.dataset.describe(key)}." for row, key in zip(rows, keys)]
        return "\n    ".join(
            [*lines, "If it was killed, memory may have run out: lower data.num_workers or data.batch_size."]
        )


class WatchedLoader(DataLoader):
    """A DataLoader over a WatchedDataset: a worker that dies without an error of its own, killed for want of memory say,
    is reported with the image it was at.
    """

    def __iter__(self) -> Iterator[Any]:
        return _Watched(super().__iter__(), self.dataset)


class _Watched:
    def __init__(self, batches: Iterator[Any], dataset: WatchedDataset) -> None:
        self.batches, self.dataset = batches, dataset

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self.batches)
        except (RuntimeError, OSError, EOFError) as error:
            if message := death_notice(error):
                raise RuntimeError(f"{message}\n    {self.dataset.whereabouts(message)}") from error
            raise


def death_notice(error: BaseException) -> str | None:
    """Return torch's message that a worker has died, or None if ``error`` is about something else.

    torch raises it from a signal handler, wherever the main process happens to be. If that is waiting for the worker's
    data, then the broken connection may be noticed first.
    """
    if isinstance(error, ConnectionError | EOFError | FileNotFoundError) and not str(error).startswith("Caught "):
        try:
            time.sleep(1.0)  # for the signal to come
        except RuntimeError as late:
            error = late
    message = str(error).strip()
    return message if message.startswith("DataLoader worker (pid") else None
