"""Numbers of each dynamic layer of a network: how much its kernel depends on the image, and what its routing tells."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from detector.batch import Batch
from detector.dynamic import diagnostics, dynamic_layers
from detector.dynamic.conv2d import DynamicConv2d
from detector.dynamic.kernels import KernelStatistics
from detector.dynamic.to_plain import mean_convolution, run

CLASS_PERMUTATIONS = 100  # there are many classes
MOST_CLASSES = 16  # those in the most images, and not in all
LEAST_IMAGES = 5  # with a class, and without it


@dataclass(frozen=True)
class Recording:
    """Routing weights and router inputs of N images, in a given order."""

    routing: dict[str, list[Tensor]]  # by layer: (N, U) of each run on an image
    inputs: dict[str, Tensor]  # by layer: (N, I), the mean over runs

    @classmethod
    def of(cls, routing: Mapping[str, list[Tensor]], inputs: Mapping[str, list[Tensor]], places: np.ndarray) -> Self:
        """Sort the records of several batches: row n of all batches belongs to image ``places[n]``."""
        runs = {name: _runs(parts, places) for name, parts in routing.items() if parts}
        return cls(runs, {name: torch.stack(_runs(inputs[name], places)).mean(dim=0) for name in runs})

    def mean_routing(self, name: str) -> Tensor:
        """Return the routing weights (N, U) of a layer; the mean of its runs if it runs several times on an image."""
        return torch.stack(self.routing[name]).mean(dim=0)


def _runs(parts: list[Tensor], places: np.ndarray) -> list[Tensor]:
    """Return the runs (N, U) of a layer, sorted by image, from its ``parts`` in the order of batches, then of runs."""
    num_runs = sum(map(len, parts)) // len(places)
    runs = [torch.cat(parts[n::num_runs]).cpu() for n in range(num_runs)]
    order = torch.from_numpy(np.argsort(places))
    return [rows[order] for rows in runs]


def layer_numbers(
    network: nn.Module,
    batches: Iterable[Batch],
    recording: Recording,
    sources: Tensor | None,
    presence: Mapping[str, Tensor],
) -> dict[str, dict[str, Any]]:
    """Return by name of each recorded layer:

    - ``kind``, and ``gates``: ``variation`` and ``image_share`` of the routing weights of each gate;
    - ``rho``, the variation of the kernel, and ``output_effect``, that of the output, see ``output_effects``;
    - ``experts``: ``distance`` and ``cosine``; of mixtures ``entropy`` of an image's weights in nats, of residual layers
      ``relative_size``, the mean of |sum of weighted changes| / |plain kernel|;
    - ``source`` and ``class``: what the routing weights tell, see ``source_numbers`` and ``class_numbers``.

    ``sources`` (N,) are None if there is one only; ``presence`` (N,) bool says for each class which images have it.
    """
    layers = {name: layer for name, layer in dynamic_layers(network).items() if name in recording.routing}
    kernels = {name: KernelStatistics(layer) for name, layer in layers.items()}
    for name, statistics in kernels.items():
        for run_ in recording.routing[name]:
            statistics.add(run_)
    effects = output_effects(network, batches, kernels)
    numbers = {}
    for name, layer in layers.items():
        routing = recording.mean_routing(name)
        gates = layer.gate_weights(routing)
        numbers[name] = {
            "kind": layer.kind,
            "gates": {gate: _gate_numbers(weights) for gate, weights in gates.items()},
            "rho": kernels[name].variation(),
            "output_effect": effects[name],
            "experts": expert_numbers(layer, gates["expert"]) if layer.num_experts > 1 else {},
            "source": {} if sources is None else source_numbers(routing, recording.inputs[name], sources),
            "class": class_numbers(routing, presence, sources),
        }
    return numbers


def numbers_of_all_layers(recording: Recording, sources: Tensor | None) -> dict[str, Any]:
    """Return what the routing weights of all layers side by side tell about the source, as ``layer_numbers`` does."""
    if sources is None:
        return {}
    routing = torch.cat([recording.mean_routing(name) for name in recording.routing], dim=1)
    return {"source": source_numbers(routing, torch.cat(list(recording.inputs.values()), dim=1), sources)}


def _gate_numbers(routing: Tensor) -> dict[str, float]:
    return {"variation": diagnostics.variation(routing), "image_share": diagnostics.image_share(routing)}


def expert_numbers(layer: DynamicConv2d, routing: Tensor) -> dict[str, float]:
    """Return how similar the experts are, and how they are weighted by ``routing`` (N, M); see ``layer_numbers``."""
    cosine = diagnostics.mean_cosine(layer.experts)
    numbers = {"distance": diagnostics.expert_distance(layer.experts), "cosine": cosine if cosine == cosine else None}
    if layer.routing != "centred":
        numbers["entropy"] = diagnostics.mean_entropy(routing)
    if layer.delta is not None:
        changes = layer.delta.detach().double().cpu()
        squares = torch.einsum("nm,mk,nk->n", routing.double(), changes @ changes.T, routing.double())
        numbers["relative_size"] = float(squares.clamp_min(0).sqrt().mean() / layer.weight.detach().double().norm().cpu())
    return numbers


def source_numbers(routing: Tensor, inputs: Tensor, sources: Tensor) -> dict[str, float]:
    """Return what ``routing`` (N, U) tells about the ``sources`` (N,).

    ``information_share`` is of the unit that tells most, ``mean_information_share`` the mean over units, both as part of
    the sources' entropy and less what permuted sources give, and ``p`` the share of permutations that tell as much.
    ``accuracy`` is that of the nearest images, beside that from the router's ``inputs`` (N, I), and beside chance.
    """
    information = diagnostics.information(routing, sources)
    return {
        "information_share": information.largest_share,
        "mean_information_share": information.mean_share,
        "p": information.p,
        "variance_share": diagnostics.eta_squared(routing, sources)[1],
        "accuracy": diagnostics.neighbor_accuracy(routing, sources),
        "accuracy_of_inputs": diagnostics.neighbor_accuracy(inputs, sources),
        "chance": diagnostics.chance(sources),
    }


def class_numbers(routing: Tensor, presence: Mapping[str, Tensor], sources: Tensor | None) -> dict[str, Any]:
    """Return what ``routing`` (N, U) tells about the presence of a class within sources.

    Of the class that it tells most about, its ``name``, the ``information_share`` of the best unit, and ``p``, the share of
    permutations of the images that tell as much about any class; ``mean_information_share`` over classes and units. Classes
    in too few or nearly all images are left out; empty if none is left.
    """
    counts = {name: min(int(mask.sum()), int((~mask).sum())) for name, mask in presence.items()}
    names = sorted((name for name, count in counts.items() if count >= LEAST_IMAGES), key=lambda name: -counts[name])
    labelings = {name: presence[name].long() for name in names[:MOST_CLASSES]}
    if not labelings:
        return {}
    parts = diagnostics.informations(routing, labelings, sources, num_permutations=CLASS_PERMUTATIONS)
    best = max(parts, key=lambda name: parts[name].largest_share)
    return {
        "name": best,
        "information_share": parts[best].largest_share,
        "p": parts[best].p,
        "mean_information_share": float(np.mean([part.mean_share for part in parts.values()])),
    }


@torch.no_grad()
def output_effects(
    network: nn.Module, batches: Iterable[Batch], kernels: Mapping[str, KernelStatistics]
) -> dict[str, float]:
    """Return |y - z|^2 / |y - mean y|^2 of each layer in ``kernels``, over the images of ``batches``.

    y is the output of the layer, z its output with the mean kernel, and mean y that of each channel.
    """
    layers = dynamic_layers(network)
    sums = {name: _OutputSums(mean_convolution(statistics)) for name, statistics in kernels.items()}
    with ExitStack() as stack:
        for name, part in sums.items():
            stack.callback(layers[name].register_forward_hook(partial(_add_output, part)).remove)
        for batch in batches:
            run(network, batch)
    return {name: part.ratio() for name, part in sums.items()}


class _OutputSums:
    """Sums over the outputs of a layer."""

    def __init__(self, plain: nn.Conv2d) -> None:
        self.plain, self.differences, self.squares, self.sums, self.count = plain, 0.0, 0.0, 0.0, 0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add the outputs ``y`` (B, O, H, W) for the inputs ``x`` (B, I, H, W)."""
        self.differences += float((y - self.plain(x)).double().square().sum())
        self.squares += float(y.double().square().sum())
        self.sums = self.sums + y.double().sum(dim=(0, 2, 3)).cpu()
        self.count += y.numel() // y.shape[1]

    def ratio(self) -> float:
        variance = self.squares - float(self.sums.square().sum()) / self.count
        return self.differences / max(variance, 1e-300)


def _add_output(sums: _OutputSums, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    sums.add(inputs[0], output)
