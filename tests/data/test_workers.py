"""The set-up and the end of worker processes."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.util import get_temp_dir
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch.utils.data import Sampler

from data import CocoDataModule, workers
from data.watched_loader import WatchedDataset, WatchedLoader
from data.workers import held_signals, init_worker

ROOT = Path(__file__).parents[2]
SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}


def test_a_terminated_worker_does_not_remove_the_temporary_folder_of_the_main_process() -> None:
    """The workers of other loaders may have their sockets in it."""
    folder = Path(get_temp_dir())
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    worker = fork.Process(target=lambda: (init_worker(0), ready.set(), time.sleep(30)))
    worker.start()
    assert ready.wait(30)
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 0
    assert folder.is_dir()


class Order(Sampler):
    """The indices 0 to 3, and the signals that were held back when each epoch began."""

    def __init__(self) -> None:
        self.held: list[set[int]] = []

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[int]:
        self.held.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()) & SIGNALS)
        return iter(range(4))


def loader(**kwargs: Any) -> WatchedLoader:
    return WatchedLoader(WatchedDataset(range(4), 2), sampler=Order(), num_workers=2, worker_init_fn=init_worker, **kwargs)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An event that workers wait for before they handle any signal."""
    opened = multiprocessing.get_context("fork").Event()
    first_call = "torch.utils.data._utils.signal_handling._set_worker_signal_handlers"  # of a worker process
    monkeypatch.setattr(first_call, lambda: opened.wait(30))
    return opened


def send_from_another_process(signals: set[int], pids: list[int]) -> None:
    """As a terminal or a cluster does; a SIGTERM from this process, the parent, would rightly end its workers."""
    for signum in signals:
        subprocess.run(["sh", "-c", f"kill -{int(signum)} {' '.join(map(str, pids))}"], check=True)


@pytest.mark.parametrize("persistent", [True, False])
def test_signals_before_a_worker_is_ready_do_not_end_it(gate: Any, persistent: bool) -> None:
    others = set(multiprocessing.active_children())  # workers of other tests may still be there
    batches = iter(data := loader(persistent_workers=persistent))
    send_from_another_process(SIGNALS, [process.pid for process in set(multiprocessing.active_children()) - others])
    gate.set()
    assert torch.cat(list(batches)).tolist() == [0, 1, 2, 3]
    assert torch.cat(list(data)).tolist() == [0, 1, 2, 3]  # signals are not held back where running workers go on
    assert data.sampler.held == [SIGNALS, set() if persistent else SIGNALS]


def test_workers_end_if_the_main_process_ends_before_they_are_ready(gate: Any) -> None:
    """torch's own check takes the process that adopts them for the main process."""

    def start_workers(pids: Connection) -> None:
        batches = iter(loader())  # noqa: F841  kept until this process is killed
        pids.send([process.pid for process in multiprocessing.active_children()])
        time.sleep(30)

    receiver, sender = multiprocessing.Pipe(duplex=False)
    main = multiprocessing.get_context("fork").Process(target=start_workers, args=(sender,))
    main.start()
    pids = receiver.recv()
    main.kill()
    main.join()
    gate.set()
    left_over = running_after(10, pids)
    for pid in left_over:
        os.kill(pid, signal.SIGKILL)
    assert not left_over


def test_a_spawned_process_holds_signals_back_and_this_process_loses_none() -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda signum, frame: received.append(signum))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with held_signals("spawn"):
        process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0.1,))
        process.start()
        signal.raise_signal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)
    assert received == [signal.SIGUSR1]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    send_from_another_process(SIGNALS, [process.pid])
    process.join(30)
    assert process.exitcode == 0


def test_nothing_unblocks_the_signals_before_a_process_is_spawned(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[set[int]] = []
    tracker_start = lambda: held.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()) & SIGNALS)  # noqa: E731
    monkeypatch.setattr(workers.resource_tracker, "ensure_running", tracker_start)
    with held_signals("spawn"):
        pass
    assert held == [set()]


def test_signals_are_not_held_back_from_workers_that_would_not_handle_them() -> None:
    data = loader()
    data.worker_init_fn = None
    assert torch.cat(list(data)).tolist() == [0, 1, 2, 3]
    assert data.sampler.held == [set()]


