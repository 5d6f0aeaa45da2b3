"""The yard, a unit of a machine's speed, and timing helpers.

Times in yards are ratios to a fixed computation on the same machine: they differ less between machines than seconds do.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torchvision.models import resnet18


def median(values: list[float]) -> float:
    """Return the middle value; of an even number of ``values`` the upper one."""
    return sorted(values)[len(values) // 2]


def yard(repeats: int = 9) -> float:
    """Return the milliseconds of one training step of torchvision's resnet18: batch 8, 224 px, channels_last, 2 threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    model = resnet18(num_classes=10).train().to(memory_format=torch.channels_last)
    images = torch.rand(8, 3, 224, 224).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model(images).sum().backward()

    times = [milliseconds(step) for _ in range(repeats + 2)][2:]
    torch.set_num_threads(threads)
    return median(times)


def milliseconds(function: Callable[[], object]) -> float:
    """Return the milliseconds that one call of ``function`` takes."""
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3


def take_turns(measures: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int) -> dict[str, list[Any]]:
    """Call every function once in each round, in alternating order; return the results after ``warm_up`` more rounds."""
    results: dict[str, list[Any]] = {name: [] for name in measures}
    for number in range(warm_up + rounds):
        for name in measures if number % 2 else reversed(list(measures)):
            results[name].append(measures[name]())
    return {name: values[warm_up:] for name, values in results.items()}


def ratio(turns: list[list[float]], others: list[list[float]]) -> list[float]:
    """Return the median over the rounds of ``turns`` / ``others`` and, from 6 rounds on, the ends of its 95 % interval.

    The interval lies between two of the sorted ratios and has at least 95 % if rounds are independent: the median is outside
    only if nearly all of n fair coins fall on one side.
    """
    ratios = sorted(median(turn) / median(other) for turn, other in zip(turns, others))
    n, num_outside = len(ratios), 0
    while 2 * sum(math.comb(n, k) for k in range(num_outside + 1)) <= 0.05 * 2**n:
        num_outside += 1
    return [float(np.median(ratios)), *([ratios[num_outside - 1], ratios[n - num_outside]] if num_outside else [])]
