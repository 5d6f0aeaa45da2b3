"""The callbacks of a training that write its checkpoints; ends by a bad image; options without an effect."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from detector.commands.run_cli import RunCLI
from detector.commands.train_cli import TrainCLI
from detector.imaging.read import BadImageError, UnreadKindError


@pytest.mark.parametrize(("val_batches", "names"), [(1.0, ["best", "last"]), (0, ["last"])])
def test_best_ckpt_is_of_the_highest_ap_and_is_written_before_last_ckpt(val_batches: float, names: list[str]) -> None:
    """last.ckpt holds the best AP so far, so best.ckpt comes first."""
    settings = {"trainer": {"enable_checkpointing": None, "limit_val_batches": val_batches}}
    callbacks = TrainCLI._checkpoint_callbacks(
        SimpleNamespace(config_init=settings, run_dir=Path("run"), monitor="val/AP", monitor_mode="max")
    )
    assert [callback.filename for callback in callbacks] == names
    watched = [(callback.monitor, callback.mode) for callback in callbacks if callback.filename == "best"]
    assert watched == [("val/AP", "max")] * len(watched)


WORKER = """Caught BadImageError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "data/reader.py", line 41, in add
    raise error
ValueError: of OpenCV

detector.imaging.read.BadImageError: a.jpg: is not a whole image; restore it
This happened at image a.jpg.
"""


@pytest.mark.parametrize("error", [BadImageError(WORKER), UnreadKindError("a.jpg: is not a whole image; restore it")])
def test_a_bad_image_ends_a_run_with_its_name_and_no_traceback(error: BadImageError, tmp_path: Path) -> None:
    """Here, and in a worker, whose traceback torch puts into the message."""
    if not str(error).startswith("Caught"):
        error.add_note("This happened at image a.jpg.")
    with pytest.raises(SystemExit) as stop, RunCLI.run_environment(SimpleNamespace(run_dir=tmp_path)):
        raise error
    assert stop.value.code == "error: a.jpg: is not a whole image; restore it\nThis happened at image a.jpg."


def epochs_of(max_epochs: int, every: int | None = 1, **asked: Any) -> SimpleNamespace:
    """Return what TrainCLI knows of a training of ``max_epochs`` that closes mosaic for 2."""
    trainer = SimpleNamespace(max_epochs=max_epochs, check_val_every_n_epoch=every)
    config = {"patience": None, "monitor": None} | asked
    return SimpleNamespace(
        trainer=trainer, config=config, config_init={"trainer": {"limit_val_batches": None}},
        datamodule=SimpleNamespace(num_closing_epochs=2, val_split=0.2),
        _without_validation=lambda: TrainCLI._without_validation(SimpleNamespace(datamodule=None)),
    )  # fmt: skip


@pytest.mark.filterwarnings("error")
def test_a_training_that_ends_before_its_first_validation_or_before_patience_is_warned_of() -> None:
    for sound in (epochs_of(9, 2, patience=3), epochs_of(7, patience=3), epochs_of(-1, 5, patience=3), epochs_of(5, 5)):
        TrainCLI._check_epochs(sound)
    with pytest.warns(
        UserWarning, match="patience 3 changes nothing in a training of 6 epochs: .* after 6 epochs, the last 2"
    ):
        TrainCLI._check_epochs(epochs_of(6, patience=3))
    with pytest.warns(UserWarning, match=r"check_val_every_n_epoch is 5, but the training has 4 epochs; .* no best\.ckpt"):
        TrainCLI._check_epochs(epochs_of(4, 5))
    with pytest.raises(ValueError, match=r"patience needs a validation; .* is 5, .* has 1 epoch: give a smaller number"):
        TrainCLI._check_epochs(epochs_of(1, 5, patience=1))
