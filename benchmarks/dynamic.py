"""What do dynamic convolutions cost, compared with the plain network in the same run?

``python -m benchmarks.dynamic`` (about 20 minutes on 2 cores, nothing else may run; ``--networks`` takes some of the
networks) prints, as ratios to plain yolo26_n with 80 classes: parameters, multiply-adds and time of an inference (640 px,
batch 1, one branch, folded), time and peak memory of a training step (320 px, batch 16), and writes
``benchmarks/results/dynamic.json``, or another name that is given as ``--out``. Times are medians over rounds; every network
has its turn in each round. Memory is measured in a separate process.
"""

import os
import resource
from functools import partial
from itertools import product
from typing import Any

import torch

from benchmarks.common import costs, in_new_process, option_parser, print_table, write
from benchmarks.train_step import Case, Step
from benchmarks.yard import median, milliseconds, take_turns, yard
from detector.dynamic import dynamic_layers
from detector.network.config import CONVOLUTION_PATTERNS
from detector.network.model import Detector, build_detector

PLAIN, THREADS = "plain", 2
NETWORKS: dict[str, dict[str, Any] | None] = {PLAIN: None} | {
    f"{where}, {routing}": {"where": where, "routing": routing}
    for where, routing in product(CONVOLUTION_PATTERNS, ("sigmoid", "softmax"))
}
GATES = ("input", "filter", "position")
NETWORKS |= {  # of the other kinds, in the bottlenecks of the backbone
    "omni, filter": {"kind": "omni", "gates": ("filter",)},
    "omni, input and filter": {"kind": "omni"},
    "omni, all gates": {"kind": "omni", "gates": GATES},
    "omni, all gates, 4 experts": {"kind": "omni", "gates": GATES, "num_experts": 4},
    "residual, centred": {"kind": "residual"},
    "residual, softmax": {"kind": "residual", "routing": "softmax"},
    "residual, centred, input and filter": {"kind": "residual", "gates": ("input", "filter")},
}
COLUMNS = ("layers", "parameters", "multiply_adds", "inference_ms", "step_ms", "step_mb")


def network(name: str) -> Detector:
    """Return an untrained network."""
    return build_detector("yolo26_n", 80, dynamic=NETWORKS[name])


def time_inference(names: list[str], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of one image at 640 px through each deployed network."""
    detectors = {name: network(name).deploy().to(memory_format=torch.channels_last) for name in names}
    images = torch.rand(1, 3, 640, 640).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        calls = {name: partial(milliseconds, partial(detector, images)) for name, detector in detectors.items()}
        return {name: median(times) for name, times in take_turns(calls, rounds, warm_up=3).items()}


def time_steps(names: list[str], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of a training step of each network."""
    steps = {name: Step(training_case(name)).run for name in names}
    return {name: median([sum(parts) for parts in turns]) for name, turns in take_turns(steps, rounds, warm_up=2).items()}


def training_case(name: str) -> Case:
    """Return the case for measuring a training step of ``name``."""
    return Case("yolo26_n", 320, 16, dynamic=NETWORKS[name])


def step_memory(name: str) -> float:
    """Return the peak memory of three training steps of ``name`` in MB, less the memory before them; for a new process."""
    torch.set_num_threads(THREADS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = Step(training_case(name))
    for _ in range(3):
        step.run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / (1024 if os.uname().sysname == "Linux" else 2**20)


def measure(names: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Return all COLUMNS of each network."""
    rows: dict[str, dict[str, float]] = {}
    for name in names:
        deployed = network(name).deploy()
        parameters, multiply_adds = costs(deployed, 640)
        rows[name] = {"layers": len(dynamic_layers(deployed)), "parameters": parameters, "multiply_adds": multiply_adds}
        rows[name]["step_mb"] = in_new_process(step_memory, name)
    inference, steps = time_inference(names, 10 * rounds), time_steps(names, rounds)
    return {name: row | {"inference_ms": inference[name], "step_ms": steps[name]} for name, row in rows.items()}


def show(rows: dict[str, dict[str, float]]) -> None:
    """Print the values of the plain network, and those of the others as ratios to them."""
    plain = rows[PLAIN]
    lines = [[PLAIN, *(f"{plain[column]:,.0f}" for column in COLUMNS)]]
    for name, row in rows.items():
        if name != PLAIN:
            ratios = (f"{row[column] / plain[column]:.3f}" for column in COLUMNS[1:])
            lines.append([name, f"{row['layers']:.0f}", *ratios])
    print_table(("", *COLUMNS), *lines)


def main() -> None:
    """Measure, print, write."""
    parser = option_parser(__doc__, rounds=9, out="dynamic")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    names = list(dict.fromkeys([PLAIN, *args.networks]))
    before = yard()
    rows = measure(names, args.rounds)
    unit = (before + yard()) / 2
    show(rows)
    plain = rows[PLAIN]
    print(f"1 yard = {unit:.0f} ms: plain inference {plain['inference_ms'] / unit:.3f}, step {plain['step_ms'] / unit:.2f}")
    write(args.out, {"yard": unit, "torch": torch.__version__, "rows": rows})


if __name__ == "__main__":
    main()
