"""The output of pycocotools is off, in one thread and in several."""

import sys
from threading import Event, Thread

import pytest

from detector.evaluation.silence import silent


def test_nothing_is_printed_and_the_output_comes_back_whatever_the_order_of_threads(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # restored, if the test fails
    first_is_in, second_is_in, first_is_out = Event(), Event(), Event()

    def first() -> None:
        with silent():
            print("first")
            first_is_in.set()
            second_is_in.wait(0.1)  # it must wait for this thread
        first_is_out.set()

    def second() -> None:
        first_is_in.wait()
        with silent():
            print("second")
            second_is_in.set()
            first_is_out.wait(1)

    threads = [Thread(target=first), Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("after")
    assert capsys.readouterr().out == "after\n"
