"""Two processes train like one, with the collectives that GPUs use."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detector import DetectorModule, build_detector
from detector.dynamic.conv2d import DynamicConv2d, dynamic_layers
from detector.training.optimizer import parameter_groups
from tests.detector.training.test_module import TINY, Rectangles, Steps, assert_same, collate, module, trainer
from tests.processes import Processes


class Uneven(Rectangles):
    """Every other image has no object, so one of two processes has no object at all."""

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, target = super().__getitem__(0 if index == 0 else index + 2)
        if index % 2:
            return torch.full_like(image, 90), {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
        return image, target


class Record(Steps):
    """Write the gradients of the first step and the logged loss, from the first process."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loss = trainer.callback_metrics["train/total"]  # on every process: reading it may reduce it
        if trainer.is_global_zero:
            torch.save({"gradients": self.gradients[0], "loss": loss}, self.path)


# Its gradient depends on all of the network: gates and changes of kernels are not at their start.
GATED_RESIDUAL = {"kind": "residual", "gates": ["input", "filter", "position"]}


def lively(variant_settings: dict[str, Any]) -> DetectorModule:
    model = module(nominal_batch=8, overrides=TINY | {"dynamic": variant_settings})
    for layer in dynamic_layers(model).values():
        nn.init.normal_(layer.delta, std=0.1)
        for gate in ("input", "filter", "position"):
            nn.init.normal_(getattr(layer.router, gate).weight, std=0.1)
    return model


def first_step(tmp_path: Path, count: int, processes: Processes) -> dict[str, Any]:
    path = tmp_path / f"{count}.pt"
    data = DataLoader(Uneven(8), batch_size=8 // count, collate_fn=collate)
    trainer(tmp_path, callbacks=[Record(path)], limit_train_batches=1, **processes(count)).fit(lively(GATED_RESIDUAL), data)
    return torch.load(path, weights_only=True)


@pytest.mark.filterwarnings("ignore")
def test_two_processes_have_the_gradient_of_one(tmp_path: Path, processes: Processes) -> None:
    """2 x 4 images against 1 x 8, norms frozen; one process sees no object, and no parameter is reported unused."""
    one, two = first_step(tmp_path, 1, processes), first_step(tmp_path, 2, processes)
    assert_same(two["gradients"], one["gradients"])
    torch.testing.assert_close(two["loss"], one["loss"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [None, "mixture", "omni", "residual"])
def test_every_norm_becomes_a_shared_one(kind: str | None) -> None:
    """trainer.sync_batchnorm converts every norm; names, parameter groups and deployed weights do not change."""
    model = build_detector("yolo26_n", 2, **TINY, dynamic=kind and {"kind": kind})
    state = model.state_dict()
    groups = [(g["name"], len(g["params"])) for g in parameter_groups(model, 0.01, 0.1)]
    norms = [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d)]
    assert any(".router." in name for name in norms) == (kind in ("omni", "residual"))
    before = model.deploy().state_dict()
    synced = TorchSyncBatchNorm().apply(model)
    assert not [m for m in synced.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d)]
    assert [name for name, m in synced.named_modules() if isinstance(m, nn.SyncBatchNorm)] == norms
    behind_dynamic = [m for m in synced.modules() if isinstance(getattr(m, "conv", None), DynamicConv2d)]
    assert bool(behind_dynamic) == (kind is not None)
    assert all(isinstance(m.norm, nn.SyncBatchNorm) for m in behind_dynamic)
    assert synced.state_dict().keys() == state.keys()
    assert [(g["name"], len(g["params"])) for g in parameter_groups(synced, 0.01, 0.1)] == groups
    after = synced.deploy().state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    images = torch.rand(1, 3, 64, 64)  # routers of both train with a single image, and without other processes
    for other in (synced, TorchSyncBatchNorm().revert(synced)):
        routers = {name: value.clone() for name, value in other.state_dict().items() if ".router." in name}
        other.train()(images)
        after = other.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in routers.items())
