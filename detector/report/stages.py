"""What each stage of a network costs: parameters, multiply-adds, activation memory in training, and time."""

import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detector.batch import Size
from detector.imaging.plot_files import Plot
from detector.imaging.plots import bar_plot
from detector.network.head import BranchName
from detector.network.model import Detector
from detector.report.page import Table
from detector.text import plural

RUNS, WARM_UP, MOST_SECONDS = 20, 3, 10.0
OTHER = "other"  # work outside of all stages: upsampling, concatenation, anchor points
HEAD = ("", "parameters", "M multiply-adds", "MB activations", "ms")


@dataclass(frozen=True)
class Stage:
    """The costs of a stage. Parameters, multiply-adds and activations are of the network as trained."""

    name: str
    parameters: int
    multiply_adds: int  # of one image
    activation_bytes: float  # that a training step keeps for the backward pass, for each image
    milliseconds: float | None  # of one image in the deployed network; None for a stage that it does not have

    def texts(self) -> list[str]:
        """Return the costs as text, in the order of HEAD."""
        milliseconds = "" if self.milliseconds is None else f"{self.milliseconds:.1f}"
        megabytes = f"{self.activation_bytes / 1e6:.1f}"
        return [f"{self.parameters:,}", f"{self.multiply_adds / 1e6:,.1f}", megabytes, milliseconds]


@dataclass(frozen=True)
class Summary:
    """The stages of a network in the order of its parts, with the work between them last, and how they were measured."""

    stages: list[Stage]
    conditions: str

    @property
    def total(self) -> Stage:
        """The sum of all stages."""
        names = ("parameters", "multiply_adds", "activation_bytes")
        parameters, multiply_adds, size = (sum(getattr(s, name) for s in self.stages) for name in names)
        return Stage("total", parameters, multiply_adds, size, sum(stage.milliseconds or 0 for stage in self.stages))

    def table(self) -> Table:
        """Return a row for each stage, then the total."""
        return Table(HEAD, [[stage.name, *stage.texts()] for stage in [*self.stages, self.total]])

    def plot(self, name: str, title: str) -> Plot:
        """Return bars of the stages: their shares of all parameters, multiply-adds, activations and time."""
        values, texts = {}, {}
        for number, series in enumerate(("parameters", "multiply-adds", "activations", "time")):
            numbers = [_numbers(stage)[number] for stage in self.stages]
            total = sum(numbers) or 1
            values[series] = [value / total for value in numbers]
            texts[series] = [f"{value / total:.0%} {series}" if value else "" for value in numbers]
        return bar_plot(name, title, [stage.name for stage in self.stages], values, texts, width=260)


def _numbers(stage: Stage) -> tuple[float, float, float, float]:
    return stage.parameters, stage.multiply_adds, stage.activation_bytes, stage.milliseconds or 0.0


def summarize(model: Detector, size: Size, branch: BranchName = "one2one") -> Summary:
    """Measure the stages of ``model`` on the CPU for images of ``size`` (height, width).

    Times are those of the network that is deployed with ``branch``.
    """
    parameters = _count_parameters(model)
    multiply_adds = _count_multiply_adds(deepcopy(model).eval(), size)
    activations = _measure_activations(deepcopy(model).train().requires_grad_(True), size)
    times = _measure_times(model.deploy(branch).to(memory_format=torch.channels_last), size)
    names = [*stage_modules(model), OTHER]
    stages = [Stage(n, parameters[n], multiply_adds.get(n, 0), activations.get(n, 0.0), times.get(n)) for n in names]
    stages = [stage for stage in stages if any(_numbers(stage)) or stage.name == OTHER]
    machine = f"{platform.machine()} CPU, {plural(torch.get_num_threads(), 'thread')}, PyTorch {torch.__version__}"
    conditions = (
        f"{size[1]} x {size[0]} px. Parameters, multiply-adds (one image) and activations (what a training step keeps for "
        "the backward pass, for each image) are those of the network as trained, with both branches. Times are medians of "
        f"one image in the deployed network, branch {branch}, on {machine}."
    )
    return Summary(stages, conditions)


