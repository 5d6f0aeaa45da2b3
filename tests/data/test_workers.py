"""The set-up and the end of worker processes."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

import pytest
import yaml

from data import CocoDataModule
from data.workers import init_worker

ROOT = Path(__file__).parents[2]


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
    workers = process.stdout.readline().split()[1:]
    assert len(workers) == 4, (tmp_path / "stderr").read_text()
    for pid in workers:  # as a terminal or a cluster does; workers ignore it
        os.kill(int(pid), signal.SIGINT)
        os.kill(int(pid), signal.SIGTERM)
    time.sleep(0.3)
    assert all(is_running(pid) for pid in workers)
    process.send_signal(signum)
    process.wait(60)
    process.stdout.close()
    deadline = time.monotonic() + 30
    while (running := [pid for pid in workers if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not running
    if signum == signal.SIGINT:  # a killed process cannot remove its temporary folder
        assert os.listdir(temporary) == []
    shutil.rmtree(temporary)
    left_over = [name for name in set(os.listdir("/dev/shm")) - shared if f"_{process.pid}_" in name]
    assert left_over == []


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
