"""Processes for tests, quickly: they are forked from one that has the large imports done and nothing else."""

import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

FORKSERVER = "forkserver"  # "fork" would inherit threads, "spawn" takes seconds a process
multiprocessing.set_forkserver_preload(["detector", "detector.callbacks.coco_evaluation", "data", "lightning.pytorch"])

Processes = Callable[[int], dict[str, Any]]


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Give what a Trainer takes to run on so many processes."""

    def options(devices: int) -> dict[str, Any]:
        return {"devices": devices} | ({"strategy": DDPStrategy(start_method=FORKSERVER)} if devices > 1 else {})

    before = torch.multiprocessing.get_sharing_strategy()
    torch.multiprocessing.set_sharing_strategy("file_system")  # a module has more tensors than descriptors can be sent
    yield options
    torch.multiprocessing.set_sharing_strategy(before)
