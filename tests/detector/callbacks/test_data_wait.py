"""The share of the training time that steps wait for data."""

import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from detector.callbacks.data_wait import DataWait
from detector.callbacks.epoch_log import EpochLog


class Slow(IterableDataset):
    """A dataset of twelve items that take ``seconds`` each."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __iter__(self) -> Iterator[torch.Tensor]:
        for _ in range(12):
            time.sleep(self.seconds)
            yield torch.ones(1)


class Model(L.LightningModule):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.layer, self.seconds = torch.nn.Linear(1, 1), seconds

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        time.sleep(self.seconds)
        return self.layer(batch).sum()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        time.sleep(0.02)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore:.*(num_workers|does not have many workers|sync_dist).*")
@pytest.mark.parametrize(("data", "step", "low", "high"), [(0.03, 0.01, 0.6, 0.9), (0.0, 0.04, 0.0, 0.2)])
def test_the_share_is_logged_and_a_large_one_gives_a_warning(
    tmp_path: Path, data: float, step: float, low: float, high: float
) -> None:
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    log = EpochLog()
    log.on_train_batch_end = lambda *_: None  # it counts images, and these batches have none
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        default_root_dir=tmp_path,
        callbacks=[DataWait(advice="buy a disk"), log],
        val_check_interval=6,  # its time must not count
        num_sanity_val_steps=0,
        **options,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(Model(step), DataLoader(Slow(data), batch_size=None), DataLoader(Slow(0.0), batch_size=None))
    share = float(trainer.callback_metrics["train/data_wait"])
    assert low < share < high
    messages = [str(w.message) for w in caught if "waiting for data" in str(w.message)]
    assert len(messages) == (1 if share > 0.2 else 0)
    assert all(message.endswith("if there are idle CPU cores, or buy a disk") for message in messages)
    header, *rows = [line.split() for line in (tmp_path / "train.log").read_text().splitlines()]
    assert header[2] == "wait"
    assert float(rows[-1][2].strip("%")) == pytest.approx(100 * share, abs=0.6)
