"""Log and plot the routing of dynamic layers in every validation."""

import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from detector.batch import Batch, network_input
from detector.dynamic.conv2d import dynamic_layers
from detector.dynamic.routing import (
    ALIKE,
    LayerRouting,
    RoutingStatistics,
    expert_distance,
    idle_expert_warnings,
    record_routing,
)
from detector.imaging.draw import heat_map, sheet
from detector.network.head import RawOutput
from detector.runs.folder import ROUTING_PLOT


def routing_map(results: Mapping[str, LayerRouting], class_names: list[str], max_classes: int = 20) -> np.ndarray:
    """Return an RGB image: the mean mixture, layers by experts, and below how it differs from class to class."""
    most = max(len(routing.mean) for routing in results.values())
    rows, lines = [], []
    for name, routing in results.items():
        rows.append([*routing.mean.tolist(), *[math.nan] * (most - len(routing.mean))])
        lines.append(f"{_short(name)}  entropy {routing.entropy:.2f}  varies {routing.variation:.3f}")
    experts = [str(i) for i in range(most)]
    upper = heat_map(np.array(rows), lines, experts, (0.0, 1.0), "mean mixture: layers x experts")
    present = ~torch.isnan(next(iter(results.values())).by_class[:, 0])
    chosen = present.nonzero().flatten().tolist()[:max_classes]
    if not chosen:
        return upper
    differences = torch.cat([(routing.by_class - routing.mean)[chosen] for routing in results.values()], dim=1).numpy()
    limit = max(float(np.abs(differences).max()), 1e-6)
    columns = [str(i) for routing in results.values() for i in range(len(routing.mean))]
    title = f"images with an object of the class, minus all: classes x experts of every layer (blue to red: -+{limit:.3f})"
    names = [class_names[i] for i in chosen]
    lower = heat_map(differences, names, columns, (-limit, limit), title, numbers=False)
    return sheet([[upper], [lower]])


class RoutingLog(L.Callback):
    """Logs in every validation what the experts of each dynamic layer do, and draws ``routing.png`` in the run folder.

    Logged are, for each layer, ``routing/<layer>/expert<i>`` (the mean mixture over the validation images),
    ``.../entropy`` and ``.../variation`` (see ``LayerRouting``). It warns, once a layer, when one expert has all of the
    mixture, and at the end of training when the experts of a layer are alike. Does nothing without dynamic layers.
    """

    def __init__(self) -> None:
        self.results: dict[str, LayerRouting] = {}
        self._statistics: RoutingStatistics | None = None
        self._records: dict[str, list[Tensor]] = {}
        self._listening = ExitStack()
        self._warned: set[str] = set()

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        layers = {name: layer.num_experts for name, layer in dynamic_layers(pl_module).items()}
        self._statistics = None
        if layers and not trainer.sanity_checking:
            self._statistics = RoutingStatistics(layers, len(pl_module.class_names))
            self._listening.close()  # of a validation that was interrupted
            self._records = self._listening.enter_context(record_routing(pl_module))

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: RawOutput,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add up the mixtures of the batch."""
        if self._statistics is None:
            return
        if not all(self._records.values()):  # a compiled network runs without its hooks
            _run_eagerly(pl_module, batch["images"])
        num_images = len(batch["targets"])
        # A layer that runs several times on a batch, as heads on several levels do, counts with the mean of these.
        routing_weights = {
            name: torch.cat(w).view(-1, num_images, w[0].shape[1]).mean(dim=0) for name, w in self._records.items()
        }
        self._statistics.add(routing_weights, batch["targets"])
        for seen in self._records.values():
            seen.clear()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log what the experts did, over all processes."""
        if self._statistics is None:
            return
        self._listening.close()
        device = pl_module.device
        sums = self._statistics.sums.to(device, torch.float32 if device.type == "mps" else torch.float64)
        self._statistics.sums = trainer.strategy.reduce(sums, reduce_op="sum").cpu().double()
        self.results = self._statistics.results()
        if not self.results or not trainer.is_global_zero:
            return
        self._log(trainer)
        for name, warning in idle_expert_warnings(self.results).items():
            if name not in self._warned:
                self._warned.add(name)
                rank_zero_warn(warning)
        path = Path(trainer.default_root_dir) / ROUTING_PLOT
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), routing_map(self.results, list(pl_module.class_names))[..., ::-1])

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Warn of experts that never parted."""
        for name, layer in dynamic_layers(pl_module).items():
            if (distance := expert_distance(layer.weight)) < ALIKE:
                rank_zero_warn(f"{name}: its experts are alike (distance {distance:.3f} of their size): one would do")

    def _log(self, trainer: L.Trainer) -> None:
        values: dict[str, float] = {}
        for name, routing in self.results.items():
            numbers = {f"expert{i}": value for i, value in enumerate(routing.mean.tolist())}
            numbers |= {"entropy": routing.entropy, "variation": routing.variation}
            values |= {f"routing/{_short(name)}/{key}": value for key, value in numbers.items()}
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": trainer.current_epoch, **values}, step=trainer.global_step)


@torch.no_grad()
def _run_eagerly(pl_module: L.LightningModule, images: Tensor) -> None:
    network: Any = getattr(pl_module, "model", pl_module)
    assert isinstance(network, nn.Module)
    network.forward(network_input(images, next(network.parameters()).dtype))


def _short(name: str) -> str:
    return name.removeprefix("model.").removesuffix(".conv")
