"""Patience: when training ends early, what is closed first, what the schedules do, and what a resumed run knows."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from detector.callbacks import Patience
from detector.callbacks.patience import earliest_end
from detector.training.base_module import BaseModule
from detector.training.schedule import Schedule


class Run:
    """A training whose validations have given values: what Patience reads and sets."""

    def __init__(self, folder: Path, closing: int = 2, max_epochs: int | None = 20) -> None:
        self.closed_from: int | None = None
        data = SimpleNamespace(
            num_closing_epochs=closing, close_mosaic_from=lambda epoch: setattr(self, "closed_from", epoch)
        )
        self.trainer = SimpleNamespace(
            sanity_checking=False, state=SimpleNamespace(fn="fit"), datamodule=data, default_root_dir=folder,
            fit_loop=SimpleNamespace(max_epochs=max_epochs), callback_metrics={}, current_epoch=0, max_epochs=max_epochs,
        )  # fmt: skip
        self.module = BaseModule()
        self.module._trainer = self.trainer

    def validate(self, callback: Patience, values: list[float], first: int = 0) -> int:
        """Let ``callback`` see the values of successive epochs; return the number of epochs after them."""
        for epoch, value in enumerate(values, start=first):
            self.trainer.current_epoch, self.trainer.callback_metrics = epoch, {callback.monitor: value}
            self.trainer.max_epochs = self.trainer.fit_loop.max_epochs
            callback.on_validation_end(self.trainer, self.module)
        return self.trainer.fit_loop.max_epochs


@pytest.mark.parametrize(
    ("mode", "values", "max_epochs"),
    [
        ("max", [0.1, 0.3, 0.2, 0.3, 0.2], 7),  # the best is of epoch 1, so the third epoch without a better one is 4
        ("min", [0.3, 0.1, 0.2, 0.1, 0.2], 7),
        ("max", [0.1, 0.3, 0.2, 0.2, 0.4, 0.1, 0.1], 20),
        ("max", [math.nan] * 4, 6),  # never better
        ("max", [-1.0, -1.0, -1.0, -1.0], 6),
    ],
)
def test_training_ends_after_the_closing_phase(tmp_path: Path, mode: str, values: list[float], max_epochs: int) -> None:
    run = Run(tmp_path)
    assert run.validate(Patience(3, mode=mode), values) == max_epochs
    assert run.closed_from == (None if max_epochs == 20 else max_epochs - 2)


def test_only_the_monitored_number_counts(tmp_path: Path) -> None:
    """Of a number that falls and one that rises."""
    for monitor, max_epochs in (("val/AP", 4), ("val/AP50", 20)):
        run, callback = Run(tmp_path), Patience(1, monitor=monitor)
        for run.trainer.current_epoch in range(2):
            run.trainer.callback_metrics = {
                "val/AP": 0.3 - run.trainer.current_epoch / 10,
                "val/AP50": 0.3 + run.trainer.current_epoch / 10,
            }
            run.trainer.max_epochs = run.trainer.fit_loop.max_epochs
            callback.on_validation_end(run.trainer, run.module)
        assert run.trainer.fit_loop.max_epochs == max_epochs


def test_patience_is_the_number_of_epochs_without_a_better_value(tmp_path: Path) -> None:
    values = [0.3, 0.2, 0.2, 0.2]
    assert [Run(tmp_path).validate(Patience(patience), values) for patience in (1, 2, 3, 4)] == [4, 5, 6, 20]


def test_without_closing_phase_training_ends_at_once(tmp_path: Path) -> None:
    assert Run(tmp_path, closing=0).validate(Patience(1), [0.2, 0.1]) == 2
    run = Run(tmp_path)
    run.trainer.datamodule = None  # plain dataloaders
    assert run.validate(Patience(1), [0.2, 0.1]) == 2


def test_a_closing_phase_that_has_begun_goes_on_as_planned(tmp_path: Path) -> None:
    """Of 5 epochs with 2 of closing, the decision after epoch 2 (counted from 0) would change nothing."""
    run = Run(tmp_path, max_epochs=5)
    assert run.validate(Patience(2), [0.3, 0.2, 0.2, 0.2]) == 5
    assert run.closed_from is None


def test_log_and_record_say_when_and_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("run.json", "run-2.json"):  # the second start of the run
        (tmp_path / name).write_text('{"command": "train"}')
    Run(tmp_path).validate(Patience(2), [0.25, 0.2, 0.2])
    reason = (
        "patience: val/AP was no better for 2 epochs (the best is 0.25 of epoch 1): mosaic ends now, and training after 2"
    )
    assert f"{reason} epochs, with epoch 5" in caplog.text
    record = json.loads((tmp_path / "run-2.json").read_text())
    assert record.pop("patience") == {"decided_after_epoch": 3, "last_epoch": 5, "reason": f"{reason} epochs"}
    assert record == {"command": "train"}
    assert "patience" not in json.loads((tmp_path / "run.json").read_text())


@pytest.mark.parametrize("known", [1, 4])  # before and after the decision
def test_a_resumed_run_decides_the_same(tmp_path: Path, known: int, caplog: pytest.LogCaptureFixture) -> None:
    values = [0.3, 0.2, 0.2, 0.2, 0.4]
    first, run = Patience(2), Run(tmp_path)
    run.validate(first, values[:known])
    resumed, again = Patience(2), Run(tmp_path)
    checkpoint: dict[str, Any] = {"callbacks": {first.state_key: json.loads(json.dumps(first.state_dict()))}}
    caplog.clear()
    resumed.on_load_checkpoint(again.trainer, again.module, checkpoint)
    text = "patience has decided after epoch 3 that this run ends with epoch 5; it goes on as planned with --patience null"
    assert caplog.messages == ([text] if known == 4 else [])
    assert again.validate(resumed, values[known:], first=known) == 5
    assert (again.closed_from, again.module._early_end) == (3, (3, 5, 20))
    other = Patience(2, monitor="val/AP50")  # has values of its own
    other.load_state_dict(first.state_dict())
    assert other.best is None


@pytest.mark.parametrize(("max_epochs", "end"), [(4, 4), (5, 5), (30, 5), (-1, 5), (None, 5)])
def test_a_resumed_run_may_end_before_the_decision_says(tmp_path: Path, max_epochs: int | None, end: int) -> None:
    first = Patience(2)
    Run(tmp_path).validate(first, [0.3, 0.2, 0.2])
    again = Run(tmp_path, max_epochs=max_epochs)
    checkpoint = {"callbacks": {first.state_key: first.state_dict()}}
    Patience(2).on_load_checkpoint(again.trainer, again.module, checkpoint)
    assert again.trainer.fit_loop.max_epochs == end


def test_the_schedules_run_to_their_end_in_the_closing_phase(tmp_path: Path) -> None:
    """Of 20 epochs, 5 are as planned; the 15 others are passed in 2 epochs, 7.5 in each."""
    run = Run(tmp_path)
    run.validate(Patience(2), [0.1, 0.1, 0.3, 0.2, 0.2])
    positions = []
    for run.trainer.current_epoch in range(7):
        positions.append(run.module.schedule_epoch)
    assert positions == [0, 1, 2, 3, 4, 5, 12.5]
    assert run.module.planned_epochs == 20
    schedule = Schedule(20, final_ratio=0.0)
    assert [schedule.decay_factor(position) for position in positions[-3:]] == [0.8, 0.75, 0.375]


@pytest.mark.parametrize(
    ("patience", "every", "closing", "epochs"), [(3, 1, 2, 6), (3, 2, 2, 8), (4, 2, 0, 6), (1, 5, 1, 11)]
)
def test_the_earliest_end(tmp_path: Path, patience: int, every: int, closing: int, epochs: int) -> None:
    """Of a training whose first validation is the best: it ends then, and not if it has no more epochs than that."""
    assert earliest_end(patience, every, closing) == epochs
    for planned, end in ((epochs + 1, epochs), (epochs, epochs)):
        run, callback = Run(tmp_path, closing, planned), Patience(patience)
        for number, epoch in enumerate(range(every - 1, epochs, every)):
            run.validate(callback, [-float(number)], epoch)
        assert run.trainer.fit_loop.max_epochs == end
        assert (callback.end_epoch is None) == (planned == epochs)


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    for patience in (0, -3, 1.5):
        with pytest.raises(ValueError, match=r"patience is .*; expected a whole number, 1 or more"):
            Patience(patience)
    with pytest.raises(ValueError, match="mode is 'maximum'; expected 'max' or 'min'"):
        Patience(2, mode="maximum")
    run = Run(tmp_path)
    with pytest.raises(ValueError, match="the validation has not logged val/AP; set monitor to one of its numbers"):
        Patience(2).on_validation_end(run.trainer, run.module)
