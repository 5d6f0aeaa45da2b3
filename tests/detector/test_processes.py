"""Two processes against one, with the collectives that GPUs would use."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tests.detector.test_lightning_module import Rectangles, Steps, assert_same, collate, module, trainer


class Uneven(Rectangles):
    """Every other picture has no object, so that one of two processes has none at all."""

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, target = super().__getitem__(0 if index == 0 else index + 2)
        if index % 2:
            return torch.full_like(image, 90), {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
        return image, target


class Record(Steps):
    """Writes the gradients of the first step, and the logged loss, from the first process."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loss = trainer.callback_metrics["train/total"]  # on every process: reading it may reduce it
        if trainer.is_global_zero:
            torch.save({"gradients": self.gradients[0], "loss": loss}, self.path)


def first_step(tmp_path: Path, processes: int) -> dict[str, Any]:
    path = tmp_path / f"{processes}.pt"
    many = {"devices": processes, "strategy": "ddp_spawn"} if processes > 1 else {"devices": 1}
    data = DataLoader(Uneven(8), batch_size=8 // processes, collate_fn=collate)
    trainer(tmp_path, callbacks=[Record(path)], limit_train_batches=1, **many).fit(module(nominal_batch=8), data)
    return torch.load(path, weights_only=True)


@pytest.mark.filterwarnings("ignore")
def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    """2 x 4 pictures against 1 x 8, norms frozen; one process sees no object, and no parameter is reported unused."""
    one, two = first_step(tmp_path, 1), first_step(tmp_path, 2)
    assert_same(two["gradients"], one["gradients"])
    torch.testing.assert_close(two["loss"], one["loss"], rtol=1e-4, atol=1e-5)
