"""Measure the speed of detectors, in PyTorch and exported: several variants or checkpoints in the same run.

``python -m benchmarks.inference --models yolo26_n dyn_n`` prints parameters and GFLOPs (trained: both branches; deployed:
one, folded), latency of a batch of 1 (median and 95th percentile, in milliseconds and in yards, see benchmarks/yard.py),
throughput of a batch of 8 and peak memory of a separate process, and writes ``benchmarks/results/inference.json``. About 10
minutes, on a quiet machine. int8 needs images to calibrate with: ``--int8 ../shared/datasets/bccd/train``.

The speed of a machine may drift by a third within an hour. So every round runs each model in each runtime once, in
alternating order, and models are compared (with the first model, and with PyTorch) within each round. Printed are the median
of the rounds' ratios and the 95 % interval of that median.

The time is that of the network with decoding to detections (B, 300, 6), from an array of floats to one. Reading and resizing
images, the same for all, is not included.
"""

import argparse
import json
import math
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.runs import write
from benchmarks.yard import median, milliseconds, yard
from detector.export import ExportSettings, export
from detector.export.graph import ExportGraph
from detector.export.int8 import quantize
from detector.network.config import VARIANTS
from detector.network.model import Detector, build_detector
from detector.predict import Predictor, load_detector
from detector.predict.sources import find_sources
from detector.weights import WeightsInfo

RUNTIMES = ("pytorch", "onnxruntime", "openvino", "openvino-int8")
THREADS = 2
CALIBRATION = 32  # images: enough for speed, not for AP (benchmarks/export.py)
RUNS_PER_TURN = 3
Run = Callable[[], object]


def predictor_of(model: str, size: int) -> Predictor:
    """Return the detector of a checkpoint, or an untrained detector of a variant, with 80 classes."""
    if model in VARIANTS:
        torch.manual_seed(0)
        return Predictor(build_detector(model, 80).eval(), WeightsInfo(model), image_size=size)
    return load_detector(model, image_size=size)


