"""What do dynamic convolutions cost, compared with the plain network in the same run?

``python -m benchmarks.dynamic`` (about 10 minutes on 2 cores; nothing else may run) prints, as ratios to plain yolo26_n
with 80 classes: parameters, multiply-adds and time of an inference (640 px, batch 1, one branch, folded), time and peak
memory of a training step (320 px, batch 16), and writes ``benchmarks/results/dynamic.json``. Times are medians over rounds;
every network has its turn in each round. Memory is measured in a separate process.
"""

import argparse
import os
import resource
import subprocess
import sys
from itertools import product
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.runs import write
from benchmarks.train_step import Case, Step
from benchmarks.yard import median, milliseconds, yard
from detector.dynamic import dynamic_layers
from detector.network.config import CONVOLUTION_PATTERNS
from detector.network.model import Detector, build_detector

PLAIN = "plain"
NETWORKS: dict[str, dict[str, Any] | None] = {PLAIN: None} | {
    f"{where}, {routing}": {"where": where, "routing": routing}
    for where, routing in product(CONVOLUTION_PATTERNS, ("sigmoid", "softmax"))
}
COLUMNS = ("layers", "parameters", "multiply_adds", "inference_ms", "step_ms", "step_mb")


def network(name: str) -> Detector:
    """Return an untrained network."""
    return build_detector("yolo26_n", 80, dynamic=NETWORKS[name])


def multiply_adds(detector: Detector, size: int = 640) -> int:
    """Return the multiply-adds for one image, counted in a forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        detector.to("meta")(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() // 2


def time_inference(names: list[str], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of one image at 640 px through each deployed network."""
    detectors = {name: network(name).deploy().to(memory_format=torch.channels_last) for name in names}
    images = torch.rand(1, 3, 640, 640).contiguous(memory_format=torch.channels_last)
    times: dict[str, list[float]] = {name: [] for name in names}
    with torch.inference_mode():
        for number in range(rounds + 3):
            for name in names if number % 2 else reversed(names):
                times[name].append(milliseconds(lambda: detectors[name](images)))  # noqa: B023
    return {name: median(values[3:]) for name, values in times.items()}


def time_steps(names: list[str], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of a training step of each network."""
    steps = {name: Step(training_case(name)) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 2):
        for name in names if number % 2 else reversed(names):
            times[name].append(sum(steps[name].run()))
    return {name: median(values[2:]) for name, values in times.items()}


def training_case(name: str) -> Case:
    """Return the case for measuring a training step of ``name``."""
    return Case("yolo26_n", 320, 16, dynamic=NETWORKS[name])


def step_memory(name: str) -> float:
    """Return the peak memory of three training steps of ``name`` in MB, less the memory before them; in a new process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.dynamic", "--memory_of", name], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def measure_memory(name: str) -> float:
    """Return the value of ``step_memory``, measured in this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = Step(training_case(name))
    for _ in range(3):
        step.run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / (1024 if os.uname().sysname == "Linux" else 2**20)


def measure(names: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Return all COLUMNS of each network."""
    rows: dict[str, dict[str, float]] = {}
    for name in names:
        detector = network(name)
        deployed = detector.deploy()
        rows[name] = {
            "layers": len(dynamic_layers(deployed)),
            "parameters": sum(p.numel() for p in deployed.parameters()),
            "multiply_adds": multiply_adds(deployed),
            "step_mb": step_memory(name),
        }
    for column, times in (("inference_ms", time_inference(names, 10 * rounds)), ("step_ms", time_steps(names, rounds))):
        for name, value in times.items():
            rows[name][column] = value
    return rows


def table(rows: dict[str, dict[str, float]]) -> str:
    """Return the values of the plain network, and those of the others as ratios to them."""
    plain = rows[PLAIN]
    lines = [f"{'':<32}" + "".join(f"{column:>15}" for column in COLUMNS)]
    lines.append(f"{PLAIN:<32}" + "".join(f"{plain[column]:>15,.0f}" for column in COLUMNS))
    for name, row in rows.items():
        if name != PLAIN:
            cells = "".join(f"{row[column] / plain[column]:>15.3f}" for column in COLUMNS[1:])
            lines.append(f"{name:<32}{row['layers']:>15.0f}{cells}")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--memory_of", choices=list(NETWORKS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.memory_of:
        print(measure_memory(args.memory_of))
        return
    names = list(dict.fromkeys([PLAIN, *args.networks]))
    before = yard()
    rows = measure(names, args.rounds)
    unit = (before + yard()) / 2
    print(table(rows))
    plain = rows[PLAIN]
    print(f"1 yard = {unit:.0f} ms: plain inference {plain['inference_ms'] / unit:.3f}, step {plain['step_ms'] / unit:.2f}")
    write("dynamic", {"yard": unit, "torch": torch.__version__, "rows": rows})


if __name__ == "__main__":
    main()
