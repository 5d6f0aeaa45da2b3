"""Worker processes: one thread each, and when one fails or dies, it is known which picture it was at."""

import os
from collections.abc import Iterator
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info


class Describable(Protocol):
    """A dataset that can tell in words what a key stands for."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: Any) -> Any: ...
    def describe(self, key: Any) -> str: ...


def init_worker(worker_id: int) -> None:
    """One thread per worker process: more would compete with the other workers."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


class WatchedDataset(Dataset):
    """Passes on what ``dataset`` gives. Errors are told which picture they are about, and workers write down where they
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

    def whereabouts(self, message: str) -> list[str]:
        """Return what the workers whose process number is in ``message`` were at, or all if none is."""
        rows = [row for row in self.board.tolist() if row[0]]
        rows = [row for row in rows if str(row[0]) in message] or rows
        keys = [(index, epoch, (height, width)) if height else index for _, index, epoch, height, width in rows]
        return [f"worker process {row[0]} was at {self.dataset.describe(key)}" for row, key in zip(rows, keys)]


class WatchedLoader(DataLoader):
    """A DataLoader over a WatchedDataset: a worker that dies without an error of its own, killed for want of memory say,
    is reported with the picture it was at.
    """

    def __iter__(self) -> Iterator[Any]:
        return _Watched(super().__iter__(), self.dataset)


class _Watched:
    def __init__(self, batches: Iterator[Any], dataset: Dataset) -> None:
        self.batches, self.dataset = batches, dataset

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self.batches)
        except RuntimeError as error:
            message = str(error).strip()
            if not message.startswith("DataLoader worker (pid"):  # an error inside a worker has its own note
                raise
            lines = "\n    ".join(self.dataset.whereabouts(message))
            advice = "If it was killed, memory may have run out: lower data.num_workers or data.batch_size."
            raise RuntimeError(f"{message}\n    {lines}\n{advice}") from error
