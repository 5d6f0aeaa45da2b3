"""Runs that are stopped and resumed equal runs that are not."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from detector.callbacks import Patience
from tests.processes import exit_code, start_program
from tests.resuming import Kill, differences, fit, losses, run_on_two_processes

Arguments = dict[str, Any]

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_run_stopped_by_signals_equals_a_run_without_a_stop(tiny_arguments: Arguments, tmp_path: Path) -> None:
    """Stops within an epoch, in the last step of an epoch and between epochs, with and without worker processes."""
    arguments = tiny_arguments | {"batch_size": 2}  # four batches an epoch, two to a step
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert fit(arguments, straight) is None
    last = stopped / "last.ckpt"

    stop = fit(arguments | {"num_workers": 2}, stopped, Kill(0, 0, signum=signal.SIGINT))
    assert (stop.signum, stop.checkpoint) == (signal.SIGINT, last)
    assert losses(stopped) == losses(straight)[:2]  # two batches make an optimizer step
    assert torch.load(last, weights_only=True)["CocoDataModule"] == {"epoch": 0, "samples": 4, "step_batch": 2}

    stop = fit(arguments | {"num_workers": 2}, stopped, Kill(1, 3), resume=last)  # before the last step of the epoch
    assert stop.signum == signal.SIGTERM
    assert losses(stopped) == losses(straight)[:8]
    assert torch.load(last, weights_only=True)["epoch"] == 1

    fit(arguments, stopped, Kill(2, 0), resume=last)
    assert fit(arguments, stopped, resume=last) is None
    assert losses(stopped) == losses(straight)
    assert differences(straight / "last.ckpt", last) == []
    assert differences(straight / "best.ckpt", stopped / "best.ckpt") == []


def test_two_processes(tiny_arguments: Arguments, edit_json: Any, tmp_path: Path) -> None:
    """A run resumes after a signal to one process. Batches without objects, a frozen backbone and one branch do not hang."""
    annotations = edit_json("train", lambda content: None).parent
    content = json.loads((annotations / "train.json").read_text())
    (annotations / "empty.json").write_text(json.dumps(content | {"annotations": []}))
    arguments = tiny_arguments | {"batch_size": 1, "num_workers": 1}
    output = tmp_path / "output"
    program = start_program(run_on_two_processes, ["resuming", str(tmp_path), json.dumps(arguments)], output)
    assert exit_code(program) == 0, output.read_text()
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    for rank in (0, 1):
        assert losses(stopped, rank) == losses(straight, rank)
    assert differences(straight / "last.ckpt", stopped / "last.ckpt") == []
    for case in ("empty", "one branch"):
        assert len(losses(tmp_path / case)) == 2


def test_a_run_that_ends_early_resumes_to_the_bit(tiny_arguments: Arguments, tmp_path: Path) -> None:
    """A loss that should rise, and falls, gets no better: of 6 epochs, mosaic ends after 2 and training after 3."""
    arguments = tiny_arguments | {"batch_size": 4}
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"

    def run(folder: Path, *callbacks: Any, workers: int = 0, resume: Path | None = None) -> Any:
        patience = Patience(1, monitor="val/one2one/l1", mode="max")
        return fit(arguments | {"num_workers": workers}, folder, patience, *callbacks, max_epochs=6, resume=resume)

    run(straight)
    assert len(losses(straight)) == 3 * 2
    last = stopped / "last.ckpt"
    assert run(stopped, Kill(2, 0), workers=1).checkpoint == last  # its workers have seen that mosaic has ended
    run(stopped, resume=last)
    assert losses(stopped) == losses(straight)
    assert differences(straight / "last.ckpt", last) == []
