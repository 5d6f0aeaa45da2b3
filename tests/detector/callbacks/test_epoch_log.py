"""train.log: its columns, the header after a resume, and progress lines."""

import re
import time
from pathlib import Path
from types import SimpleNamespace
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
    rest = ["lr", "img/s", "train_s", "val_s"]
    assert header == ["epoch", "AP", "AP50", "AP_nms", "left", "loss", "val_loss", "box", *rest]
    assert [line[0] for line in lines] == ["1/3", "2/3", "3/3"]
    assert {len(line) for line in lines} == {len(header)}
    assert [line[header.index("AP")] for line in lines] == ["-", "1.000", "-"]
    assert [line[header.index("AP_nms")] for line in lines] == ["-", "1.000", "-"]
    assert float(lines[0][header.index("loss")]) > float(lines[2][header.index("loss")]) > 0
    assert all(float(line[header.index("img/s")]) > 0 for line in lines)
    left = [line[header.index("left")] for line in lines]  # a busy machine may need seconds
    assert (left[-1], {text[-1] for text in left}) == ("0s", {"s"})
    assert text in capsys.readouterr().out  # no terminal here


@pytest.mark.parametrize(
    ("seconds", "elapsed", "printed"), [((0.0, 60.0), 0, True), ((0.0, 60.0), 600, False), ((5.0, 0.0), 600, True)]
)
def test_a_long_epoch_without_a_progress_bar_prints_progress_lines(
    seconds: tuple[float, float],
    elapsed: float,
    printed: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They come more often at the start, and give the time left of the whole training."""
    run(tmp_path, EpochLog(), max_epochs=1)
    assert "batches" not in capsys.readouterr().out  # a short epoch has no progress line
    monkeypatch.setattr(epoch_log, "PROGRESS_SECONDS", seconds)
    log = EpochLog()
    started = log.on_train_start
    monkeypatch.setattr(
        log, "on_train_start", lambda *args: (started(*args), setattr(log, "_started", log._started - elapsed))
    )
    run(tmp_path, log, max_epochs=1)
    output = capsys.readouterr().out
    lines = re.findall(r"epoch 1/1: 1 of 3 batches, [\d.]+ images/s, \d+s left in all\n", output)
    assert bool(lines) == printed
    assert bool(re.search(r"epoch 1/1: validation, 1 of \d batch(es)?\n", output)) == printed


def test_a_second_run_appends_under_its_own_header(tmp_path: Path) -> None:
    run(tmp_path, EpochLog(file_name="own.log"), max_epochs=1)
    run(tmp_path, EpochLog(file_name="own.log"), max_epochs=1)
    assert not (tmp_path / "train.log").exists()
    first = [line.split()[0] for line in (tmp_path / "own.log").read_text().splitlines()]
    assert first == ["epoch", "1/1", "epoch", "1/1"]


def test_columns_are_aligned(tmp_path: Path) -> None:
    run(tmp_path, CocoEvaluation(), EpochLog())
    assert len({len(line) for line in (tmp_path / "train.log").read_text().splitlines()}) == 1


TERMS = [f"train/{branch}/{term}" for branch in ("one2many", "one2one") for term in ("box", "cls", "l1")]
LOSSES = {"train/total": 9.496, **dict.fromkeys(TERMS, 4.943), "train/data_wait": 0.1641, "train/lr": 0.1}
VALIDATION = {"val/AP": 0.52345, "val/AP50": 0.81, "val/one2many/AP": 0.53, "val/total": 10.026}


def written(folder: Path, metrics: dict[str, float], seconds: float = 60.0, **settings: Any) -> dict[str, str]:
    """Return the last line of the log of a fake run whose epoch takes ``seconds``, by column. Checks all its lines."""
    trainer = SimpleNamespace(
        **{"max_epochs": 300, "current_epoch": 2, "max_steps": -1, "global_step": 10, "num_training_batches": 10}
        | {"callbacks": [CocoEvaluation()], "callback_metrics": metrics, "world_size": 1, "accumulate_grad_batches": 1}
        | {"optimizers": [SimpleNamespace(param_groups=[{"lr": 0.00832999}])], "enable_validation": True}
        | {"default_root_dir": folder, "is_global_zero": True, "sanity_checking": False, "progress_bar_callback": None}
        | settings
    )
    processed = settings.get("num_training_batches", 10)
    trainer.fit_loop = SimpleNamespace(
        epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(current=SimpleNamespace(processed=processed)))
    )
    log = EpochLog()
    log.on_train_start(trainer, None)
    for index in range(settings.get("batches", 10)):
        log.on_train_batch_end(trainer, None, None, {"targets": [None] * 4}, index)
    log._epoch_started = time.perf_counter() - seconds
    log._validated = "val/AP" in metrics
    log.on_train_epoch_end(trainer, None)
    lines = (folder / "train.log").read_text().splitlines()
    assert max(len(line) for line in lines) <= 120, lines
    assert len({len(line) for line in lines}) == 1, lines
    header, last = lines[-2].split(), lines[-1].split()
    assert len(header) == len(last)
    return dict(zip(header, last))


def test_what_a_person_looks_for_comes_first(tmp_path: Path) -> None:
    """Epoch, AP of both branches, time left and data wait; then all losses of both branches, which fit."""
    line = written(tmp_path, LOSSES | VALIDATION)
    assert list(line.items()) == [
        *(("epoch", "3/300"), ("AP", "0.523"), ("AP50", "0.810"), ("AP_nms", "0.530"), ("left", "5.0h"), ("wait", "16%")),
        *(("loss", "9.5"), ("val_loss", "10"), ("box", "4.94"), ("cls", "4.94"), ("l1", "4.94")),
        *(("box_nms", "4.94"), ("cls_nms", "4.94"), ("l1_nms", "4.94")),
        *(("lr", "0.00833"), ("img/s", "0.667"), ("train_s", "60"), ("val_s", "0")),
    ]


@pytest.mark.parametrize(
    ("metrics", "settings", "expected"),
    [
        ({}, {"max_epochs": 99999, "current_epoch": 99998}, {"epoch": "99999/99999", "left": "0s", "l1_nms": "4.94"}),
        ({}, {"max_epochs": 99999, "seconds": 1e6}, {"left": "999y", "train_s": "1e6"}),
        ({}, {"max_epochs": -1, "current_epoch": 123455}, {"epoch": "123456", "left": "-"}),
        ({}, {"max_epochs": None, "max_steps": 40}, {"epoch": "3", "left": "3m"}),
        ({}, {"max_steps": 20}, {"left": "60s"}),
        (dict.fromkeys(VALIDATION, -1.0), {}, {"AP": "none", "AP50": "none", "AP_nms": "none"}),
        (dict.fromkeys(TERMS, 1.23456e30), {}, {"box": "1e30", "box_nms": "1e30"}),
        (dict.fromkeys(TERMS, 1.23456e-30), {}, {"box": "1e-30"}),
        (dict.fromkeys(TERMS, float("nan")), {}, {"l1": "nan"}),
        ({"train/one2one/a_loss_with_a_very_long_name_of_the_user": 1.0}, {}, {"l1": "4.94"}),
        ({f"train/one2one/term{i}": 1.0 for i in range(99)}, {}, {"box": "4.94"}),
        ({}, {"optimizers": []}, {"lr": "-"}),
        ({}, {"num_training_batches": float("inf")}, {"left": "5.0h"}),
        ({}, {"batches": 5}, {"left": "9.9h"}),  # resumed in the middle of an epoch: half an epoch took a minute
        ({"train/data_wait": 1.0}, {}, {"wait": "100%"}),
    ],
)
def test_a_line_has_at_most_120_characters(
    metrics: dict[str, float], settings: dict[str, Any], expected: dict[str, str], tmp_path: Path
) -> None:
    line = written(tmp_path, LOSSES | VALIDATION | metrics, **settings)
    assert {name: line.get(name) for name in expected} == expected
    assert list(line)[:6] == ["epoch", "AP", "AP50", "AP_nms", "left", "wait"]


def test_without_validation(tmp_path: Path) -> None:
    """An epoch without one has dashes; a run without any has no such columns."""
    line = written(tmp_path, LOSSES)
    assert [line[name] for name in ("AP", "AP50", "AP_nms")] == ["-", "-", "-"]
    assert "AP_nms" not in written(tmp_path / "one", LOSSES, callbacks=[CocoEvaluation("one2one")])
    none = written(tmp_path / "none", LOSSES, enable_validation=False)
    assert list(none)[:4] == ["epoch", "left", "wait", "loss"]
    assert not {"AP", "AP50", "val_loss", "val_s"} & none.keys()
