"""Worker processes that fail, die or are interrupted."""

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

from data import Augmentation, CocoDataModule
from data.workers import WatchedDataset, WatchedLoader, init_worker

ROOT = Path(__file__).parents[2]


class Picky:
    """Sixteen numbers, one of which makes trouble."""

    def __init__(self, trouble: str) -> None:
        self.trouble = trouble

    def __len__(self) -> int:
        return 16

    def __getitem__(self, key: int) -> int:
        if key == 9 and self.trouble == "raises":
            raise OSError("out of luck")
        if key == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return key

    def describe(self, key: int) -> str:
        return f"image_{key}.png"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_comes_with_the_image(workers: int) -> None:
    loader = WatchedLoader(WatchedDataset(Picky("raises"), workers), batch_size=2, num_workers=workers)
    with pytest.raises(OSError, match="out of luck") as caught:
        list(loader)
    text = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    assert "This happened at image_9.png" in text


def test_a_worker_that_is_killed_is_reported_with_its_image() -> None:
    loader = WatchedLoader(WatchedDataset(Picky("dies"), 2), batch_size=2, num_workers=2, persistent_workers=True)
    with pytest.raises(RuntimeError, match=r"(?s)DataLoader worker \(pid.*was at image_9\.png.*memory may have run out"):
        list(loader)


def test_a_worker_that_is_ended_leaves_the_main_process_its_temporary_folder() -> None:
    """Other loaders' workers may have their sockets there."""
    mine = Path(get_temp_dir())
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    worker = fork.Process(target=lambda: (init_worker(0), ready.set(), time.sleep(30)))
    worker.start()
    assert ready.wait(30)
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 0
    assert mine.is_dir()


def test_all_images_of_a_mosaic_are_named(tiny_arguments: dict[str, Any]) -> None:
    arguments = tiny_arguments | {"augment": Augmentation(mixup=1, close_mosaic=0), "num_workers": 1}
    dataset = CocoDataModule(**arguments).train_dataloader().dataset
    dataset.dataset.pipeline = None  # fails when it is called
    with pytest.raises(AttributeError) as caught:
        dataset[next(iter(CocoDataModule(**arguments).train_dataloader().sampler))]
    (note,) = caught.value.__notes__
    assert note.count("image_") == 8
    assert "epoch 0" in note


def test_a_worker_that_dies_while_a_step_is_computed_is_known_too(tiny_arguments: dict[str, Any]) -> None:
    data = CocoDataModule(**tiny_arguments | {"num_workers": 2})
    loader = data.train_dataloader()
    batches = iter(loader)
    next(batches)
    pid = int(loader.dataset.board[0, 0])
    error = RuntimeError(f"DataLoader worker (pid {pid}) is killed by signal: Killed. ")
    data.on_exception(error)
    (note,) = error.__notes__
    assert note.startswith(f"Worker process {pid} was at training image ")
    assert note.count("Worker process") == 1
    other = RuntimeError("something else")
    data.on_exception(other)
    assert not hasattr(other, "__notes__")


def test_a_temporary_folder_with_too_long_a_name_is_refused(
    tiny_arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python could not name its sockets in it, and training would wait for the first batch for ever."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    CocoDataModule(**tiny_arguments | {"num_workers": 0})
    with pytest.raises(ValueError, match="too long a name for workers"):
        CocoDataModule(**tiny_arguments | {"num_workers": 2})


SCRIPT = """
import gc, signal, sys, time, yaml
gc.disable()  # imports are faster
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is in the background without it
from data import CocoDataModule
data = CocoDataModule(**yaml.safe_load(open(sys.argv[1])))
train, val = data.train_dataloader(), data.val_dataloader()
iterators = iter(train), iter(val)
next(iterators[0]), next(iterators[1])
print("workers", *[p.pid for i in iterators for p in i.batches._workers], flush=True)
while True:
    for batch in train:
        time.sleep(0.01)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_after_an_interrupt(tiny_arguments: dict[str, Any], tmp_path: Path, how: int) -> None:
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
    for pid in workers:  # as a terminal or a cluster does; they leave it to the process that they work for
        os.kill(int(pid), signal.SIGINT)
        os.kill(int(pid), signal.SIGTERM)
    time.sleep(0.3)
    assert all(is_running(pid) for pid in workers)
    process.send_signal(how)
    process.wait(60)
    process.stdout.close()
    deadline = time.monotonic() + 30
    while (left := [pid for pid in workers if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    if how == signal.SIGINT:  # otherwise Python has no chance to tidy its temporary folder
        assert os.listdir(temporary) == []
    shutil.rmtree(temporary)
    ours = [name for name in set(os.listdir("/dev/shm")) - shared if f"_{process.pid}_" in name]
    assert ours == []


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
