"""Processes that end with their parent, and know its folder. Whole runs on two processes are in tests/test_launch.py."""

import os
import select
import time
from pathlib import Path

import pytest

from detector.runs import launch
from detector.runs.launch import child_process_environment, end_with_parent, inherited_run_dir


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_process_whose_parent_was_killed_ends() -> None:
    """The grandchild holds the end of a pipe that closes when it is gone."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        parent = os.getpid()
        if os.fork() == 0:
            end_with_parent(parent, seconds=0.05)
            os.write(writing, b"here")
            time.sleep(60)
            os._exit(0)
        time.sleep(1)
        os._exit(0)  # sends no signal to its child
    os.close(writing)
    assert os.read(reading, 4) == b"here"
    os.waitpid(child, 0)
    ready, _, _ = select.select([reading], [], [], 30)
    assert ready
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_child_processes_inherit_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parents = []
    monkeypatch.setattr(launch, "end_with_parent", parents.append)
    assert inherited_run_dir() is None
    with child_process_environment(tmp_path) as is_child:
        assert not is_child
        assert inherited_run_dir() == tmp_path
        with child_process_environment(tmp_path / "other") as is_child:  # as in a process that Lightning has started
            assert is_child
            assert inherited_run_dir() == tmp_path
    assert parents == [os.getpid()]
    assert inherited_run_dir() is None
