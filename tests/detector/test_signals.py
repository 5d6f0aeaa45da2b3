"""Processes that end with others. Signals to whole runs are in tests/test_resume.py and tests/test_train.py."""

import os
import select
import time

import pytest

from detector.signals import end_with_parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_process_whose_parent_was_killed_ends() -> None:
    """The grandchild holds the end of a pipe that closes when it is gone."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            end_with_parent(seconds=0.05)
            os.write(writing, b"here")
            time.sleep(60)
            os._exit(0)
        time.sleep(1)
        os._exit(0)  # without a word to its child
    os.close(writing)
    assert os.read(reading, 4) == b"here"
    os.waitpid(child, 0)
    ready, _, _ = select.select([reading], [], [], 30)
    assert ready
    assert os.read(reading, 1) == b""
    os.close(reading)