def stage_modules(model: Detector) -> dict[str, nn.Module]:
    """Return the stages by name: children of backbone, neck and head, and the entries of lists and of a trunk of timm."""
    stages: dict[str, nn.Module] = {}
    for part in ("backbone", "neck", "head"):
        for name, child in _trunk_opened(model.get_submodule(part)):
            # Networks of timm may run the entries of a Sequential one by one, and never the Sequential itself.
            is_list = type(child) in (nn.ModuleList, nn.ModuleDict, nn.Sequential)
            entries = [(f".{entry}", module) for entry, module in child.named_children()] if is_list else [("", child)]
            stages |= {f"{part}.{name}{entry}": module for entry, module in entries}
    return stages


def _trunk_opened(part: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the children of ``part`` by name; in place of the trunk its own children."""
    for name, child in part.named_children():
        if name == "trunk":
            yield from ((f"trunk.{below}", module) for below, module in child.named_children())
        else:
            yield name, child


def _count_parameters(model: Detector) -> dict[str, int]:
    """Return the parameters of each stage, and those of no stage as OTHER; a shared parameter counts once, for the first."""
    counts: dict[str, int] = defaultdict(int)
    seen: set[int] = set()
    for name, module in [*stage_modules(model).items(), (OTHER, model)]:
        for parameter in module.parameters():
            counts[name] += 0 if id(parameter) in seen else parameter.numel()
            seen.add(id(parameter))
    return counts


@torch.no_grad()
def _count_multiply_adds(model: Detector, size: Size) -> dict[str, int]:
    with FlopCounterMode(display=False) as counter, _measured(model, counter.get_total_flops) as flops:
        model(torch.rand(1, 3, *size))
    return {name: int(sum(values)) // 2 for name, values in flops.items()}


def _measure_activations(model: Detector, size: Size, batch_size: int = 2) -> dict[str, float]:
    """Return the bytes that each stage keeps for the backward pass, for each image, without parameters and buffers."""
    seen = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept, total = [], 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal total
        storage = tensor.untyped_storage()
        if storage._cdata not in seen:
            seen.add(storage._cdata)
            kept.append(storage)  # or a later tensor could have its address
            total += storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, _measured(model, lambda: total) as sizes:
        model(torch.rand(batch_size, 3, *size))
    return {name: sum(values) / batch_size for name, values in sizes.items()}


@torch.inference_mode()
def _measure_times(model: Detector, size: Size) -> dict[str, float]:
    """Return the median milliseconds of each stage of a deployed network, for one image."""
    images = torch.rand(1, 3, *size).contiguous(memory_format=torch.channels_last)
    for _ in range(WARM_UP):
        model(images)
    started = time.perf_counter()
    rounds: list[dict[str, float]] = []
    while len(rounds) < RUNS and (not rounds or time.perf_counter() - started < MOST_SECONDS):
        with _measured(model, time.perf_counter) as seconds:
            model(images)
        rounds.append({name: sum(values) for name, values in seconds.items()})
    return {name: 1e3 * float(np.median([each[name] for each in rounds])) for name in rounds[0]}


@contextmanager
def _measured(model: Detector, read: Callable[[], float]) -> Iterator[dict[str, list[float]]]:
    """Yield a dict that gets, for each stage, how much ``read()`` grows in each of its runs, and OTHER for the rest."""
    growth: dict[str, list[float]] = defaultdict(list)
    before: list[float] = []
    handles = []
    for name, module in stage_modules(model).items():

        def leave(*_: object, name: str = name) -> None:
            growth[name].append(read() - before.pop())

        handles.append(module.register_forward_pre_hook(lambda *_: before.append(read())))
        handles.append(module.register_forward_hook(leave))
    started = read()
    try:
        yield growth
        growth[OTHER].append(read() - started - sum(sum(values) for values in growth.values()))
    finally:
        for handle in handles:
            handle.remove()
