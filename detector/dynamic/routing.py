"""Record and replace the routing weights of dynamic layers, and summarize them by gate, unit and class."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from detector.batch import Target
from detector.dynamic.conv2d import DynamicConv2d, dynamic_layers
from detector.dynamic.diagnostics import expert_distance, image_share_of, mean_cosine

DOMINANT = 0.9  # an expert with more than this part of all routing weight leaves the other experts idle
ALIKE = 0.05  # experts are alike if expert_distance is below this
ALIKE_COSINE = 1 - ALIKE**2 / 2  # the same for changes of a kernel, which may have different lengths


@dataclass(frozen=True)
class LayerRouting:
    """Routing weights of one dynamic layer over a set of images, summarized. C classes, U units of all gates."""

    mean: Tensor  # (U,) over all images
    std: Tensor  # (U,) over all images
    by_class: Tensor  # (C, U), the mean over the images that have the class; NaN if there is none
    mean_size: Tensor  # (U,), the mean absolute value over all images
    units: dict[str, int]  # number of units by gate, in the order of the columns
    kernel_variation: float = math.nan  # see KernelStatistics; NaN if not measured

    def gate(self, name: str) -> "LayerRouting":
        """Return the part of one gate: input, filter, position or expert."""
        sizes, place = list(self.units.values()), list(self.units).index(name)
        values = self.mean, self.std, self.by_class, self.mean_size
        mean, std, by_class, mean_size = (columns.split(sizes, dim=-1)[place] for columns in values)
        return LayerRouting(mean, std, by_class, mean_size, {name: self.units[name]}, self.kernel_variation)

    @property
    def experts(self) -> "LayerRouting | None":
        """The part of the experts; None for a layer without."""
        return self.gate("expert") if "expert" in self.units else None

    @property
    def entropy(self) -> float:
        """Entropy of the mean sizes of the routing weights, scaled to sum 1: 1 if all are equal, 0 if only one is not 0."""
        if len(self.mean_size) == 1:
            return 1.0
        probabilities = self.mean_size / self.mean_size.sum()
        return float(-(probabilities * probabilities.clamp_min(1e-12).log()).sum() / math.log(len(self.mean_size)))

    @property
    def variation(self) -> float:
        """Mean over units of the standard deviation over images; at 0 the layer is a plain convolution."""
        return float(self.std.mean())

    @property
    def image_share(self) -> float:
        """Share of the variance that is between images, see ``diagnostics.image_share``."""
        return image_share_of(self.mean.double(), self.std.double() ** 2)


class RoutingStatistics:
    """Sums of routing weights over images. The sums of several batches or processes may be added up.

    Args:
        layers: the ``units`` of each layer by its name; a number is that of experts without gates.
        num_classes: number of classes C, for the means by class.
    """

    def __init__(self, layers: Mapping[str, Mapping[Any, int] | int], num_classes: int) -> None:
        self.layers = {name: {"expert": units} if isinstance(units, int) else dict(units) for name, units in layers.items()}
        self._sizes = [sum(units.values()) for units in self.layers.values()]
        num_columns = sum(self._sizes) + 1  # a unit each, all layers side by side; the last counts images
        # Rows: sums over all images, of squares, of absolute values, then sums over the images of each class.
        self.sums = torch.zeros(3 + num_classes, num_columns, dtype=torch.float64)

    def add(self, routing_weights: Mapping[str, Tensor], targets: Sequence[Target] | None = None) -> None:
        """Add the ``routing_weights`` (N, U) of N images, by name of the layer, and their ``targets``, if there are any.

        Layers may be missing; their results are then of no use.
        """
        if not routing_weights:
            return
        values = torch.ones(len(next(iter(routing_weights.values()))), self.sums.shape[1], dtype=torch.float64)
        for name, columns in zip(self.layers, values.split([*self._sizes, 1], dim=1)):
            columns.copy_(routing_weights[name] if name in routing_weights else torch.zeros(()))
        present = torch.zeros(len(values), len(self.sums) - 3, dtype=torch.float64)  # (N, C): 1 if the image has the class
        if targets is not None:
            for row, target in zip(present, targets, strict=True):
                row[target["labels"].cpu()] = 1
        totals = [rows.sum(dim=0, keepdim=True) for rows in (values, values**2, values.abs())]
        self.sums += torch.cat((*totals, present.T @ values))

    def results(self) -> dict[str, LayerRouting]:
        """Return the summary of each layer by its name; an empty dict if no image was added."""
        count = self.sums[0, -1]
        if count == 0:
            return {}
        mean, mean_size = self.sums[0] / count, self.sums[2] / count
        std = (self.sums[1] / count - mean**2).clamp_min(0).sqrt()
        by_class = self.sums[3:] / self.sums[3:, -1:]  # 0 / 0 is NaN
        parts = [rows.float().split([*self._sizes, 1], dim=-1) for rows in (mean, std, by_class, mean_size)]
        layers = zip(self.layers.items(), *parts)
        return {name: LayerRouting(mean, std, by_class, size, units) for (name, units), mean, std, by_class, size in layers}


def idle_expert_warnings(results: Mapping[str, LayerRouting]) -> dict[str, str]:
    """Return a warning for every layer, by its name, in which one expert has nearly all of the routing weight."""
    warnings = {}
    for name, routing in results.items():
        experts = routing.experts
        if experts is None or len(experts.mean) == 1:
            continue
        part, expert = (experts.mean_size / experts.mean_size.sum()).max(dim=0)
        if part > DOMINANT:
            warnings[name] = f"{name}: expert {int(expert)} has {part:.0%} of the routing weight; the other experts are idle"
    return warnings


def alike_experts(layer: DynamicConv2d) -> str:
    """Return how alike the experts of ``layer`` are, e.g. "distance 0.010 of their size"; empty if they differ.

    Experts of a residual layer are changes of its kernel, which may have any length: they are alike in their direction.
    """
    if layer.delta is not None:
        cosine = mean_cosine(layer.experts)  # NaN, which is not above, of one expert, and while all changes are 0
        return f"cosine {cosine:.3f}" if cosine > ALIKE_COSINE else ""
    distance = expert_distance(layer.experts)  # infinite for one expert
    return f"distance {distance:.3f} of their size" if distance < ALIKE else ""


@contextmanager
def record_routing(module: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Record the routing weights of all dynamic layers of ``module``, any network, while the context is active.

    Yields a dict with a list for each layer, by its name. Every run of the layer appends the routing weights (B, U) to it,
    in float32 or, of a network in float64, float64. They come from hooks on the routers; torch skips the hooks of a
    compiled network, so call its ``forward``.
    """
    with _hooks(module, lambda record, inputs, routing_weights: record.append(_kept(routing_weights))) as records:
        yield records


