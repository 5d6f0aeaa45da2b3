"""A DataLoader that names the image when a worker process fails or dies."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing import AuthenticationError, active_children
from pickle import UnpicklingError
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from data.sampler import SampleKey
from data.workers import held_signals, init_worker

WORKER_DEATH = "DataLoader worker (pid"  # the beginning of torch's error
# Errors that the main process may get while it reads from a worker that dies. RuntimeError: of the thread that pins memory.
CONNECTION_ERRORS = (OSError, EOFError, AuthenticationError, UnpicklingError, RuntimeError)
LONGEST_END = 5.0  # seconds that the end of a killed process may take


class DescribedDataset(Protocol):
    """A dataset by SampleKey that can say in words which image a key stands for."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: SampleKey | int) -> Any: ...

    def describe(self, key: SampleKey | int) -> str: ...


class WatchedDataset(Dataset):
    """Returns the samples of ``dataset``, and names the image in errors.

    Each worker writes its current key into ``current_keys``. So the main process can name the image even if the worker was
    killed and cannot report anything.
    """

    def __init__(self, dataset: DescribedDataset, num_workers: int) -> None:
        self.dataset = dataset
        # One row for each worker: process id, index, epoch, height, width.
        self.current_keys = torch.zeros(num_workers, 5, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: SampleKey | int) -> Any:
        worker = get_worker_info()
        if worker is not None:
            index, epoch, (height, width) = key if isinstance(key, tuple) else (key, 0, (0, 0))
            self.current_keys[worker.id] = torch.tensor([os.getpid(), index, epoch, height, width])
        try:
            return self.dataset[key]
        except Exception as error:
            error.add_note(f"This happened at {self.dataset.describe(key)}.")
            raise

    def has_worker_in(self, message: str) -> bool:
        """Return True if ``message`` has the process id of one of the workers."""
        return bool(_numbers(message) & set(self._process_ids()))

    def dead_workers(self) -> list[int]:
        """Return the process ids of the workers that have ended. Only the process that started them can know."""
        running = {process.pid for process in active_children()}
        return [process for process in self._process_ids() if process not in running]

    def _process_ids(self) -> list[int]:
        return [process for process in self.current_keys[:, 0].tolist() if process]

    def describe_workers(self, message: str) -> str:
        """Describe the samples of the workers whose process ids are in ``message``, or of all workers if none is."""
        rows = [row for row in self.current_keys.tolist() if row[0]]
        rows = [row for row in rows if row[0] in _numbers(message)] or rows
        lines = []
        for process, index, epoch, height, width in rows:
            key = SampleKey(index, epoch, (height, width)) if height else index
            lines.append(f"Worker process {process} was at {self.dataset.describe(key)}.")
        lines.append("If it was killed, memory may have run out: lower data.num_workers or data.batch_size.")
        return "\n    ".join(lines)


class WatchedLoader(DataLoader):
    """A DataLoader over a WatchedDataset. If a worker dies without an error of its own, the error names its image.

    With ``init_worker`` as ``worker_init_fn``, signals are held back from a worker until it is ready for them.
    """

    dataset: WatchedDataset

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch declares a private class
        # Not when workers go on with the next epoch: the main process waits for them, and must stay open to Ctrl-C.
        starts_workers = self.num_workers and (self._iterator is None or not self.persistent_workers)
        hold = starts_workers and self.worker_init_fn is init_worker  # no other function would stop holding them back
        if starts_workers:
            self.dataset.current_keys.zero_()  # of the workers of the epoch before, which have ended
        with _worker_errors(self.dataset), held_signals(self._start_method()) if hold else nullcontext():
            batches = super().__iter__()
        return _name_images_in_errors(batches, self.dataset)

    def check_worker_number_rationality(self) -> None:
        """Do not warn of many workers: the data module logs it once for all loaders."""

    def _start_method(self) -> str:
        """Return how workers are started: as Python does by default, but ``spawn`` for ``forkserver``, see held_signals."""
        method = (self.multiprocessing_context or torch.multiprocessing).get_start_method()
        if method == "forkserver":
            self.multiprocessing_context = method = "spawn"
        return method


def _name_images_in_errors(batches: Iterator[Any], dataset: WatchedDataset) -> Iterator[Any]:
    with _worker_errors(dataset):
        yield from batches


@contextmanager
def _worker_errors(dataset: WatchedDataset) -> Iterator[None]:
    """Replace an error that comes from the death of a worker by a RuntimeError that names its image."""
    try:
        yield
    except CONNECTION_ERRORS as error:
        if message := worker_death_message(error, dataset):
            raise RuntimeError(f"{message}\n    {dataset.describe_workers(message)}") from error
        raise


def worker_death_message(error: BaseException, dataset: WatchedDataset) -> str | None:
    """Return a message that a worker has died, or None if ``error`` is about something else.

    torch raises its own error from a signal handler, at any line of the main process. But if the main process is waiting for
    the worker's data, the error of the connection may come first; and Lightning removes torch's handler at the end of a fit.
    """
    message = str(error).strip()
    if not message.startswith((WORKER_DEATH, "Caught ")):  # "Caught": torch's word for an error that a worker has raised
        try:
            dead = _wait_for_dead_workers(dataset)
            message = f"{WORKER_DEATH} {', '.join(map(str, dead))}) has ended without an error of its own" if dead else ""
        except RuntimeError as late_error:  # of torch's signal handler
            message = str(late_error).strip()
    return message if message.startswith(WORKER_DEATH) else None


def _wait_for_dead_workers(dataset: WatchedDataset) -> list[int]:
    """Return the process ids of dead workers. A process that is killed closes its connections before it has ended."""
    deadline = time.monotonic() + LONGEST_END
    while not (dead := dataset.dead_workers()) and dataset.current_keys.any() and time.monotonic() < deadline:
        time.sleep(0.02)
    return dead


def _numbers(message: str) -> set[int]:
    return set(map(int, re.findall(r"\d+", message)))
