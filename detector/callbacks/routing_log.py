"""Log and plot the routing of dynamic layers in every validation."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from detector.batch import Batch, network_input
from detector.dynamic import dynamic_layers, record_routing
from detector.dynamic.routing import ALIKE, LayerRouting, RoutingStatistics, expert_distance, idle_expert_warnings
from detector.imaging.plot_files import save_png
from detector.imaging.plot_style import MUTED, legible, plot_style
from detector.imaging.plots import heat_map
from detector.network.head import RawOutput
from detector.runs.folder import ROUTING_PLOT

MOST_WARNINGS = 4  # layers whose experts are alike that are named one by one: a backbone of timm may have a hundred


@plot_style()
def routing_figure(results: Mapping[str, LayerRouting], class_names: list[str], max_classes: int = 20) -> Figure:
    """Draw the mean routing weights, layers by experts, and below how they differ from class to class.

    The lower part shows the first ``max_classes`` classes that occur; without any it is left out.
    """
    num_experts = max(len(routing.mean) for routing in results.values())
    num_columns = sum(len(routing.mean) for routing in results.values())
    present = ~torch.isnan(next(iter(results.values())).by_class[:, 0])
    classes = present.nonzero().flatten().tolist()[:max_classes]
    upper, lower = (46 * num_experts, 20 * len(results)), (13 * num_columns, 20 * len(classes))  # width, height in pixels
    figure = Figure(figsize=(1, 1), dpi=72)  # parts may lie outside: the file has them all
    _draw_means(figure.add_axes((0, 0, upper[0] / 72, upper[1] / 72)), results, num_experts)
    if classes:
        axes = figure.add_axes((0, -(lower[1] + 90) / 72, lower[0] / 72, lower[1] / 72))
        _draw_differences(axes, results, classes, legible(class_names))
    return figure


def _draw_means(axes: Axes, results: Mapping[str, LayerRouting], num_experts: int) -> None:
    """Draw layers by experts; layers with fewer experts leave cells empty."""
    values = np.full((len(results), num_experts), np.nan)
    rows = []
    for n, (name, routing) in enumerate(results.items()):
        values[n, : len(routing.mean)] = routing.mean
        rows.append(f"{_short(name)}, entropy {routing.entropy:.2f}, variation {routing.variation:.3f}   {n}")
    heat_map(axes, values, rows, [str(i) for i in range(num_experts)], (0, 1), "viridis")
    axes.set_title("Mean routing weight of each expert over the evaluated images: layers x experts", x=0, ha="left")


def _draw_differences(axes: Axes, results: Mapping[str, LayerRouting], classes: list[int], class_names: list[str]) -> None:
    """Draw classes by the experts of every layer; the layers have the numbers of the upper part."""
    values = torch.cat([(routing.by_class - routing.mean)[classes] for routing in results.values()], dim=1).numpy()
    limit = max(float(np.abs(values).max()), 1e-6)
    heat_map(axes, values, [class_names[n] for n in classes], [], (-limit, limit), "RdBu_r", numbers=False)
    ends = np.cumsum([len(routing.mean) for routing in results.values()])
    starts = np.append(0, ends[:-1])
    axes.set_xticks((starts + ends - 1) / 2, [str(n) for n in range(len(results))])
    axes.vlines(ends[:-1] - 0.5, -0.5, len(classes) - 0.5, color=MUTED, linewidth=0.5)
    title = "Images with an object of the class: mean routing weight minus that of all images (red: more, blue: less)\n"
    axes.set_title(title + "classes x layers (numbers as above), the experts of a layer side by side", x=0, ha="left")


class RoutingLog(L.Callback):
    """Log the routing of each dynamic layer in every validation, and draw ``routing.png`` in the run folder.

    Logs ``routing/<layer>/expert<i>`` (the mean routing weight over the validation images), ``routing/<layer>/entropy`` and
    ``routing/<layer>/variation`` (see ``LayerRouting``). Warns once a layer if one expert has nearly all of the weight, and
    at the end of training if the experts of a layer are alike. Does nothing without dynamic layers.
    """

    def __init__(self) -> None:
        self.results: dict[str, LayerRouting] = {}
        self._statistics: RoutingStatistics | None = None
        self._records: dict[str, list[Tensor]] = {}
        self._recording = ExitStack()
        self._warned: set[str] = set()

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        layers = {name: layer.num_experts for name, layer in dynamic_layers(pl_module).items()}
        self._statistics = None
        if layers and not trainer.sanity_checking:
            self._statistics = RoutingStatistics(layers, len(pl_module.class_names))
            self._recording.close()  # of a validation that was interrupted
            self._records = self._recording.enter_context(record_routing(pl_module))

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: RawOutput, batch: Batch, *indices: int
    ) -> None:
        """Add the routing weights of the batch to the sums."""
        if self._statistics is None:
            return
        if not all(self._records.values()):  # a compiled network runs without its hooks
            _run_eagerly(pl_module, batch["images"])
        num_images = len(batch["targets"])
        # A layer that runs several times on a batch, as heads on several levels do, counts with the mean of these runs.
        routing_weights = {
            name: torch.cat(runs).view(-1, num_images, runs[0].shape[1]).mean(dim=0) for name, runs in self._records.items()
        }
        self._statistics.add(routing_weights, batch["targets"])
        for runs in self._records.values():
            runs.clear()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the statistics over all processes, and draw them."""
        if self._statistics is None:
            return
        self._recording.close()
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
        figure = routing_figure(self.results, list(pl_module.class_names))
        save_png(figure, Path(trainer.default_root_dir) / ROUTING_PLOT)

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Warn of layers whose experts stayed alike; in one message if there are many."""
        distances = {name: expert_distance(layer.weight) for name, layer in dynamic_layers(pl_module).items()}
        alike = {name: distance for name, distance in distances.items() if distance < ALIKE}
        if len(alike) > MOST_WARNINGS:
            name, least = min(alike.items(), key=lambda item: item[1])
            rank_zero_warn(
                f"the experts of {len(alike)} of {len(distances)} layers are alike (distance below {ALIKE} of their size; "
                f"{least:.3f} in {name}): one would do"
            )
            return
        for name, distance in alike.items():
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
    network: nn.Module = getattr(pl_module, "model", pl_module)
    network.forward(network_input(images, next(network.parameters()).dtype))


def _short(name: str) -> str:
    return name.removeprefix("model.").removesuffix(".conv")
