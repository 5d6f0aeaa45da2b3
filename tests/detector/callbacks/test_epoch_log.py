import re
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import pytest
import torch

from detector.callbacks import epoch_log as run_log
from detector.callbacks.coco_evaluation import CocoEvaluation
from detector.callbacks.epoch_log import EpochLog
from detector.callbacks.prediction_sheet import PredictionSheet, compare
from detector.imaging.letterbox import fit_letterbox, to_canvas
from tests.detector.fakes import CANVAS, CATEGORY_IDS, CLASS_NAMES, IMAGE, Answer, RoteData, RoteDetector, coco_dict

IMAGES = [1, 2, 3, 4, 5]
BOX = [10.0, 20.0, 70.0, 60.0]
TRUTH = coco_dict(IMAGES, [{"image_id": 1, "category_id": CATEGORY_IDS[1], "bbox": [10, 20, 60, 40]}])
FOUND: dict[int, Answer] = {1: [(BOX, 0.8, 1)]}


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
    trainer.fit(RoteDetector(FOUND), RoteData(IMAGES, {"val": TRUTH}))
    return trainer


def test_a_line_for_every_epoch_below_a_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_long_epoch_without_a_progress_bar_gives_signs_of_life(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, EpochLog(), max_epochs=1)
    assert "batches" not in capsys.readouterr().out  # a short one does not
    monkeypatch.setattr(run_log, "PROGRESS_LINE_SECONDS", 0.0)
    run(tmp_path, EpochLog(), max_epochs=1)
    assert re.search(r"epoch 0: 1 of \d+ batches, [\d.]+ images/s\n", capsys.readouterr().out)


def test_a_second_run_appends_under_its_own_header(tmp_path: Path) -> None:
    run(tmp_path, EpochLog(), max_epochs=1)
    run(tmp_path, EpochLog(), max_epochs=1)
    first = [line.split()[0] for line in (tmp_path / "train.log").read_text().splitlines()]
    assert first == ["epoch", "0", "epoch", "0"]


def test_columns_stay_under_their_names(tmp_path: Path) -> None:
    run(tmp_path, CocoEvaluation(), EpochLog())
    assert len({len(line) for line in (tmp_path / "train.log").read_text().splitlines()}) == 1


def test_the_sheet_holds_the_first_images(tmp_path: Path) -> None:
    run(tmp_path, PredictionSheet(num_images=3), max_epochs=1)
    page = cv2.imread(str(tmp_path / "val_predictions.jpg"))
    pair = compare(torch.zeros(3, *CANVAS), no_objects(), nothing_found(), CLASS_NAMES).shape
    assert 2 * pair[0] < page.shape[0] < 2 * pair[0] + 60  # two rows: two images, then one
    assert 2 * pair[1] < page.shape[1] < 2 * pair[1] + 60


def test_the_sanity_check_draws_nothing(tmp_path: Path) -> None:
    run(tmp_path, PredictionSheet(), max_epochs=0, num_sanity_val_steps=2)
    run(tmp_path, PredictionSheet(num_images=0), max_epochs=1)
    assert not (tmp_path / "val_predictions.jpg").exists()


def no_objects() -> dict[str, Any]:
    return {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}


def nothing_found() -> dict[str, Any]:
    return {**no_objects(), "scores": torch.zeros(0)}


@pytest.mark.parametrize("image", [torch.zeros(3, 64, 96, dtype=torch.uint8), torch.zeros(3, 64, 96).bfloat16()])
def test_bytes_and_floats_are_drawn_alike(image: torch.Tensor) -> None:
    truth = {"boxes": torch.tensor([[10.0, 10.0, 40.0, 40.0]]), "labels": torch.tensor([2]), "image_id": 7}
    drawn = compare(image, truth, nothing_found(), CLASS_NAMES, size=192)
    blank = compare(image, no_objects(), nothing_found(), CLASS_NAMES, size=192)
    left, right = np.abs(drawn.astype(int) - blank)[-132:].reshape(132, 2, -1).sum(axis=(0, 2))
    assert left > 0
    assert right == 0  # the half of the detections; the captions are above


def test_boxes_are_drawn_where_they_are() -> None:
    place = fit_letterbox(IMAGE, CANVAS)
    box = torch.from_numpy(to_canvas(np.array([BOX]), place))
    target = {"boxes": box, "labels": torch.tensor([1])}
    drawn = compare(torch.zeros(3, *CANVAS), target, nothing_found(), CLASS_NAMES, size=640)[-644:-4, 4:644]
    ys, xs = np.nonzero(drawn[200:].max(axis=2) > 60)  # 200: below the label
    assert [xs.min(), xs.max(), ys.max() + 200] == pytest.approx([*(box[0, [0, 2, 3]] * 10).tolist()], abs=3)
