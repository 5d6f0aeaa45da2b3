"""classification.json of a validation and a test."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from detector.batch import ClassBatch
from detector.callbacks import ClassEvaluation, EpochLog

LABELS = [0, 1, 1, 2, 0]
PREDICTED = [0, 1, 0, 0, 0]  # of each image


class Data(L.LightningDataModule):
    """Five images of one pixel, whose value is their number; the last batch repeats image 0, as a sampler would."""

    def loader(self) -> DataLoader:
        batches = [[0, 1], [2, 3], [4, 0]]
        return DataLoader([class_batch(numbers) for numbers in batches], batch_size=None)

    train_dataloader = val_dataloader = test_dataloader = loader

    def image_name(self, split: str, number: int) -> str:
        return f"{split}-{number}.png"

    def image_folder(self, split: str) -> Path:
        return Path("images") / split


def class_batch(numbers: list[int]) -> ClassBatch:
    labels = torch.tensor([LABELS[n] for n in numbers])
    images = torch.tensor(numbers).view(-1, 1, 1, 1).expand(-1, 3, 1, 1).float() / 255
    return ClassBatch(
        images=images,
        labels=labels,
        other_labels=labels,
        shares=torch.ones(len(numbers)),
        indices=torch.tensor(numbers),
    )


class Rote(L.LightningModule):
    """Knows the class of every image, as PREDICTED says."""

    class_names = ("red", "green", "blue")

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: ClassBatch, batch_idx: int) -> Tensor:
        loss = (self.weight - 1).square().sum()
        self.log_dict({"train/loss": loss, "train/lr": 0.1}, on_step=False, on_epoch=True, batch_size=len(batch["labels"]))
        return loss

    def validation_step(self, batch: ClassBatch, batch_idx: int) -> Tensor:
        if not self.trainer.testing:
            self.log_dict({"val/loss": 1.5, "val/top1": 0.6, "val/top5": 1.0}, batch_size=1)
        return torch.eye(3)[torch.tensor([PREDICTED[n] for n in batch["indices"].tolist()])]

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def trainer(folder: Path, *callbacks: L.Callback, **settings: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"max_epochs": 2, "accelerator": "cpu"} | quiet | settings
    return L.Trainer(default_root_dir=folder, callbacks=list(callbacks), **settings)


@pytest.mark.filterwarnings("ignore")
def test_a_training_writes_results_and_columns(tmp_path: Path) -> None:
    """Every second epoch has a validation: the first line of train.log has dashes."""
    evaluation = ClassEvaluation(num_confusions=1, num_mistakes=1)
    log = EpochLog()
    trainer(tmp_path, evaluation, log, check_val_every_n_epoch=2).fit(Rote(), Data())
    results = json.loads((tmp_path / "classification.json").read_text())
    assert results == evaluation.results
    assert (results["split"], results["epoch"], results["images"], results["top1"]) == ("val", 2, 5, 3 / 5)
    assert results["folder"] == str(Path("images/val").resolve())
    assert [(row["name"], row["images"], row["top1"]) for row in results["classes"]] == [
        *(("red", 2, 1.0), ("green", 2, 0.5), ("blue", 1, 0.0))
    ]
    (confusion,) = results["confusions"]
    assert (confusion["class"], confusion["predicted"], confusion["examples"]) == ("green", "red", ["val-2.png"])
    (mistake,) = results["mistakes"]
    assert mistake["image"] in ("val-2.png", "val-3.png")
    assert set(results["images_per_second"]) == {"training", "validation"}
    assert min(results["images_per_second"].values()) > 0

    header, *lines = [line.split() for line in (tmp_path / "train.log").read_text().splitlines()]
    assert header == ["epoch", "top1", "top5", "left", "loss", "val_loss", "lr", "img/s", "train_s", "val_s"]
    assert [line[1:3] for line in lines] == [["-", "-"], ["0.600", "1.000"]]
    assert [line[header.index("val_loss")] for line in lines] == ["-", "1.5"]


@pytest.mark.filterwarnings("ignore")
def test_a_test_has_a_file_of_its_own_and_write_false_has_none(tmp_path: Path) -> None:
    for write, names in ((False, set()), (True, {"classification_test.json"})):
        evaluation = ClassEvaluation(write=write)
        trainer(tmp_path, evaluation).test(Rote(), Data(), verbose=False)
        assert {path.name for path in tmp_path.iterdir()} == names
        assert (evaluation.results["split"], evaluation.results["top1"]) == ("test", 3 / 5)
    assert set(evaluation.results["images_per_second"]) == {"validation"}


def test_the_parts_of_all_ranks_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 1 has the rest of the images, and image 0 again."""
    other = ClassEvaluation()
    fake = SimpleNamespace(sanity_checking=False, testing=False, is_global_zero=True, current_epoch=0, callbacks=[])
    fake.datamodule, fake.default_root_dir, fake.state, fake.world_size = None, tmp_path, SimpleNamespace(fn="validate"), 2
    other.on_validation_epoch_start(fake, None)
    for numbers in ([2, 3], [4, 0]):
        logits = torch.eye(3)[torch.tensor([PREDICTED[n] for n in numbers])]
        other.on_validation_batch_end(fake, None, logits, class_batch(numbers))
    monkeypatch.setattr("detector.callbacks.class_evaluation.gather", lambda parts, trainer: [parts, other._parts])
    evaluation = ClassEvaluation()
    evaluation.on_validation_epoch_start(fake, None)
    evaluation.on_validation_batch_end(fake, None, torch.eye(3)[torch.tensor(PREDICTED[:2])], class_batch([0, 1]))
    evaluation.on_validation_epoch_end(fake, Rote())
    assert (evaluation.results["images"], evaluation.results["top1"]) == (5, 3 / 5)
    assert evaluation.results["folder"] is None
    monkeypatch.setattr("detector.callbacks.class_evaluation.gather", lambda parts, trainer: [])
    other.results = {}
    other.on_validation_epoch_end(fake, Rote())
    assert other.results == {}  # only rank 0 has results


@pytest.mark.parametrize("name", ["num_confusions", "num_mistakes"])
def test_wrong_settings_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} of the evaluation is -1"):
        ClassEvaluation(**{name: -1})
