"""Record the routing of dynamic layers, and what it says: mean, entropy, and variation between images."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detector.batch import Target
from detector.dynamic.conv2d import dynamic_layers

DOMINANT = 0.9  # an expert with a larger share of the mixture leaves the others idle
ALIKE = 0.05  # experts whose distance is a smaller share of their size do the same


@dataclass(frozen=True)
class LayerRouting:
    """How one dynamic layer mixed its experts over a set of images."""

    mean: Tensor  # (E,), the mean mixture
    std: Tensor  # (E,), over images
    by_class: Tensor  # (C, E), the mean over images that have an object of the class; NaN where none has

    @property
    def entropy(self) -> float:
        """Entropy of the mean mixture, scaled to sum 1: 1 where all experts count alike, 0 where only one does."""
        share = self.mean / self.mean.sum()
        number = len(share)
        return float(-(share * share.clamp_min(1e-12).log()).sum() / math.log(number)) if number > 1 else 1.0

    @property
    def variation(self) -> float:
        """Mean over experts of the standard deviation over images; 0 is a plain convolution."""
        return float(self.std.mean())


class RoutingStatistics:
    """Sums over images, which add up over batches and processes. N images, C classes, E experts."""

    def __init__(self, layers: Mapping[str, int], num_classes: int) -> None:
        """Start at nothing; ``layers`` gives the number of experts by name."""
        self.layers = dict(layers)
        width = sum(self.layers.values())
        # Rows: all images, their squares, then a class each; the last column counts images.
        self.sums = torch.zeros(2 + num_classes, width + 1, dtype=torch.float64)

    def add(self, mixtures: Mapping[str, Tensor], targets: list[Target]) -> None:
        """Count the ``mixtures`` (N, E) of N images by layer."""
        values = torch.cat([mixtures[name].cpu().double() for name in self.layers], dim=1)
        values = torch.cat((values, torch.ones(len(values), 1, dtype=torch.float64)), dim=1)
        present = torch.zeros(len(targets), len(self.sums) - 2, dtype=torch.float64)
        for row, target in zip(present, targets, strict=True):
            row[target["labels"].cpu()] = 1
        self.sums += torch.cat((values.sum(dim=0, keepdim=True), (values**2).sum(dim=0, keepdim=True), present.T @ values))

    def results(self) -> dict[str, LayerRouting]:
        """Return what was counted, by layer; nothing if no image was."""
        count = self.sums[0, -1]
        if count == 0:
            return {}
        mean = self.sums[0] / count
        std = (self.sums[1] / count - mean**2).clamp_min(0).sqrt()
        by_class = self.sums[2:] / self.sums[2:, -1:]  # 0 / 0 is NaN
        sizes = [*self.layers.values(), 1]
        parts = [rows.float().split(sizes, dim=-1) for rows in (mean, std, by_class)]
        return {name: LayerRouting(*columns) for name, *columns in zip(self.layers, *parts)}


def warnings_for(results: Mapping[str, LayerRouting]) -> list[str]:
    """Return a sentence for every layer in which one expert does everything."""
    said = []
    for name, routing in results.items():
        share, expert = (routing.mean / routing.mean.sum()).max(dim=0)
        if share > DOMINANT and len(routing.mean) > 1:
            said.append(f"{name}: expert {int(expert)} has {share:.0%} of the mixture, the others are idle")
    return said


def expert_distance(weight: Tensor) -> float:
    """Return the mean distance between two experts, rows of ``weight`` (E, n), as a share of their mean size."""
    experts = weight.detach().float()
    distances = torch.pdist(experts.cpu())
    return float(distances.mean() / experts.norm(dim=1).mean().cpu().clamp_min(1e-12)) if len(distances) else math.inf


@contextmanager
def record_routing(module: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Within it, every forward pass of ``module`` appends each dynamic layer's mixture (B, E) to the list of its name.

    It listens to the routers, so a compiled network, whose hooks torch leaves out, must be run through ``forward``.
    """
    records: dict[str, list[Tensor]] = {}
    handles = []
    for name, layer in dynamic_layers(module).items():
        seen = records.setdefault(name, [])

        def listen(_router: nn.Module, _inputs: object, logits: Tensor, layer=layer, seen=seen) -> None:
            seen.append(layer.shares(logits.detach()).float())

        handles.append(layer.router.register_forward_hook(listen))
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()
