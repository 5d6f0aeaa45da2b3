"""Errors of worker processes name the image."""

import os
import signal
from typing import Any

import pytest

from data import Augmentation, CocoDataModule
from data.watched_loader import WatchedDataset, WatchedLoader


class FaultyDataset:
    """Sixteen numbers, one of which raises an error or kills the worker."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def __len__(self) -> int:
        return 16

    def __getitem__(self, key: int) -> int:
        if key == 9 and self.fault == "raises":
            raise OSError("out of luck")
        if key == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return key

    def describe(self, key: int) -> str:
        return f"image_{key}.png"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_comes_with_the_image(workers: int) -> None:
    loader = WatchedLoader(WatchedDataset(FaultyDataset("raises"), workers), batch_size=2, num_workers=workers)
    with pytest.raises(OSError, match="out of luck") as caught:
        list(loader)
    text = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    assert "This happened at image_9.png" in text


def test_a_worker_that_is_killed_is_reported_with_its_image() -> None:
    loader = WatchedLoader(WatchedDataset(FaultyDataset("dies"), 2), batch_size=2, num_workers=2, persistent_workers=True)
    with pytest.raises(RuntimeError, match=r"(?s)DataLoader worker \(pid.*was at image_9\.png.*memory may have run out"):
        list(loader)


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