def test_workers_are_spawned_where_python_uses_a_fork_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was started before the signals are held back, and its processes have its mask."""
    monkeypatch.setattr(torch.multiprocessing, "get_start_method", lambda: "forkserver")
    data = loader()
    assert data._start_method() == data._start_method() == "spawn"
    assert data.multiprocessing_context.get_start_method() == "spawn"


def test_a_temporary_folder_with_too_long_a_name_is_refused(
    tiny_arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python could not name its sockets in it, and training would wait for the first batch forever."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    CocoDataModule(**tiny_arguments | {"num_workers": 0})
    with pytest.raises(ValueError, match="too long a name for workers"):
        CocoDataModule(**tiny_arguments | {"num_workers": 2})


SCRIPT = """
import gc, signal, sys, time, yaml
gc.disable()  # imports are faster
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background processes without it
from data import CocoDataModule
data = CocoDataModule(**yaml.safe_load(open(sys.argv[1])))
train, val = data.train_dataloader(), data.val_dataloader()
iterators = iter(train), iter(val)
next(iterators[0]), next(iterators[1])
print("workers", *[p.pid for loader in (train, val) for p in loader._iterator._workers], flush=True)
while True:
    for batch in train:
        time.sleep(0.01)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_after_an_interrupt(tiny_arguments: dict[str, Any], tmp_path: Path, signum: int) -> None:
    """No worker process, nothing in the temporary folder, no shared memory."""
    (tmp_path / "arguments.yaml").write_text(yaml.safe_dump(tiny_arguments | {"num_workers": 2, "cache": "ram"}))
    temporary = tempfile.mkdtemp()  # tmp_path may be too long for sockets
    environment = os.environ | {"TMPDIR": temporary, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "arguments.yaml")]
    shared = set(os.listdir("/dev/shm"))
    with open(tmp_path / "stderr", "w") as stderr:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()[1:]]
    assert len(pids) == 4, (tmp_path / "stderr").read_text()
    for pid in pids:  # as a terminal or a cluster does; workers ignore it
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.3)
    assert all(is_running(pid) for pid in pids)
    process.send_signal(signum)
    process.wait(60)
    process.stdout.close()
    assert not running_after(30, pids)
    if signum == signal.SIGINT:  # a killed process cannot remove its temporary folder
        assert os.listdir(temporary) == []
    shutil.rmtree(temporary)
    left_over = [name for name in set(os.listdir("/dev/shm")) - shared if f"_{process.pid}_" in name]
    assert left_over == []


def running_after(seconds: float, pids: list[int]) -> list[int]:
    """Return which processes are still running after ``seconds``; less if all have ended before."""
    deadline = time.monotonic() + seconds
    while (running := [pid for pid in pids if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return running


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_more_workers_than_cores_are_logged_in_one_line(
    tiny_arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """torch would give a warning of four lines for each loader."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    with warnings.catch_warnings(record=True) as caught, caplog.at_level("INFO"):
        warnings.simplefilter("always")
        data = CocoDataModule(**tiny_arguments | {"num_workers": 4})
        data.train_dataloader(), data.val_dataloader()
    assert not [warning for warning in caught if "worker" in str(warning.message)]
    assert [text for text in caplog.messages if "num_workers" in text] == [
        "data.num_workers is 4 on 2 CPU cores: 2 workers are started, for the same samples"
    ]
    caplog.clear()
    with caplog.at_level("INFO"):
        CocoDataModule(**tiny_arguments | {"num_workers": 2})
    assert "num_workers" not in caplog.text


@pytest.mark.parametrize(("world_size", "nodes", "started"), [(2, 1, 3), (4, 2, 3), (4, 1, 1), (8, 1, 1), (1, 1, 4)])
def test_the_processes_of_a_machine_share_its_cores(
    tiny_arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch, world_size: int, nodes: int, started: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    data = CocoDataModule(**tiny_arguments | {"num_workers": 4})
    data.trainer = SimpleNamespace(world_size=world_size, num_nodes=nodes, global_rank=0)
    assert data.eval_dataloader("train").num_workers == started
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "12")  # of them, 6 are of this process alone
    assert workers.limited_workers(9, 2) == 6
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "6")
    texts: list[str] = []
    monkeypatch.setattr(workers, "rank_zero_info", texts.append)
    assert workers.limited_workers(4, 2) == 3
    assert texts == [
        "data.num_workers is 4 on 6 CPU cores for 2 processes: 3 workers are started by each, for the same samples"
    ]
