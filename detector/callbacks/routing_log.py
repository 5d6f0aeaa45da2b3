"""Log and plot the routing of dynamic layers in every validation."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from detector.batch import any_network_input, images_of
from detector.callbacks.routing_figure import routing_figure, short_name
from detector.dynamic import dynamic_layers, record_routing
from detector.dynamic.kernels import KernelStatistics
from detector.dynamic.routing import LayerRouting, RoutingStatistics, alike_experts, idle_expert_warnings, mean_of_runs
from detector.imaging.plot_files import save_png
from detector.runs.folder import ROUTING_PLOT
from detector.text import plural

MOST_CLASSES = 1000  # with more, means by class would take much memory and time, and no figure could show them
MOST_WARNINGS = 4  # layers whose experts are alike that are named one by one: a backbone of timm may have a hundred


class RoutingLog(L.Callback):
    """Log the routing of each dynamic layer in every validation, and draw ``routing.png`` in the run folder.

    Logs for a layer with experts ``routing/<layer>/expert<i>`` (the mean routing weight over the validation images),
    ``entropy``, ``variation`` and ``image_share`` (see ``LayerRouting``); for each gate ``<gate>_variation`` and
    ``<gate>_image_share``; and ``kernel_variation`` (see ``KernelStatistics``). Warns once a layer if one expert has nearly
    all of the weight, and at the end of training if the experts of a layer are alike. Does nothing without dynamic layers.

    Works with any LightningModule whose batches are those of ``any_network_input``. Means by class need ``class_names`` of
    the module, at most ``MOST_CLASSES``, and ``targets`` or ``labels`` in the batches. A layer that does not run once (or
    several times) for each image is left out, with a warning.
    """

    def __init__(self) -> None:
        self.results: dict[str, LayerRouting] = {}
        self._statistics: RoutingStatistics | None = None
        self._kernels: dict[str, KernelStatistics] = {}
        self._records: dict[str, list[Tensor]] = {}
        self._recording = ExitStack()
        self._warned: set[str] = set()
        self._left_out: set[str] = set()

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        layers, self._statistics = dynamic_layers(pl_module), None
        if layers and not trainer.sanity_checking:
            self._statistics = RoutingStatistics(
                {n: layer.units for n, layer in layers.items()}, len(_class_names(pl_module))
            )
            # Now, as some of their numbers are of the weights: the averaged ones are in place during the validation only.
            self._kernels = {name: KernelStatistics(layer) for name, layer in layers.items()}
            self._recording.close()  # of a validation that was interrupted
            self._records = self._recording.enter_context(record_routing(pl_module))

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int = 0,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the routing weights of the batch to the sums."""
        if self._statistics is None:
            return
        if not all(runs for name, runs in self._records.items() if name not in self._left_out):
            _run_eagerly(pl_module, batch)  # a compiled network runs without its hooks
        num_images = len(images_of(batch))
        routing_weights = {name: mean_of_runs(runs, num_images) for name, runs in self._records.items()}
        self._leave_out({name for name, rows in routing_weights.items() if rows is None})
        for name, layer in self._kernels.items():
            for runs in self._records[name]:
                layer.add(runs)
            self._records[name].clear()
        targets = _targets(batch) if _class_names(pl_module) else None
        added = {n: rows for n, rows in routing_weights.items() if rows is not None and n not in self._left_out}
        self._statistics.add(added, targets)

    def _leave_out(self, names: set[str]) -> None:
        """Leave out layers that do not run for each image, with a warning."""
        if new := sorted(names - self._left_out):
            self._left_out |= names
            rank_zero_warn(
                f"{plural(len(new), 'dynamic layer')} did not run once for each image of a batch, e.g. {new[0]}: RoutingLog "
                "leaves them out"
            )

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the statistics over all processes, and draw them."""
        if self._statistics is None:
            return
        self._recording.close()
        parts: list[Any] = [self._statistics, *self._kernels.values()]
        for part in parts:
            part.sums = _summed_over_processes(part.sums, trainer, pl_module.device)
        routing = {n: layer for n, layer in self._statistics.results().items() if n not in self._left_out}
        variations = {name: layer.variation() for name, layer in self._kernels.items()}
        self.results = {name: replace(layer, kernel_variation=variations[name]) for name, layer in routing.items()}
        self._kernels = {}
        if not self.results or not trainer.is_global_zero:
            return
        self._log(trainer)
        for name, warning in idle_expert_warnings(self.results).items():
            if name not in self._warned:
                self._warned.add(name)
                rank_zero_warn(warning)
        figure = routing_figure(self.results, _class_names(pl_module))
        save_png(figure, Path(trainer.default_root_dir) / ROUTING_PLOT)

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Warn of layers whose experts stayed alike; in one message if there are many."""
        layers = {name: layer for name, layer in dynamic_layers(pl_module).items() if layer.num_experts > 1}
        alike = {name: words for name, layer in layers.items() if (words := alike_experts(layer))}
        if len(alike) > MOST_WARNINGS:
            name, words = next(iter(alike.items()))
            rank_zero_warn(
                f"the experts of {len(alike)} of {len(layers)} layers are alike ({words} in {name}): one would do"
            )
            return
        for name, words in alike.items():
            rank_zero_warn(f"{name}: its experts are alike ({words}): one would do")

    def _log(self, trainer: L.Trainer) -> None:
        values: dict[str, float] = {}
        for name, routing in self.results.items():
            values |= {f"routing/{short_name(name)}/{key}": value for key, value in _columns(routing).items()}
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": trainer.current_epoch, **values}, step=trainer.global_step)


def _columns(routing: LayerRouting) -> dict[str, float]:
    """Return the logged numbers of one layer by their names."""
    columns: dict[str, float] = {}
    for gate in routing.units:
        part = routing.gate(gate)
        if gate == "expert":
            columns |= {f"expert{i}": value for i, value in enumerate(part.mean.tolist())} | {"entropy": part.entropy}
        prefix = "" if gate == "expert" else f"{gate}_"
        columns |= {f"{prefix}variation": part.variation, f"{prefix}image_share": part.image_share}
    return columns | {"kernel_variation": routing.kernel_variation}


def _class_names(pl_module: L.LightningModule) -> list[str]:
    names = list(getattr(pl_module, "class_names", ()))
    return names if len(names) <= MOST_CLASSES else []


def _targets(batch: Any) -> list[Any] | None:
    """Return the targets of a ``Batch``, or one for each label of a ``ClassBatch``; None for other batches."""
    if not isinstance(batch, Mapping):
        return None
    if "labels" in batch:
        return [{"labels": label} for label in batch["labels"].cpu()]
    return batch.get("targets")


def _summed_over_processes(sums: Tensor, trainer: L.Trainer, device: torch.device) -> Tensor:
    sums = sums.to(device, torch.float32 if device.type == "mps" else torch.float64)
    return trainer.strategy.reduce(sums, reduce_op="sum").cpu().double()


@torch.no_grad()
def _run_eagerly(pl_module: L.LightningModule, batch: Any) -> None:
    network: nn.Module = getattr(pl_module, "model", pl_module)
    network.forward(any_network_input(batch, pl_module.device, next(network.parameters()).dtype))