@contextmanager
def record_router_inputs(module: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Record what the routers of ``module`` see, as ``record_routing``: the pooled input of the layer, (B, I)."""
    with _hooks(module, lambda record, inputs, routing_weights: record.append(_kept(inputs[0]))) as records:
        yield records


@contextmanager
def replaced_routing(module: nn.Module, routing_weights: Mapping[str, Tensor | Sequence[Tensor]]) -> Iterator[None]:
    """Feed the given ``routing_weights`` into dynamic layers of ``module`` while the context is active.

    By name of the layer, they are (B, U) for a batch of B images, or (U,) for all images, such as a mean; a list of such has
    one for each run of the layer, in their order, as ``record_routing`` gives it. Layers without an entry route as always.
    Of a compiled network, call ``forward``: torch skips the hooks otherwise, and nothing would be replaced.
    Raises ValueError for unknown names, and in the forward pass for wrong shapes.
    """
    layers = dynamic_layers(module)
    if unknown := [name for name in routing_weights if name not in layers]:
        raise ValueError(f"{unknown[0]!r} is no dynamic layer of the network; these are {', '.join(layers) or '(none)'}")
    iterators = {n: iter(runs) for n, runs in routing_weights.items() if not isinstance(runs, Tensor)}
    handles = []
    for name, given in routing_weights.items():
        source = (lambda given=given: given) if name not in iterators else partial(next, iterators[name], None)
        handles.append(layers[name].router.register_forward_hook(partial(_replace, name, source)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def mean_of_runs(runs: Sequence[Tensor], num_images: int) -> Tensor | None:
    """Return one row for each of ``num_images`` images, (N, U), from the ``runs`` of a layer on them.

    A layer that runs several times on a batch, as heads on several levels do, counts with the mean of these runs. None if
    the layer did not run, or on something else than the images, such as regions of them.
    """
    rows = sum(len(run) for run in runs)
    if not rows or not num_images or rows % num_images:
        return None
    return torch.cat(list(runs)).view(-1, num_images, runs[0].shape[1]).mean(dim=0)


@contextmanager
def _hooks(
    module: nn.Module, keep: Callable[[list[Tensor], tuple[Tensor, ...], Tensor], None]
) -> Iterator[dict[str, list[Tensor]]]:
    """Call ``keep`` with the list of the layer, and inputs and output of its router, at every run of a dynamic layer."""
    records: dict[str, list[Tensor]] = {}
    handles = []
    for name, layer in dynamic_layers(module).items():
        record = records[name] = []
        hook = partial(lambda record, _, inputs, output: keep(record, inputs, output), record)
        handles.append(layer.router.register_forward_hook(hook))
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def _kept(values: Tensor) -> Tensor:
    return values.detach().to(torch.promote_types(values.dtype, torch.float32))


def _replace(
    name: str, source: Callable[[], Tensor | None], _: nn.Module, inputs: tuple[Tensor, ...], own: Tensor
) -> Tensor:
    """Return the routing weights that ``source`` gives in place of the router's ``own`` (B, U): a forward hook."""
    given = source()
    if given is None:
        raise ValueError(f"{name} runs more often than there are routing weights for it; give one tensor for each run")
    if given.shape not in (own.shape, own.shape[1:]):
        raise ValueError(
            f"the routing weights for {name} have the shape {tuple(given.shape)}; expected {tuple(own.shape)}, or "
            f"{tuple(own.shape[1:])} for all images"
        )
    return given.to(own).expand_as(own)
