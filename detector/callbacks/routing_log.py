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
from detector.imaging.plot_files import enclose, save_png
from detector.imaging.plot_style import INK, legible, plot_style, use_fonts
from detector.imaging.plots import BAR_GAP, heat_map, shortened
from detector.network.head import RawOutput
from detector.runs.folder import ROUTING_PLOT

MOST_WARNINGS = 4  # layers whose experts are alike that are named one by one: a backbone of timm may have a hundred
LEAST_LIMIT = 0.01  # of the color scale of differences: smaller ones stay nearly white
ROW, COLUMN, EXPERT = 20, 46, 13  # pixels: a layer; an expert beside its number, and within a class
EXPLANATION = (
    "Entropy: 1 if all experts have the same mean routing weight, 0 if one has all.\n"
    "Variation: standard deviation of the routing weights between images; at 0 the layer is a plain convolution."
)


@plot_style()
def routing_figure(results: Mapping[str, LayerRouting], class_names: list[str], max_classes: int = 20) -> Figure:
    """Draw a row for each layer: the mean routing weight of each expert, and to the right how classes differ from it.

    The right part shows the first ``max_classes`` classes that occur; without any it is left out.
    """
    num_experts = max(len(routing.mean) for routing in results.values())
    present = (~torch.isnan(next(iter(results.values())).by_class[:, 0])).nonzero().flatten().tolist()
    height = ROW * len(results)
    figure = Figure(figsize=(1, 1), dpi=72)  # until ``enclose``: the sizes below are in its inches
    means = figure.add_axes((0, 0, COLUMN * num_experts / 72, height / 72))
    _draw_means(means, results, num_experts)
    if present:
        classes, names = present[:max_classes], legible(class_names)
        left = COLUMN * num_experts + 150  # beside the columns of entropy and variation
        axes = figure.add_axes((left / 72, 0, EXPERT * num_experts * len(classes) / 72, height / 72))
        _draw_differences(axes, results, num_experts, {n: names[n] for n in classes}, len(present))
    use_fonts(means)
    enclose(figure)
    return figure


def _draw_means(axes: Axes, results: Mapping[str, LayerRouting], num_experts: int) -> None:
    """Draw layers by experts, and their entropy and variation; layers with fewer experts leave cells empty."""
    values = np.full((len(results), num_experts), np.nan)
    for n, routing in enumerate(results.values()):
        values[n, : len(routing.mean)] = routing.mean
    meaning = "mean routing weight\nover the images"
    heat_map(
        axes, values, [_short(name) for name in results], [str(i) for i in range(num_experts)], (0, 1), "viridis", meaning
    )
    axes.set_xlabel("expert", loc="left")
    axes.xaxis.set_label_position("top")
    axes.text(-0.5 - 4 / COLUMN, -1, "layer", ha="right", va="center_baseline")
    columns = {"entropy": [f"{r.entropy:.2f}" for r in results.values()]}
    columns["variation"] = [f"{r.variation:.3f}" for r in results.values()]
    for right, (head, texts) in zip((60, 125), columns.items()):
        x = num_experts - 0.5 + right / COLUMN
        for n, text in enumerate((head, *texts), start=-1):
            axes.text(x, n, text, ha="right", va="center_baseline")
    place = {"xytext": (0, -(BAR_GAP + 70)), "xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(EXPLANATION, (0, 0), va="top", linespacing=1.5, **place)


def _draw_differences(
    axes: Axes, results: Mapping[str, LayerRouting], num_experts: int, classes: Mapping[int, str], num_present: int
) -> None:
    """Draw layers by classes, the experts of a layer side by side in each; ``classes`` are names by label."""
    values = np.full((len(results), len(classes), num_experts), np.nan)
    for n, routing in enumerate(results.values()):
        values[n, :, : len(routing.mean)] = (routing.by_class - routing.mean)[list(classes)]
    limit = max(float(np.nanmax(np.abs(values))), LEAST_LIMIT)
    columns = [str(i) for i in range(num_experts)] * len(classes)
    some = f"; the first {len(classes)} of {num_present} classes" if num_present > len(classes) else ""
    meaning = f"mean over images with an object of the class,\nminus mean over all images (red: more, blue: less){some}"
    heat_map(axes, values.reshape(len(results), -1), [], columns, (-limit, limit), "RdBu_r", meaning, numbers=False)
    axes.set_yticks([])
    axes.tick_params(labelsize=8)
    axes.vlines(np.arange(1, len(classes)) * num_experts - 0.5, -0.5, len(results) - 0.5, color=INK, linewidth=1)
    for n, name in enumerate(classes.values()):
        place = ((n + 0.5) * num_experts - 0.5, -0.5), (0, 16)
        axes.annotate(
            shortened(name), *place, textcoords="offset points", rotation=45, rotation_mode="anchor", ha="left", va="center"
        )


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
        layers = {name: sum(layer.units.values()) for name, layer in dynamic_layers(pl_module).items()}
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
        distances = {name: expert_distance(layer.experts) for name, layer in dynamic_layers(pl_module).items()}
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
