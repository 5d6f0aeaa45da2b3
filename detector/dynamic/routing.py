"""Record the routing weights of dynamic layers, and summarize them: mean, entropy, and variation between images."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from detector.batch import Target
from detector.dynamic.conv2d import dynamic_layers

DOMINANT = 0.9  # an expert with more than this part of all routing weight leaves the other experts idle
ALIKE = 0.05  # experts are alike if expert_distance is below this


@dataclass(frozen=True)
class LayerRouting:
    """Routing weights of one dynamic layer over a set of images, summarized. C classes, E experts."""

    mean: Tensor  # (E,) over all images
    std: Tensor  # (E,) over all images
    by_class: Tensor  # (C, E), the mean over the images that have an object of the class; NaN if there is none

    @property
    def entropy(self) -> float:
        """Entropy of the mean routing weights, scaled to sum 1, in 0..1: 1 if all are equal, 0 if only one is not 0."""
        if len(self.mean) == 1:
            return 1.0
        probabilities = self.mean / self.mean.sum()
        return float(-(probabilities * probabilities.clamp_min(1e-12).log()).sum() / math.log(len(self.mean)))

    @property
    def variation(self) -> float:
        """Mean over experts of the standard deviation over images; at 0 the layer is a plain convolution."""
        return float(self.std.mean())


class RoutingStatistics:
    """Sums of routing weights over images. The sums of several batches or processes may be added up.

    Args:
        layers: number of experts by name of the layer.
        num_classes: number of classes C, for the means by class.
    """

    def __init__(self, layers: Mapping[str, int], num_classes: int) -> None:
        self.layers = dict(layers)
        num_columns = sum(self.layers.values()) + 1  # an expert each, all layers side by side; the last counts images
        # Rows: sums over all images, sums of squares over all images, then sums over the images of each class.
        self.sums = torch.zeros(2 + num_classes, num_columns, dtype=torch.float64)

    def add(self, routing_weights: Mapping[str, Tensor], targets: list[Target]) -> None:
        """Add the ``routing_weights`` (N, E) of N images, by name of the layer, and their ``targets``."""
        values = torch.cat([routing_weights[name].cpu().double() for name in self.layers], dim=1)
        values = torch.cat((values, torch.ones(len(values), 1, dtype=torch.float64)), dim=1)
        present = torch.zeros(len(targets), len(self.sums) - 2, dtype=torch.float64)  # (N, C): 1 if the image has the class
        for row, target in zip(present, targets, strict=True):
            row[target["labels"].cpu()] = 1
        self.sums += torch.cat((values.sum(dim=0, keepdim=True), (values**2).sum(dim=0, keepdim=True), present.T @ values))

    def results(self) -> dict[str, LayerRouting]:
        """Return the summary of each layer by its name; an empty dict if no image was added."""
        count = self.sums[0, -1]
        if count == 0:
            return {}
        mean = self.sums[0] / count
        std = (self.sums[1] / count - mean**2).clamp_min(0).sqrt()
        by_class = self.sums[2:] / self.sums[2:, -1:]  # 0 / 0 is NaN
        parts = [rows.float().split([*self.layers.values(), 1], dim=-1) for rows in (mean, std, by_class)]
        return {name: LayerRouting(*columns) for name, *columns in zip(self.layers, *parts)}


def idle_expert_warnings(results: Mapping[str, LayerRouting]) -> dict[str, str]:
    """Return a warning for every layer, by its name, in which one expert has nearly all of the routing weight."""
    warnings = {}
    for name, routing in results.items():
        part, expert = (routing.mean / routing.mean.sum()).max(dim=0)
        if part > DOMINANT and len(routing.mean) > 1:
            warnings[name] = f"{name}: expert {int(expert)} has {part:.0%} of the routing weight; the other experts are idle"
    return warnings


def expert_distance(weight: Tensor) -> float:
    """Return the mean distance between two experts, rows of ``weight`` (E, n), divided by their mean norm.

    It is 0 for equal experts, about 1.41 for independent ones, and infinite for a single expert.
    """
    experts = weight.detach().float()
    distances = torch.pdist(experts.cpu())
    return float(distances.mean() / experts.norm(dim=1).mean().cpu().clamp_min(1e-12)) if len(distances) else math.inf


@contextmanager
def record_routing(module: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Record the routing weights of all dynamic layers of ``module`` while the context is active.

    Yields a dict with a list for each layer, by its name. Every forward pass appends the routing weights (B, U) to it, in
    float32. They come from hooks on the routers; torch skips the hooks of a compiled network, so call its ``forward``.
    """
    records: dict[str, list[Tensor]] = {}
    handles = []
    for name, layer in dynamic_layers(module).items():
        records[name] = []
        handles.append(layer.router.register_forward_hook(partial(_append, records[name])))
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def _append(record: list[Tensor], _router: nn.Module, _inputs: object, routing_weights: Tensor) -> None:
    """Append the routing weights to ``record``: a forward hook for a router."""
    record.append(routing_weights.detach().float())
