"""Losses and gradients that are not finite."""

import re
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor
from torch.utils.data import DataLoader

from detector.callbacks.ema import RampedEMA
from detector.callbacks.non_finite_guard import NonFiniteGuard, NonFiniteLoss
from tests.detector.training.test_module import Rectangles, collate, module, trainer


class Poisoned(Rectangles):
    """Float images, all NaN for the indices in ``bad``; image ids start at 500."""

    def __init__(self, num_images: int, bad: set[int]) -> None:
        super().__init__(num_images)
        self.bad = bad

    def __getitem__(self, index: int) -> tuple[Tensor, dict]:
        image, target = super().__getitem__(index)
        image = image.float() / 255 if index not in self.bad else torch.full(image.shape, torch.nan)
        return image, {**target, "image_id": 500 + index}


def test_a_step_without_a_finite_loss_changes_nothing(tmp_path: Path) -> None:
    """Averaged weights and statistics equal those of a run without that batch; the warning names terms and images."""
    data = DataLoader(Poisoned(6, {4}), batch_size=2, collate_fn=collate)
    guard, states = NonFiniteGuard(), []
    for batches in (3, 2):  # the third one is bad
        model = module(nominal_batch=2, warmup_bias_lr=0.0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer(tmp_path, limit_train_batches=batches, callbacks=[guard, RampedEMA(tau=3)]).fit(model, data)
        states.append({name: value for name, value in model.state_dict().items() if value.is_floating_point()})
        messages = [str(w.message) for w in caught if "this step is skipped" in str(w.message)]
        if batches == 3:
            assert re.search(r"one2one/cls nan.* with the images \[504, 505\]", messages[0])
            assert len(messages) == guard.skipped == 1
    assert guard.skipped == 1
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


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


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="max_skips is 0"):
        NonFiniteGuard(max_skips=0)
