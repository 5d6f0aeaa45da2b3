"""The estimate of a training's time: once, by the batches after the first, and smaller images for hours on a CPU."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from detector.callbacks import TimeEstimate, time_estimate


def messages(monkeypatch: pytest.MonkeyPatch, per_epoch: int, seconds: float, **settings: Any) -> list[str]:
    """Return what is logged in two epochs of a training, of whose batches the first ten after the first take ``seconds``."""
    times = iter([100.0 + seconds * n for n in range(99)])
    logged: list[str] = []
    monkeypatch.setattr(time_estimate, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    monkeypatch.setattr(time_estimate, "rank_zero_info", logged.append)
    given = {"max_epochs": 5, "max_steps": -1, "num_training_batches": per_epoch} | settings
    trainer, callback = SimpleNamespace(**given), TimeEstimate()
    callback.on_train_start(trainer, None)
    for trainer.current_epoch in range(2):
        for index in range(per_epoch):
            batch = {"images": torch.zeros(2, 3, 320, 320), "targets": [None] * 2}
            callback.on_train_batch_end(trainer, None, None, batch, index)
    return logged


def test_the_rest_is_estimated_once_by_the_batches_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is read at the first and at the eleventh batch: 2 s for ten; 89 of 5 x 20 batches are left."""
    text = "estimate by the first batches: 18s for 89 batches of 2 images at 320 px, without validations"
    assert messages(monkeypatch, 20, seconds=2.0) == [text]


def test_hours_on_a_cpu_propose_smaller_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """89 batches of 100 s are 2.5 h; the size nearest to half the side is 128 px, with 0.16 of the pixels."""
    (_, advice) = messages(monkeypatch, 20, seconds=1000.0)
    assert advice == "on a CPU, smaller images save most of the time: about 24m with --data.image_size 128"
    assert len(time_estimate.estimate_texts(1e5, 10, 2, 320, "cuda")) == 1
    assert len(time_estimate.estimate_texts(1e5, 10, 2, 64, "cpu")) == 1  # there is nothing smaller


@pytest.mark.parametrize(
    ("per_epoch", "settings"), [(10, {}), (20, {"max_epochs": -1}), (20, {"max_epochs": None}), (20, {"max_steps": 7})]
)
def test_no_estimate_without_enough_batches_or_an_end(
    monkeypatch: pytest.MonkeyPatch, per_epoch: int, settings: dict[str, Any]
) -> None:
    assert messages(monkeypatch, per_epoch, 2.0, **settings) == []
