"""Size of the network of a checkpoint, and its speed on this machine."""

import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from detector.network.head import BranchName
from detector.predict import load_detector
from detector.text import plural

RUNS, WARM_UP, MOST_SECONDS = 20, 3, 10.0


@dataclass(frozen=True)
class Speed:
    """Measurements of the deployed network, one image at a time."""

    parameters: int  # as trained, both branches
    deployed_parameters: int  # one branch, normalization folded
    gflops: float  # of one image; a multiplication and an addition are two
    size: tuple[int, int]  # height and width of the input
    median_ms: float
    p95_ms: float
    machine: str
    branch: str
    license: str  # of the weights


@torch.inference_mode()
def measure(checkpoint: Path, branch: BranchName = "one2one") -> Speed:
    """Run the network of ``checkpoint`` on the CPU: one image at a time, without reading and scaling images."""
    predictor = load_detector(checkpoint)
    model = predictor.model.deploy(branch).to(memory_format=torch.channels_last)
    images = torch.rand(1, 3, *predictor.image_size).contiguous(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter:
        model(images)
    for _ in range(WARM_UP):
        model.detect(images, branch)
    times: list[float] = []
    while len(times) < RUNS and sum(times) < MOST_SECONDS:
        started = time.perf_counter()
        model.detect(images, branch)
        times.append(time.perf_counter() - started)
    return Speed(
        parameters=sum(p.numel() for p in predictor.model.parameters()),
        deployed_parameters=sum(p.numel() for p in model.parameters()),
        gflops=counter.get_total_flops() / 1e9,
        size=predictor.image_size,
        median_ms=statistics.median(times) * 1000,
        p95_ms=float(np.percentile(times, 95)) * 1000,
        branch=branch,
        license=predictor.info.license or "not stated",
        machine=f"{platform.machine()} CPU, {plural(torch.get_num_threads(), 'thread')}, PyTorch {torch.__version__}",
    )
