"""The progress bar has the order of the lines of train.log."""

import re
from pathlib import Path

import lightning as L
import pytest

from detector.callbacks import CocoEvaluation, DataWait, EpochLog, RunProgressBar
from tests.detector.callbacks.test_epoch_log import DETECTIONS, IMAGES, TRUTH
from tests.detector.fakes import RoteData, RoteDetector


class Model(RoteDetector):
    def training_step(self, *args: object) -> object:
        loss = super().training_step(*args)
        self.log("loss", loss, prog_bar=True, logger=False)
        return loss


def test_the_order_is_that_of_the_epoch_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    callbacks = [CocoEvaluation(), DataWait(), EpochLog(), RunProgressBar()]
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = L.Trainer(max_epochs=2, default_root_dir=tmp_path, callbacks=callbacks, **quiet)
    trainer.fit(Model(DETECTIONS), RoteData(IMAGES, {"val": TRUTH}))
    bars = [bar for bar in re.split(r"[\r\n]", capsys.readouterr().out) if bar.startswith("epoch 2/2") and "3/3" in bar]
    assert re.search(r"AP=1\.000, AP50=1\.000, AP_nms=1\.000, left=\d+s, wait=\d+%, loss=[\d.]+\]", bars[-1]), bars
    assert "v_num" not in bars[-1]
