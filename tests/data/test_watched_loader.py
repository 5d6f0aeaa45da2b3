"""Errors of worker processes name the image."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import AuthenticationError
from pickle import UnpicklingError
from typing import Any

import pytest
import torch
from torch.utils.data import dataloader
from torch.utils.data._utils import signal_handling

from data import Augmentation, CocoDataModule, watched_loader
from data.watched_loader import WatchedDataset, WatchedLoader


@pytest.fixture(autouse=True)
def torch_signal_handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the first loader with workers set torch's handler of SIGCHLD, as in a new process."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    yield
    signal.signal(signal.SIGCHLD, before)


class FaultyDataset:
    """Sixteen numbers, one of which raises an error or kills the worker."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def __len__(self) -> int:
        return 16

    def __getitem__(self, key: int) -> int:
        if key == 9 and self.fault == "raises":
            raise OSError("out of luck")
        if key == 9 and self.fault == "stops":
            time.sleep(60)
        if key == 9 and self.fault == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        return key

    def describe(self, key: int) -> str:
        return f"image_{key}.png"


Loader = Callable[[str, int], WatchedLoader]


@pytest.fixture
def loader() -> Iterator[Loader]:
    """Make a loader of batches of two with a fault and a number of workers, which end with the test.

    If they were left to garbage collection, it could close their pipes first, and then wait 5 seconds for each.
    """
    loaders: list[WatchedLoader] = []

    def make(fault: str, workers: int) -> WatchedLoader:
        dataset = WatchedDataset(FaultyDataset(fault), workers)
        loaders.append(WatchedLoader(dataset, batch_size=2, num_workers=workers, persistent_workers=workers > 0))
        return loaders[-1]

    yield make
    for made in loaders:
        if made._iterator is not None:
            made._iterator._shutdown_workers()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_comes_with_the_image(workers: int, loader: Loader) -> None:
    with pytest.raises(OSError, match="out of luck") as caught:
        list(loader("raises", workers))
    text = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    assert "This happened at image_9.png" in text


def test_a_worker_that_is_killed_is_reported_with_its_image(loader: Loader) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)DataLoader worker \(pid.*was at image_9\.png.*memory may have run out"):
        list(loader("dies", 2))


def test_a_connection_that_breaks_before_its_worker_has_ended(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """The main process may read from the worker at that moment. After a first fit, no signal tells it of the end."""
    stopping = loader("stops", 2)
    batches, dataset = iter(stopping), stopping.dataset
    next(batches)  # then the first worker gets the batch with number 9
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # as Lightning does at the end of a fit
    while not (dataset.current_keys[:, 1] == 9).any():
        time.sleep(0.01)
    pid = int(dataset.current_keys[0, 0])
    error = ConnectionResetError(104, "Connection reset by peer")

    def read(self: Any, timeout: float = 5.0) -> None:
        monkeypatch.setattr(dataset, "dead_workers", ends_late)
        raise error

    def ends_late() -> list[int]:
        monkeypatch.undo()
        os.kill(pid, signal.SIGKILL)
        return []

    monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter, "_try_get_data", read)
    with pytest.raises(RuntimeError) as caught:
        list(batches)
    first, second, third = str(caught.value).splitlines()
    assert first == f"DataLoader worker (pid {pid}) has ended without an error of its own"
    assert second == f"    Worker process {pid} was at image_9.png."
    assert "memory may have run out" in third
    assert caught.value.__cause__ is error


class Workers(WatchedDataset):
    """A dataset with two workers. The second is seen to have ended at the second look, if ``end``."""

    def __init__(self, end: bool) -> None:
        super().__init__(FaultyDataset("none"), 2)
        self.current_keys[:, 0] = torch.tensor([12, 123])
        self.end, self.looks = end, 0

    def dead_workers(self) -> list[int]:
        self.looks += 1
        return [123] * (self.end and self.looks > 1)


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(32, "Broken pipe"),
        FileNotFoundError(2, "No such file or directory"),  # the socket of the worker
        OSError("got end of file during message"),
        EOFError(),
        UnpicklingError("pickle data was truncated"),
        AuthenticationError("digest received was wrong"),
        RuntimeError("Pin memory thread exited unexpectedly"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_the_connection_is_the_death_of_a_worker_or_itself(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match=r"^DataLoader worker \(pid 123\) has ended"):
        list(watched_loader._name_images_in_errors(raising(error), Workers(end=True)))
    monkeypatch.setattr(watched_loader, "LONGEST_END", 0.05)
    with pytest.raises(type(error)) as caught:
        list(watched_loader._name_images_in_errors(raising(error), Workers(end=False)))
    assert caught.value is error


def raising(error: Exception) -> Iterator[int]:
    yield 1
    raise error


def test_only_errors_that_may_come_from_a_death_wait_for_it(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waits"))
    with pytest.raises(OSError, match="out of luck"):  # without workers
        list(loader("raises", 0))
    for error in (OSError("Caught OSError in DataLoader worker process 0."), ValueError("a sampler's")):
        with pytest.raises(type(error), match=str(error)):
            list(watched_loader._name_images_in_errors(raising(error), Workers(end=True)))


def test_a_worker_that_dies_between_two_epochs_is_reported(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = loader("none", 1)
    assert len(list(dying)) == 8

    def dies(self: Any, *_: Any) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.kill(int(dying.dataset.current_keys[0, 0]), signal.SIGKILL)
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter, "_reset", dies)
    with pytest.raises(RuntimeError, match=r"(?s)DataLoader worker \(pid.*was at image_15\.png"):
        iter(dying)


def test_process_ids_are_compared_as_numbers() -> None:
    dataset = Workers(end=False)
    dataset.current_keys[:, 1] = torch.tensor([3, 4])
    assert dataset.has_worker_in("DataLoader worker (pid(s) 5, 123) exited unexpectedly")
    assert not dataset.has_worker_in("DataLoader worker (pid 1234) is killed by signal: Killed.")
    assert "image_3.png" not in dataset.describe_workers("DataLoader worker (pid 123) is killed by signal: Killed.")


def test_all_images_of_a_mosaic_are_named(tiny_arguments: dict[str, Any]) -> None:
    arguments = tiny_arguments | {"augment": Augmentation(mixup=1, close_mosaic=0), "num_workers": 1}
    dataset = CocoDataModule(**arguments).train_dataloader().dataset
    dataset.dataset.pipeline = None  # raises an error when it is called
    with pytest.raises(AttributeError) as caught:
        dataset[next(iter(CocoDataModule(**arguments).train_dataloader().sampler))]
    (note,) = caught.value.__notes__
    assert note.count("image_") == 8
    assert "epoch 0" in note


def test_a_worker_that_dies_during_a_step_is_reported_with_its_image(tiny_arguments: dict[str, Any]) -> None:
    data = CocoDataModule(**tiny_arguments | {"num_workers": 2})
    loader = data.train_dataloader()
    batches = iter(loader)
    next(batches)
    pid = int(loader.dataset.current_keys[0, 0])
    error = RuntimeError(f"DataLoader worker (pid {pid}) is killed by signal: Killed. ")
    data.on_exception(error)
    (note,) = error.__notes__
    assert note.startswith(f"Worker process {pid} was at training image ")
    assert note.count("Worker process") == 1
    other = RuntimeError("something else")
    data.on_exception(other)
    assert not hasattr(other, "__notes__")
