"""train.log: its columns, the header after a resume, and progress lines."""

import re
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from detector.callbacks import epoch_log
from detector.callbacks.coco_evaluation import CocoEvaluation
from detector.callbacks.epoch_log import EpochLog
from tests.detector.fakes import CATEGORY_IDS, Answer, RoteData, RoteDetector, coco_dict

IMAGES = [1, 2, 3, 4, 5]
BOX = [10.0, 20.0, 70.0, 60.0]
TRUTH = coco_dict(IMAGES, [{"image_id": 1, "category_id": CATEGORY_IDS[1], "bbox": [10, 20, 60, 40]}])
DETECTIONS: dict[int, Answer] = {1: [(BOX, 0.8, 1)]}


def run(root: Path, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    trainer = L.Trainer(
        accelerator="cpu",
        default_root_dir=root,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 3, **options},
    )
    trainer.fit(RoteDetector(DETECTIONS), RoteData(IMAGES, {"val": TRUTH}))
    return trainer


def test_every_epoch_has_a_line_below_the_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, CocoEvaluation(), EpochLog(), check_val_every_n_epoch=2)
    text = (tmp_path / "train.log").read_text()
    header, *lines = [line.split() for line in text.splitlines()]
    expected = ["epoch", "total", "one2one/box", "lr", "val/total", "val/AP", "val/AP50"]
    expected += ["train_s", "val_s", "images/s"]
    assert header == expected
    assert [line[0] for line in lines] == ["0", "1", "2"]
    assert {len(line) for line in lines} == {len(header)}
    assert [line[header.index("val/AP")] for line in lines] == ["-", "1.0000", "-"]
    assert float(lines[0][header.index("total")]) > float(lines[2][header.index("total")]) > 0
    assert all(float(line[header.index("images/s")]) > 0 for line in lines)
    assert text in capsys.readouterr().out  # no terminal here


def test_a_long_epoch_without_a_progress_bar_prints_progress_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, EpochLog(), max_epochs=1)
    assert "batches" not in capsys.readouterr().out  # a short epoch has no progress line
    monkeypatch.setattr(epoch_log, "PROGRESS_LINE_SECONDS", 0.0)
    run(tmp_path, EpochLog(), max_epochs=1)
    assert re.search(r"epoch 0: 1 of \d+ batches, [\d.]+ images/s\n", capsys.readouterr().out)


def test_a_second_run_appends_under_its_own_header(tmp_path: Path) -> None:
    run(tmp_path, EpochLog(), max_epochs=1)
    run(tmp_path, EpochLog(), max_epochs=1)
    first = [line.split()[0] for line in (tmp_path / "train.log").read_text().splitlines()]
    assert first == ["epoch", "0", "epoch", "0"]


def test_columns_are_aligned(tmp_path: Path) -> None:
    run(tmp_path, CocoEvaluation(), EpochLog())
    assert len({len(line) for line in (tmp_path / "train.log").read_text().splitlines()}) == 1
