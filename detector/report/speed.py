"""Size of the network of a checkpoint, and its speed on this machine."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detector.network.head import BranchName
from detector.network.model import to_channels_last
from detector.predict import load_detector
from detector.report.page import Table
from detector.text import plural

RUNS, WARM_UP, MOST_SECONDS = 20, 3, 10.0


@dataclass(frozen=True)
class Speed:
    """Size of a deployed network, and its speed with one image at a time."""

    branch: str
    machine: str
    table: Table


@torch.inference_mode()
def measure(checkpoint: Path, branch: BranchName = "one2one") -> Speed:
    """Run the network of ``checkpoint`` on the CPU: one image at a time, without reading and scaling images."""
    predictor = load_detector(checkpoint)
    model = to_channels_last(predictor.model.deploy(branch))
    height, width = predictor.image_size
    images = torch.rand(1, 3, height, width).contiguous(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter:
        model(images)  # a multiplication and an addition are two operations
    times = _measure_times(lambda: model.detect(images, branch))
    rows = [
        ["parameters, as trained", f"{_count_parameters(predictor.model):,}"],
        ["parameters, deployed (one branch, normalization folded)", f"{_count_parameters(model):,}"],
        [f"GFLOPs of a {width} x {height} image", f"{counter.get_total_flops() / 1e9:.2f}"],
        ["milliseconds per image, median", f"{np.median(times) * 1000:.1f}"],
        ["milliseconds per image, 95th percentile", f"{np.percentile(times, 95) * 1000:.1f}"],
        ["license of the weights", predictor.info.license or "not stated"],
    ]
    machine = f"{platform.machine()} CPU, {plural(torch.get_num_threads(), 'thread')}, PyTorch {torch.__version__}"
    return Speed(branch, machine, Table(["", "value"], rows))


def _measure_times(run: Callable[[], object]) -> list[float]:
    """Return the seconds of each run."""
    for _ in range(WARM_UP):
        run()
    times: list[float] = []
    while len(times) < RUNS and sum(times) < MOST_SECONDS:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return times


def _count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
