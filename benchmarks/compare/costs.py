"""What an arm costs: parameters, multiply-adds, times, memory. All arms have their turn in every round of a measurement."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import in_new_process, peak_mb
from benchmarks.compare.networks import BuiltArm, build_arm
from benchmarks.yard import median, milliseconds, ratio, take_turns
from detector.text import plural
from detector.training.batch_size import DTYPES, random_batch
from detector.training.optimizer import build_optimizer, parameter_groups

ROUNDS, WARM_UP = 9, 2
Ratio = list[float]  # the median and, from 6 rounds on, the ends of its 95 % interval


@dataclass(frozen=True)
class Cost:
    """The costs of an arm. Ratios are to the reference arm in the same round."""

    parameters: int  # of the network as trained, both branches
    multiply_adds: int  # the same, for one image
    step_ms: float  # forward, loss, backward and optimizer, one batch
    inference_ms: float  # one image, NMS-free branch, normalization folded
    step_mb: float  # peak memory of training steps
    step_ratio: Ratio
    inference_ratio: Ratio


def measure_costs(arguments: Mapping[str, Sequence[str]], reference: str, rounds: int = ROUNDS) -> dict[str, Any]:
    """Return the costs of every arm, with device and input; ``arguments`` of train.py by arm."""
    arms = {name: build_arm(name, words) for name, words in arguments.items()}
    memory = {name: in_new_process(step_memory, name, list(words)) for name, words in arguments.items()}
    counts = {name: count(arm) for name, arm in arms.items()}
    inferences = {name: partial(milliseconds, inference(arm)) for name, arm in arms.items()}
    steps = {name: partial(milliseconds, training_step(arm)) for name, arm in arms.items()}
    inference_turns = take_turns(inferences, 3 * rounds, WARM_UP)
    step_turns = take_turns(steps, rounds, WARM_UP)
    costs = {
        name: Cost(
            *counts[name],
            step_ms=median(step_turns[name]),
            inference_ms=median(inference_turns[name]),
            step_mb=memory[name],
            step_ratio=_ratio(step_turns[name], step_turns[reference]),
            inference_ratio=_ratio(inference_turns[name], inference_turns[reference]),
        )
        for name in arms
    }
    return {"conditions": conditions(arms[reference]), "arms": {name: asdict(cost) for name, cost in costs.items()}}


def _ratio(turns: list[float], others: list[float]) -> Ratio:
    return ratio([[turn] for turn in turns], [[other] for other in others])


def conditions(arm: BuiltArm) -> str:
    """Return device, threads and input of the measurement as text."""
    device = torch.cuda.get_device_name(arm.device) if arm.device.type == "cuda" else f"{platform.machine()} CPU"
    threads = f", {plural(torch.get_num_threads(), 'thread')}" if arm.device.type == "cpu" else ""
    height, width = arm.size
    return f"{device}{threads}, {width} x {height} px, steps of {arm.data.batch_size} images, PyTorch {torch.__version__}"


@torch.no_grad()
def count(arm: BuiltArm) -> tuple[int, int]:
    """Return the parameters of the network as trained, and its multiply-adds for one image."""
    network = arm.module.model.eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.rand(1, 3, *arm.size))
    return sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() // 2


def inference(arm: BuiltArm) -> Callable[[], None]:
    """Return a function that runs the deployed network on one image."""
    layout = torch.channels_last if arm.module.hparams.channels_last else torch.contiguous_format
    network = arm.module.model.deploy("one2one").to(arm.device, memory_format=layout)
    images = torch.rand(1, 3, *arm.size, device=arm.device).contiguous(memory_format=layout)

    def run() -> None:
        with torch.inference_mode():
            network(images)
        _wait(arm.device)

    return run


def training_step(arm: BuiltArm) -> Callable[[], None]:
    """Return a function that takes one training step on noise, as the run would."""
    module, hp = arm.module.to(arm.device).train(), arm.module.hparams
    groups = parameter_groups(module.model, 1e-5, 0.0, hp.optimizer == "musgd", hp.class_lr_ratio)
    optimizer = build_optimizer(hp.optimizer, groups, hp.momentum)
    batch = random_batch(arm.data.batch_size, arm.size, arm.device)
    dtype = DTYPES.get(arm.precision)
    if hp.compile:
        module.model.compile()

    def run() -> None:
        with torch.autocast(arm.device.type, dtype, enabled=dtype is not None):
            terms = module.loss(module(batch["images"]), batch["targets"], arm.size, one2many_weight=0.5)
        (terms["total"] * arm.data.batch_size).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), hp.clip_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _wait(arm.device)

    return run


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def step_memory(name: str, arguments: Sequence[str]) -> float:
    """Return the peak memory of three training steps in MB, less the memory before them; for a new process."""
    arm = build_arm(name, arguments)
    before = peak_mb()
    step = training_step(arm)
    for _ in range(3):
        step()
    if arm.device.type == "cuda":
        return torch.cuda.max_memory_allocated(arm.device) / 2**20
    return peak_mb() - before
