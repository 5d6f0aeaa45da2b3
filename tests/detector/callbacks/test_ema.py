"""RampedEMA: the average itself, when the module holds it, and on which device it is."""

import re
from pathlib import Path
from unittest.mock import Mock

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from detector.callbacks.ema import RampedEMA, update_average
from tests.golden_values import load


class Tiny(L.LightningModule):
    """A linear layer, a BatchNorm with an integer buffer, and copies of their state at several times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2))
        self.after_steps: list[dict[str, Tensor]] = []
        self.validated: list[dict[str, Tensor]] = []
        self.around_validation: list[dict[str, Tensor]] = []

    def copy_state(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.layer.state_dict().items()}

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return (self.layer(batch[0]) - 1).square().mean()

    def on_train_batch_end(self, outputs, batch, batch_idx: int) -> None:
        if self.trainer.global_step > len(self.after_steps):
            self.after_steps.append(self.copy_state())

    def on_validation_start(self) -> None:
        self.around_validation.append(self.copy_state())

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.validated.append(self.copy_state())

    def on_validation_end(self) -> None:
        self.around_validation.append(self.copy_state())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(tmp_path: Path, ema: RampedEMA, epochs: int = 2, **kwargs) -> L.Trainer:
    return L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[ema],
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"enable_checkpointing": False, **kwargs},
    )


def loaders() -> tuple[DataLoader, DataLoader]:
    data = TensorDataset(torch.arange(12.0).view(12, 1))
    return DataLoader(data, batch_size=2), DataLoader(data, batch_size=12)


def test_decays_equal_the_golden_values_and_the_docstring() -> None:
    ema = RampedEMA(decay=0.9999, tau=2000)
    steps, decays = re.findall(r"^ +[nd] +(\d.+)$", RampedEMA.__doc__, re.MULTILINE)
    for step, decay in zip(steps.replace(",", "").split(), decays.split(), strict=True):
        assert f"{ema.decay_at(int(step)):.4f}" == decay
    for step, value in load("misc")["ema_decay"].items():
        assert ema.decay_at(int(step)) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("accumulated", [1, 4])
def test_average_follows_optimizer_steps(tmp_path: Path, accumulated: int) -> None:
    torch.manual_seed(0)
    model, ema = Tiny(), RampedEMA(decay=0.9, tau=3)
    expected = model.copy_state()
    fitted = trainer(tmp_path, ema, accumulate_grad_batches=accumulated)
    fitted.fit(model, *loaders())
    assert fitted.global_step == len(model.after_steps) == {1: 12, 4: 4}[accumulated]
    for step, state in enumerate(model.after_steps, start=1):
        d = ema.decay_at(step)
        for name, value in state.items():
            expected[name] = d * expected[name] + (1 - d) * value if value.is_floating_point() else value
    for name, value in model.layer.state_dict().items():  # after training the module holds the average
        torch.testing.assert_close(value, expected[name])
        assert value.dtype == expected[name].dtype
    assert model.layer.state_dict()["1.num_batches_tracked"] == 12


def test_validation_uses_the_average_and_restores_the_raw_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Tiny()
    trainer(tmp_path, RampedEMA(decay=0.9, tau=3)).fit(model, *loaders())
    before, after = model.around_validation[::2], model.around_validation[1::2]
    for raw, average, restored in zip(before, model.validated, after, strict=True):
        assert not torch.equal(raw["0.weight"], average["0.weight"])
        assert all(torch.equal(raw[name], restored[name]) for name in raw)


def test_without_a_step_the_average_is_the_initial_weights(tmp_path: Path) -> None:
    model = Tiny()
    start = model.copy_state()
    trainer(tmp_path, RampedEMA(), max_steps=0).fit(model, *loaders())
    assert all(torch.equal(start[name], value) for name, value in model.copy_state().items())


def test_checkpoint_holds_average_and_raw_weights_and_loads_safely(tmp_path: Path) -> None:
    model = Tiny()
    fitted = trainer(tmp_path, RampedEMA(decay=0.9, tau=3), enable_checkpointing=True)
    fitted.fit(model, *loaders())
    checkpoint = torch.load(fitted.checkpoint_callback.best_model_path, weights_only=True)
    raw, average = checkpoint["current_model_state"], checkpoint["state_dict"]
    assert torch.equal(raw["layer.0.weight"], model.after_steps[-1]["0.weight"])
    assert torch.equal(average["layer.0.weight"], model.layer[0].weight)
    assert not torch.equal(raw["layer.0.weight"], average["layer.0.weight"])


@pytest.mark.parametrize("stage", ["validation", "training after it"])
def test_an_interrupted_run_has_the_raw_weights(tmp_path: Path, stage: str) -> None:
    class Interrupted(Tiny):
        def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
            if stage == "validation":
                raise RuntimeError("interrupted")

        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:
                raise RuntimeError("interrupted")

    model = Interrupted()
    with pytest.raises(RuntimeError, match="interrupted"):
        trainer(tmp_path, RampedEMA(decay=0.9, tau=3)).fit(model, *loaders())
    assert torch.equal(model.layer[0].weight, model.after_steps[-1]["0.weight"])


def test_average_moves_to_the_device_of_the_module() -> None:
    ema, module = RampedEMA(), Tiny()
    ema.setup(Mock(), module, "fit")
    assert ema._average_model.module.layer[0].weight.device.type == "cpu"
    ema.on_fit_start(Mock(), module.to("meta"))
    assert {t.device.type for t in ema._average_model.state_dict().values()} == {"meta"}


def test_update_average_lerps_floats_and_copies_integers() -> None:
    old, new = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    new.weight.data.fill_(3.0)
    new.running_mean.fill_(8.0)
    new.num_batches_tracked.fill_(7)
    update_average(old, new, decay=0.75)
    assert old.weight.tolist() == [1.5] * 3
    assert old.running_mean.tolist() == [2.0] * 3
    assert old.num_batches_tracked == 7


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="decay is 1"):
        RampedEMA(decay=1.0)
    with pytest.raises(ValueError, match="tau 0"):
        RampedEMA(tau=0)
