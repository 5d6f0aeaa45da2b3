"""The lock of a study, which its trainings keep if it is killed."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.compare import lock
from benchmarks.compare.lock import locked, note_processes


def test_two_processes_cannot_work_on_one_study(tmp_path: Path) -> None:
    with locked(tmp_path):
        for _ in range(2):  # a start that is refused changes nothing
            with (
                pytest.raises(ValueError, match=r"is in use: this study is running already \(process \d+"),
                locked(tmp_path),
            ):
                pass
    with locked(tmp_path):
        pass


def test_a_training_that_outlives_its_study_keeps_the_lock_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(tmp_path) as descriptor, monkeypatch.context() as patch:
        trainings = [subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[descriptor]) for _ in range(2)]
        patch.setattr(lock.os, "getpid", lambda: ended_process())  # of the study
        note_processes(descriptor, {trainings[0].pid: "plain_s0", ended_process(): "gone_s0", trainings[1].pid: "mine_s0"})
    first, second = (training.pid for training in trainings)
    message = (
        f"was killed, but its training of plain_s0 and mine_s0 goes on. .*stop it with: kill {first} {second}. It saves"
    )
    with pytest.raises(ValueError, match=message), locked(tmp_path):
        pass
    for training in trainings:
        training.communicate()
    with locked(tmp_path):
        pass


def ended_process() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid
