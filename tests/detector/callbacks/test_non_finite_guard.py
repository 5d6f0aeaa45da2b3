"""Losses and gradients that are not finite."""

import re
import warnings
from pathlib import Path
from unittest.mock import Mock

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from detector.callbacks.ema import RampedEMA
from detector.callbacks.non_finite_guard import NonFiniteGuard, NonFiniteLoss, describe
from tests.detector.training.test_module import Rectangles, collate, module, trainer

TINY = {"width": 0.125, "depth": 0.33, "dynamic": {"num_experts": 2}}


class Poisoned(Rectangles):
    """Float images, all NaN for the indices in ``bad``; image ids start at 500."""

    def __init__(self, num_images: int, bad: set[int]) -> None:
        super().__init__(num_images)
        self.bad = bad

    def __getitem__(self, index: int) -> tuple[Tensor, dict]:
        image, target = super().__getitem__(index)
        image = image.float() / 255 if index not in self.bad else torch.full(image.shape, torch.nan)
        return image, {**target, "image_id": 500 + index}


def test_the_images_of_a_classifier_are_named() -> None:
    """Of a large batch the first eight; ids of a detection batch stay as they are."""
    batches = [({"total": torch.tensor(torch.nan)}, torch.arange(10)), ({"total": torch.tensor(1.0)}, torch.tensor([77]))]
    trainer = Mock(datamodule=Mock(image_name=lambda split, number: f"{split}/{number}.png"))
    shown = ", ".join(f"train/{n}.png" for n in range(8))
    assert describe(batches, trainer) == f"the loss has total nan with the images {shown} and 2 more"
    assert describe(batches[1:], trainer) == "the loss of this process is finite, its images are train/77.png"
    assert describe(batches[1:]) == "the loss of this process is finite, its images are 77"
    assert describe([({}, [501, 502])]) == "the loss of this process is finite, its images are [501, 502]"


class Ends(L.Callback):
    """Make the gradient infinite in the batch of image ``bad``, and keep raw and averaged states at the end of the epoch."""

    def __init__(self, bad: int) -> None:
        self.bad = bad
        self.states: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: dict, index: int) -> None:
        self.is_bad = any(target["image_id"] == 500 + self.bad for target in batch["targets"])

    def on_after_backward(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.is_bad:
            next(module.parameters()).grad[0] = torch.inf

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        (ema,) = (callback for callback in trainer.callbacks if isinstance(callback, RampedEMA))
        for state in (module.state_dict(), ema._average_model.module.state_dict()):
            self.states.append({name: value.clone() for name, value in state.items()})


def test_a_step_that_is_not_finite_leaves_no_trace(tmp_path: Path) -> None:
    """Raw and averaged, all weights and buffers equal those of a run without its images, which has good steps after it.

    A step has two batches, the last one only one. Every other step is good. The first one begins with a bad batch, the third
    ends with one, and the fifth has an infinite gradient of a finite loss. They are not two in a row, so they do not end the
    training.
    """
    data = Poisoned(22, {0, 11})
    good_steps = [image for image in range(len(data)) if image // 4 % 2]
    ends = []
    ends = []
    for images in (range(len(data)), good_steps):
        guard, end = NonFiniteGuard(max_skips=2), Ends(bad=17)
        # A rate and an average that do not depend on the number of steps before.
        model = module(overrides=TINY, nominal_batch=4, final_lr_ratio=1.0)
        callbacks = [end, RampedEMA(decay=0.5, tau=1e-9), guard]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted = trainer(tmp_path, callbacks=callbacks)
            fitted.fit(model, DataLoader(Subset(data, images), batch_size=2, collate_fn=collate))
        ends.append(end.states)
        messages = [str(w.message) for w in caught if "this step is skipped" in str(w.message)]
        assert len(messages) == guard.skipped == (3 if len(images) == len(data) else 0)
        if messages:
            assert re.search(r"one2one/cls nan.* with the images \[500, 501\]", messages[0])
            assert "the gradient of model.backbone.stem.conv.weight is not finite" in messages[2]
    for kind, state, expected in zip(("raw", "average"), *ends, strict=True):
        different = [name for name, value in expected.items() if not torch.equal(value, state[name])]
        assert not different, kind
        assert all(value.isfinite().all() for value in state.values())


def test_a_gradient_that_is_not_finite_is_named_if_the_loss_is_finite(tmp_path: Path) -> None:
    model = module(nominal_batch=2)
    name, parameter = next(iter(model.named_parameters()))
    parameter.register_hook(lambda gradient: gradient * torch.inf)
    before = parameter.detach().clone()
    with pytest.warns(UserWarning, match=rf"the gradient of {re.escape(name)} is not finite; this step is skipped"):
        trainer(tmp_path, limit_train_batches=1, callbacks=[guard := NonFiniteGuard()]).fit(
            model, DataLoader(Poisoned(2, set()), batch_size=2, collate_fn=collate)
        )
    assert guard.skipped == 1
    assert torch.equal(parameter, before)


def test_training_stops_if_no_gradient_scale_helps(tmp_path: Path) -> None:
    """The gradient scaler handles infinite gradients until its scale is below 1."""
    model = module(nominal_batch=2)
    next(model.parameters()).register_hook(lambda gradient: gradient * torch.nan)
    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=4.0))
    data = DataLoader(Poisoned(12, set()), batch_size=2, collate_fn=collate)
    guard = NonFiniteGuard(max_skips=2)
    fitted = trainer(tmp_path, callbacks=[guard], plugins=[precision])
    with pytest.warns(UserWarning, match="is skipped"), pytest.raises(NonFiniteLoss, match="2 steps in a row"):
        fitted.fit(model, data)
    assert guard.skipped == 2
    assert fitted.fit_loop.total_batch_idx == 4  # the scaler skipped three steps, at the scales 4, 2 and 1


def test_training_stops_after_max_skips_in_a_row(tmp_path: Path) -> None:
    guard = NonFiniteGuard(max_skips=2)
    data = DataLoader(Poisoned(8, set(range(8))), batch_size=2, collate_fn=collate)
    fitted = trainer(tmp_path, callbacks=[guard])
    with (
        pytest.warns(UserWarning, match="is skipped"),
        pytest.raises(NonFiniteLoss, match=r"2 steps in a row .*\[502, 503\].*model\.lr"),
    ):
        fitted.fit(module(nominal_batch=2), data)
    assert guard.skipped == 2


@pytest.mark.parametrize("value", [torch.nan, 3.0])
def test_a_validation_within_a_step_never_uses_statistics_that_are_not_numbers(value: float) -> None:
    guard, bn = NonFiniteGuard(), torch.nn.BatchNorm1d(1)
    for x in (value, 5.0):  # two batches of an unfinished step
        guard.on_train_batch_start(Mock(), bn, {"targets": [{}]}, 0)
        bn.latest_terms = {"total": bn(torch.tensor([[x], [x]])).sum()}
        guard.on_after_backward(Mock(), bn)
    guard.on_validation_start(Mock(), bn)
    assert bn.running_mean.item() == pytest.approx(0.0 if value != value else 0.9 * 0.3 + 0.5)


def test_all_processes_skip_a_step_that_is_bad_on_one_of_them() -> None:
    guard, bn = NonFiniteGuard(), torch.nn.BatchNorm1d(2)
    bn.latest_terms = {"total": torch.tensor(1.0)}  # finite here
    trainer = Mock(world_size=2)
    trainer.strategy.reduce_boolean_decision = lambda decision, all: decision if all else True
    guard.on_train_batch_start(trainer, bn, {"targets": [{}]}, 0)
    bn(torch.tensor([[1.0, 2.0], [3.0, 5.0]])).sum().backward()
    guard.on_after_backward(trainer, bn)
    guard.on_before_optimizer_step(trainer, bn)
    assert bn.step_skipped
    assert guard.skipped == 1
    assert [p.grad for p in bn.parameters()] == [None, None]
    assert (bn.running_mean.tolist(), bn.num_batches_tracked) == ([0.0, 0.0], 0)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="max_skips is 0"):
        NonFiniteGuard(max_skips=0)
