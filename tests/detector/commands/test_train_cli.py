"""The callbacks of a training that write its checkpoints."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from detector.commands.train_cli import TrainCLI


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