def costs(detector: Detector, size: int) -> dict[str, float]:
    """Return millions of parameters, and GFLOPs of one image (a multiply-add is two)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        detector.to("meta")(torch.empty(1, 3, size, size, device="meta"))
    return {"parameters_m": sum(p.numel() for p in detector.parameters()) / 1e6, "gflops": counter.get_total_flops() / 1e9}


def write_file(predictor: Predictor, runtime: str, batch: int, folder: Path, images: list[Path]) -> Path:
    """Export for ``runtime`` and return the file; for PyTorch, which needs none, return ``folder``."""
    settings = ExportSettings(batch_size=batch)
    if runtime == "pytorch":
        return folder
    if runtime == "onnxruntime":
        path = folder / f"{batch}.onnx"
        export(predictor, path, "onnx", settings)
    elif runtime == "openvino":
        path = folder / f"{batch}.xml"
        export(predictor, path, "openvino", settings)
    else:
        path = folder / f"int8-{batch}.xml"
        quantize(predictor, path, images[: max(len(images) // batch, 1)], settings)  # a batch is copies of one image
    return path


def make_run(predictor: Predictor, runtime: str, batch: int, path: Path) -> Run:
    """Return a function that runs one batch of ``batch`` images."""
    images = np.random.default_rng(0).random((batch, 3, *predictor.image_size), dtype=np.float32)
    if runtime == "pytorch":
        # Settings for batch 1, also for larger batches: PyTorch needs no "experts" form of dynamic layers for them.
        graph = ExportGraph(predictor.model, predictor.branch, ExportSettings(), predictor.image_size)
        graph = graph.eval().to(memory_format=torch.channels_last)
        tensor = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)

        def run() -> object:
            with torch.inference_mode():
                return graph(tensor)

        return run
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"images": images})
    import openvino

    # float32, as in the other runtimes: on some processors the default is bfloat16
    settings = {"INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(path, "CPU", settings)
    return lambda: model(images)


def time_all(runs: dict[str, Run], rounds: int) -> dict[str, list[list[float]]]:
    """Return milliseconds of every run: ``rounds`` turns of ``RUNS_PER_TURN`` each, in alternating order.

    The first run of a turn is not counted: threads of the runtime before it may still be active, and the caches hold
    other data.
    """
    times: dict[str, list[list[float]]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name in runs if number % 2 else reversed(list(runs)):
            turn = [milliseconds(runs[name]) for _ in range(1 + RUNS_PER_TURN)][1:]
            times[name] += [turn] if number else []  # the first round warms up
    return times


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


def peak_memory(model: str, runtime: str, path: Path, size: int) -> float:
    """Return the peak memory, in MB, of a new process that runs five images; PyTorch and the runtime are included."""
    call = [sys.executable, "-m", "benchmarks.inference", "--models", model, "--memory_of", runtime, str(path)]
    process = subprocess.run([*call, "--size", str(size)], check=True, capture_output=True, text=True)
    return float(process.stdout)


def measure_memory(model: str, runtime: str, path: Path, size: int) -> float:
    """Run five images in this process and return its peak memory in MB; ``peak_memory`` starts the process."""
    run = make_run(predictor_of(model, size), runtime, 1, path)
    for _ in range(5):
        run()
    if Path("/proc/self/status").exists():  # rusage would include the parent process
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def make_runs(args: argparse.Namespace, folder: Path) -> tuple[dict[str, dict[str, Any]], dict[int, dict[str, Run]]]:
    """Export every model for every runtime. Returns costs and memory by label, and the runs by batch size and label."""
    files = find_sources([str(args.int8)]).files if args.int8 else []
    images = [file.path for file in files if not file.is_video][:CALIBRATION]
    runtimes = [runtime for runtime in args.runtimes if runtime != "openvino-int8" or images]
    rows: dict[str, dict[str, Any]] = {}
    runs: dict[int, dict[str, Run]] = {1: {}, args.batch: {}}
    for number, model in enumerate(args.models):
        predictor = predictor_of(model, args.size)
        trained, deployed = costs(deepcopy(predictor.model), args.size), costs(predictor.model.deploy(), args.size)
        for runtime in runtimes:
            label = f"{model}, {runtime}"
            (runtime_folder := folder / f"{number}-{runtime}").mkdir()
            paths = {batch: write_file(predictor, runtime, batch, runtime_folder, images) for batch in runs}
            for batch, path in paths.items():
                runs[batch][label] = make_run(predictor, runtime, batch, path)
            rows[label] = {f"trained_{k}": v for k, v in trained.items()} | {f"deployed_{k}": v for k, v in deployed.items()}
            rows[label]["peak_mb"] = peak_memory(model, runtime, paths[1], args.size)
    return rows, runs


def measure(args: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """Return costs, memory, latency and throughput of each model in each runtime, by label."""
    rows, runs = make_runs(args, folder)
    by_runtime = sorted(
        rows, key=lambda label: args.runtimes.index(label.rpartition(", ")[2])
    )  # turns of a runtime in a row
    turns = time_all({label: runs[1][label] for label in by_runtime}, args.rounds)
    for label in by_runtime:
        model, _, runtime = label.rpartition(", ")
        times = np.concatenate(turns[label]).tolist()
        rows[label] |= {"median_ms": median(times), "p95_ms": float(np.percentile(times, 95))}
        rows[label]["of_first_model"] = ratio(turns[label], turns[f"{args.models[0]}, {runtime}"])
        if "pytorch" in args.runtimes:
            rows[label]["faster_than_pytorch"] = ratio(turns[f"{model}, pytorch"], turns[label])
    for label, times in time_all(runs[args.batch], max(args.rounds // 5, 2)).items():
        rows[label]["images_a_second"] = args.batch * 1000 / median(np.concatenate(times).tolist())
    return rows


def table(rows: dict[str, dict[str, Any]], unit: float) -> str:
    """Return ``rows`` as a table of text; ``unit`` is a yard in milliseconds."""
    head = ("M params", "GFLOPs", "deployed:", "GFLOPs", "median ms", "p95 ms", "yards", "images/s", "peak MB")
    lines = [f"{'':<32}" + "".join(f"{name:>11}" for name in head)]
    for label, row in rows.items():
        values = [row[f"{kind}_{cost}"] for kind in ("trained", "deployed") for cost in ("parameters_m", "gflops")]
        values += [row["median_ms"], row["p95_ms"], row["median_ms"] / unit, row["images_a_second"], row["peak_mb"]]
        digits = (2, 2, 2, 2, 1, 1, 3, 1, 0)
        lines.append(f"{label:<32}" + "".join(f"{value:>11.{n}f}" for value, n in zip(values, digits)))
    lines.append(f"\n{'in the same round:':<32}{'time / first model':>26}{'times as fast as PyTorch':>30}")
    for label, row in rows.items():
        compared = [row.get(key) for key in ("of_first_model", "faster_than_pytorch")]
        shown = ["" if c is None else f"{c[0]:.3f}" + (f" ({c[1]:.3f} to {c[2]:.3f})" if c[1:] else "") for c in compared]
        lines.append(f"{label:<32}{shown[0]:>26}{shown[1]:>30}")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["yolo26_n", "dyn_n"], help="variants or checkpoints")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--size", type=int, default=640, help="side of the square input (%(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="of the throughput (%(default)s)")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--int8", type=Path, help="folder of images to calibrate with; without it, int8 is left out")
    parser.add_argument("--out", default="inference", help="name of the results file (%(default)s)")
    parser.add_argument("--memory_of", nargs=2, metavar=("RUNTIME", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if "openvino-int8" in args.runtimes and args.int8 is None and args.runtimes != list(RUNTIMES):
        parser.error("openvino-int8 needs images to calibrate with: --int8 FOLDER")
    torch.set_num_threads(THREADS)
    if args.memory_of:
        print(measure_memory(args.models[0], args.memory_of[0], Path(args.memory_of[1]), args.size))
        return
    before = yard()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args, Path(folder))
    unit = (before + yard()) / 2
    print(table(rows, unit))
    print(f"1 yard = {unit:.0f} ms; {args.size} px, {THREADS} threads, {platform.processor() or platform.machine()}")
    write(args.out, {"yard_ms": unit, "settings": json.loads(json.dumps(vars(args), default=str)), "rows": rows})


if __name__ == "__main__":
    main()
