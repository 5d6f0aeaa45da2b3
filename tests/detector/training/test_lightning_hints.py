"""Hints of Lightning that do not apply stay out of the log; every other warning stays."""

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from detector.training.lightning_hints import hide_hints
from tests.detector.training.test_module import loader, module, trainer

HINT = "The 'train_dataloader' does not have many workers which may be a bottleneck."


def test_only_these_hints_of_lightning_are_hidden(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hide_hints()
        for text, source in ((HINT, "lightning.pytorch.trainer"), (HINT, "mine"), ("Other", "lightning.pytorch.trainer")):
            warnings.warn_explicit(text, UserWarning, "file.py", 1, module=source)
    assert [str(warning.message) for warning in caught] == [HINT, "Other"]
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    filters = list(log.filters)
    hide_hints()
    assert log.filters == filters  # not once more for every module
    with caplog.at_level("INFO"):
        log.info("Tip: For seamless cloud logging, try installing litlogger")
        log.info("a tip: lower the learning rate")
    assert caplog.messages == ["a tip: lower the learning rate"]


def test_python_use_is_as_quiet_as_train_py_and_lists_what_is_frozen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Warning(L.Callback):
        def on_train_start(self, *_: Any) -> None:
            warnings.warn("mine", stacklevel=1)

    with warnings.catch_warnings(record=True) as caught, caplog.at_level("INFO"):
        warnings.simplefilter("always")
        model = module(freeze=["backbone", "neck.top_down.0"])
        settings = {"callbacks": [Warning()], "limit_train_batches": 1, "logger": None, "enable_checkpointing": True}
        trainer(tmp_path, **settings).fit(model, loader(2, 2), loader(2, 2))
    assert [str(warning.message) for warning in caught if warning.category is not DeprecationWarning] == ["mine"]
    assert "Tip" not in caplog.text
    assert "\n    neck.top_down.0: " in caplog.text.partition("frozen: ")[2]
