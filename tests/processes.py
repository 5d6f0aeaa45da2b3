"""Processes for tests, quickly: they are forked from one that has the large imports done and nothing else."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import subprocess_script

FORKSERVER = "forkserver"  # "fork" would inherit threads, "spawn" takes seconds a process
multiprocessing.set_forkserver_preload(["train", "detector.callbacks.coco_evaluation"])

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


def start_program(main: Callable[[list[str]], None], command: list[str], output: Path) -> BaseProcess:
    """Start a program: ``main`` with the arguments in ``command``, which begins with the path of the script.

    It is the leader of a process group, and uses one thread. ``output`` gets all that it and its processes print.
    """
    process = multiprocessing.get_context(FORKSERVER).Process(target=_run_program, args=(main, command, output))
    process.start()
    return process


class ForkedScript:
    """Stands in for ``subprocess.Popen`` of a Python script: a fork of this process calls ``main``, and imports nothing."""

    def __init__(self, main: Callable[[list[str]], None], command: list[str], env: dict[str, str], cwd: None) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.environ.clear()
            os.environ.update(env)
            _, *sys.argv = command
            try:
                main(sys.argv[1:])
            finally:
                os._exit(1)

    def poll(self) -> None:
        """Set ``returncode`` if the process has ended."""
        if self.returncode is None and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.returncode = 1

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)


def with_forks(main: Callable[[list[str]], None], arguments: list[str]) -> None:
    """Call ``main``; the processes that Lightning starts with the same command are forks."""
    with mock.patch.object(subprocess_script, "subprocess", SimpleNamespace(Popen=partial(ForkedScript, main))):
        main(arguments)


def exit_code(process: BaseProcess, seconds: float = 600) -> int:
    """Return the exit code of a program when it has ended. It is killed with its group after so many ``seconds``."""
    process.join(seconds)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode


def _run_program(main: Callable[[list[str]], None], command: list[str], output: Path) -> None:
    os.setsid()
    with open(output, "wb", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.argv = command
    sys.modules["__main__"].__spec__ = None  # so Lightning starts other processes of a run with the script, not with pytest
    main(command[1:])
