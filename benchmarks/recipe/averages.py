"""Averages of the weights of different length, in one training: each gets its own AP."""

import copy
import json
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from torch import nn

from benchmarks.recipe.numbers import numbers_of
from detector.batch import network_input
from detector.callbacks.coco_evaluation import original_rows
from detector.callbacks.ema import RampedEMA, update_average
from detector.evaluation import load_ground_truth
from detector.files import atomic_write
from detector.network.decode import decode

FILE = "averages.json"
MANY_CLASSES = 20  # from so many on, AP50 of any class is measured, too


class Averages(L.Callback):
    """Keep an average of the network for each of ``shares``, its length as a share of all steps, and evaluate it.

    The average of n steps has the decay 1 - 1/n, and ``tau`` n, see ``RampedEMA``. Training itself does not change. The
    NMS-free numbers after the last epoch, or of ``every_validation``, go into ``averages.json`` in the run's folder, by
    epoch (from 1) and share. A run must be trained in one go: the averages are in no checkpoint.
    """

    def __init__(self, shares: list[float], every_validation: bool = False) -> None:
        self.shares, self.every_validation = shares, every_validation
        self.averages: dict[float, tuple[nn.Module, RampedEMA]] = {}
        self.numbers: dict[int, dict[str, dict[str, float]]] = {}
        self._step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copy the network. Raises ValueError for a run that is resumed."""
        if trainer.global_step:
            raise ValueError("averages are in no checkpoint: remove the folder of the run, and train it anew")
        for share in self.shares:
            length = max(share * float(trainer.estimated_stepping_batches), 2.0)
            network = copy.deepcopy(cast(Any, pl_module).model).eval().requires_grad_(False)
            self.averages[share] = network, RampedEMA(1 - 1 / length, length)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Update the averages after an optimizer step."""
        if trainer.global_step > self._step:
            self._step = trainer.global_step
            for network, schedule in self.averages.values():
                update_average(network, cast(Any, pl_module).model, schedule.decay_at(self._step))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate the averages, and write their numbers."""
        is_last = trainer.current_epoch + 1 == trainer.max_epochs
        if trainer.sanity_checking or not (is_last or self.every_validation):
            return
        numbers = {
            f"{share:g}": self._evaluate(network, trainer, pl_module) for share, (network, _) in self.averages.items()
        }
        self.numbers[trainer.current_epoch + 1] = numbers
        with atomic_write(Path(trainer.default_root_dir) / FILE) as unfinished:
            unfinished.write_text(json.dumps(self.numbers, indent=1) + "\n")

    @torch.no_grad()
    def _evaluate(self, network: nn.Module, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, float]:
        module = cast(Any, pl_module)
        content = cast(Any, trainer).datamodule.ground_truth("val")
        truth = load_ground_truth(content)
        category_numbers = np.array([truth.category_ids.number(id_) for id_ in module.category_ids])
        rows = [np.empty((0, 7))]
        for batch in cast(Any, trainer.val_dataloaders):
            detections = decode(network(network_input(batch["images"], torch.float32)))
            for target, found in zip(batch["targets"], detections, strict=True):
                rows.append(original_rows(target, truth.image_ids.number(target["image_id"]), found, category_numbers))
        return numbers_of(content, truth, np.concatenate(rows), len(module.class_names) >= MANY_CLASSES)
