"""The estimate of a training's time: once, by the batches after the first, and smaller images for hours on a CPU."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from detector.callbacks import TimeEstimate, time_estimate


def messages(monkeypatch: pytest.MonkeyPatch, per_epoch: int, seconds: float, **settings: Any) -> list[str]:
    """Return what is logged in two epochs of a training. A batch takes a tenth of ``seconds``, but the first one 100 s.

    The last batch of an epoch has one image, the others two. ``validated`` is the number of a batch that a validation of
    50 s follows.
    """
    clock, logged, validated = SimpleNamespace(now=0.0), [], settings.pop("validated", None)
    monkeypatch.setattr(time_estimate, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(time_estimate, "rank_zero_info", logged.append)
    given = {"max_epochs": 5, "max_steps": -1, "num_training_batches": per_epoch, "accumulate_grad_batches": 2} | settings
    current = SimpleNamespace(processed=0)
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(current=current)))
    trainer, callback = SimpleNamespace(global_step=0, fit_loop=loop, **given), TimeEstimate()
    hparams = {"image_size": given.pop("image_size", [320, 320])}
    module = SimpleNamespace(hparams=SimpleNamespace(**hparams), model=SimpleNamespace(strides=[8, 16, 32]))
    if hparams["image_size"] is None:  # a module of the user
        module = SimpleNamespace(hparams=SimpleNamespace())
    callback.on_train_start(trainer, module)
    for trainer.current_epoch in range(2):
        for index in range(per_epoch):
            clock.now += seconds / 10 if index else 100.0
            images = 1 if index + 1 == per_epoch else 2
            current.processed = index + 1
            trainer.global_step += index % 2
            batch = {"images": torch.zeros(images, 3, 352, 352), "targets": [None] * images}
            callback.on_train_batch_end(trainer, module, None, batch, index)
            if index == validated:
                callback.on_validation_start(trainer, module)
                clock.now += 50.0
                callback.on_validation_end(trainer, module)
    return logged


@pytest.mark.parametrize(
    ("per_epoch", "settings", "left"),
    [
        (20, {}, "18s for 89 batches of 2 images"),  # after 11 of 5 x 20
        (20, {"validated": 4}, "18s for 89 batches of 2 images"),
        (20, {"max_steps": 30}, "10s for 50 batches of 2 images"),  # 5 steps are made; two batches are one
        (20, {"max_epochs": -1, "max_steps": 30}, "10s for 50 batches of 2 images"),
        (8, {}, "6s for 32 batches of 2 images"),  # after the first epoch
        (2, {}, "2s for 8 batches of 2 images"),
        (20, {"image_size": None}, "18s for 89 batches of 2 images at 352 px"),
    ],
)
def test_the_rest_is_estimated_once_by_the_batches_after_the_first(
    monkeypatch: pytest.MonkeyPatch, per_epoch: int, settings: dict[str, Any], left: str
) -> None:
    """Ten batches take 2 s. With ``multi_scale``, batches have other sizes than ``image_size``."""
    text = f"estimate by the first batches: {left} at 320 px".replace("352 px at 320", "352")
    assert messages(monkeypatch, per_epoch, seconds=2.0, **settings) == [f"{text}, without validations"]


def test_hours_on_a_cpu_propose_smaller_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """89 batches of 100 s are 2.5 h; half the side has a quarter of the pixels."""
    (_, advice) = messages(monkeypatch, 20, seconds=1000.0)
    assert advice == "on a CPU, smaller images save most of the time: about 37m with --data.image_size 160"
    estimate_texts = time_estimate.estimate_texts
    assert len(estimate_texts(1e5, 10, 2, (320, 320), "cuda")) == 1
    assert len(estimate_texts(1e5, 10, 2, (64, 64), "cpu")) == 1  # there is nothing smaller
    text, advice = estimate_texts(4e4, 10, 2, (480, 640), "cpu", stride=64)
    assert "at 480 x 640 px" in text
    assert advice.endswith("about 3.0h with --data.image_size '[256, 320]'")
    assert estimate_texts(1e5, 10, 2, (96, 96), "cpu")[1].endswith("--data.image_size 64")  # 1.5 strides are 2


@pytest.mark.parametrize(
    ("per_epoch", "settings"),
    [(1, {}), (20, {"max_epochs": -1}), (20, {"max_epochs": None}), (20, {"max_steps": 2}), (8, {"max_epochs": 1})],
)
def test_no_estimate_without_enough_batches_or_an_end(
    monkeypatch: pytest.MonkeyPatch, per_epoch: int, settings: dict[str, Any]
) -> None:
    assert messages(monkeypatch, per_epoch, 2.0, **settings) == []
