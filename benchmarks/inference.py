"""Measure the speed of detectors, in PyTorch and exported: several variants or checkpoints in the same run.

``python -m benchmarks.inference --models yolo26_n dyn_n`` prints parameters and GFLOPs (trained: both branches; deployed:
one, folded), latency of a batch of 1 (median and 95th percentile, in milliseconds and in yards, see benchmarks/yard.py),
throughput of a batch of 8 and peak memory of a separate process, and writes ``benchmarks/results/inference.json``. About 10
minutes, on a quiet machine. ``--models`` takes variants, checkpoints, and variants with dynamic layers of one kind by its
default settings, as in ``yolo26_n+omni`` or ``yolo26_n+residual``; ``--batch`` is that of the throughput;
``--out`` names the results file. int8 needs images to calibrate with: ``--int8 datasets/bccd/train``.

The speed of a machine may drift by a third within an hour. So every round runs each model in each runtime once, in
alternating order, and models are compared (with the first model, and with PyTorch) within each round. Printed are the median
of the rounds' ratios and the 95 % interval of that median.

The time is that of the network with decoding to detections (B, 300, 6), from an array of floats to one. Reading and resizing
images, the same for all, is not included.
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import costs, in_new_process, option_parser, peak_mb, print_table, write
from benchmarks.runtimes import load_onnx, load_openvino, load_torch
from benchmarks.yard import median, milliseconds, ratio, take_turns, yard
from detector.dynamic import DynamicConfig
from detector.export import ExportSettings, export
from detector.export.int8 import quantize
from detector.network.config import VARIANTS
from detector.network.model import build_detector
from detector.predict import Predictor, load_detector
from detector.predict.sources import find_sources
from detector.weights import WeightsInfo

RUNTIMES = ("pytorch", "onnxruntime", "openvino", "openvino-int8")
THREADS = 2
CALIBRATION = 32  # images: enough for speed, not for AP (benchmarks/export.py)
RUNS_PER_TURN = 3
Run = Callable[[], object]


def predictor_of(model: str, size: int) -> Predictor:
    """Return the detector of a checkpoint, or an untrained detector of a variant or VARIANT+KIND, with 80 classes."""
    variant, _, kind = model.partition("+")
    if variant in VARIANTS:
        torch.manual_seed(0)
        overrides = {"dynamic": DynamicConfig(kind=kind)} if kind else {}
        return Predictor(build_detector(variant, 80, **overrides).eval(), WeightsInfo(variant), image_size=size)
    return load_detector(model, image_size=size)


def write_file(predictor: Predictor, runtime: str, batch: int, folder: Path, images: list[Path]) -> Path:
    """Export for ``runtime`` and return the file; for PyTorch, which needs none, return ``folder``."""
    if runtime == "pytorch":
        return folder
    settings, path = ExportSettings(batch_size=batch), folder / f"{batch}{'.onnx' if runtime == 'onnxruntime' else '.xml'}"
    if runtime == "openvino-int8":
        quantize(predictor, path, images[: max(len(images) // batch, 1)], settings)  # a batch is copies of one image
    else:
        export(predictor, path, "onnx" if runtime == "onnxruntime" else "openvino", settings)
    return path


def make_run(predictor: Predictor, runtime: str, batch: int, path: Path) -> Run:
    """Return a function that runs one batch of ``batch`` images."""
    images = torch.from_numpy(np.random.default_rng(0).random((batch, 3, *predictor.image_size), dtype=np.float32))
    if runtime == "pytorch":
        # Settings for batch 1, also for larger batches: PyTorch needs no "experts" form of dynamic layers for them.
        images = images.contiguous(memory_format=torch.channels_last)
        run = load_torch(predictor, ExportSettings(), torch.channels_last)
    elif runtime == "onnxruntime":
        run = load_onnx(path, THREADS)
    else:
        run = load_openvino(path, INFERENCE_NUM_THREADS=THREADS, PERFORMANCE_HINT="LATENCY")
    return partial(run, images)


def time_all(runs: dict[str, Run], rounds: int) -> dict[str, list[list[float]]]:
    """Return milliseconds of every run: ``rounds`` turns of ``RUNS_PER_TURN`` each, in alternating order.

    The first run of a turn is not counted: threads of the runtime before it may still be active, and the caches hold
    other data.
    """

    def turn(run: Run) -> list[float]:
        return [milliseconds(run) for _ in range(1 + RUNS_PER_TURN)][1:]

    return take_turns({name: partial(turn, run) for name, run in runs.items()}, rounds, warm_up=1)


def peak_memory(model: str, runtime: str, path: Path, size: int) -> float:
    """Run five images in this process, a new one, and return its peak memory in MB; PyTorch and the runtime are included."""
    torch.set_num_threads(THREADS)
    run = make_run(predictor_of(model, size), runtime, 1, path)
    for _ in range(5):
        run()
    return peak_mb()


def make_runs(args: argparse.Namespace, folder: Path) -> tuple[dict[str, dict[str, Any]], dict[int, dict[str, Run]]]:
    """Export every model for every runtime. Returns costs and memory by label, and the runs by batch size and label."""
    files = find_sources([str(args.int8)]).files if args.int8 else []
    images = [file.path for file in files if not file.is_video][:CALIBRATION]
    runtimes = [runtime for runtime in args.runtimes if runtime != "openvino-int8" or images]
    rows: dict[str, dict[str, Any]] = {}
    runs: dict[int, dict[str, Run]] = {1: {}, args.batch: {}}
    for number, model in enumerate(args.models):
        predictor = predictor_of(model, args.size)
        model_costs = {}
        for kind, detector in (("trained", deepcopy(predictor.model)), ("deployed", predictor.model.deploy())):
            parameters, multiply_adds = costs(detector, args.size)
            model_costs |= {f"{kind}_parameters_m": parameters / 1e6, f"{kind}_gflops": 2 * multiply_adds / 1e9}
        for runtime in runtimes:
            label = f"{model}, {runtime}"
            (runtime_folder := folder / f"{number}-{runtime}").mkdir()
            paths = {batch: write_file(predictor, runtime, batch, runtime_folder, images) for batch in runs}
            for batch, path in paths.items():
                runs[batch][label] = make_run(predictor, runtime, batch, path)
            rows[label] = {**model_costs, "peak_mb": in_new_process(peak_memory, model, runtime, paths[1], args.size)}
    return rows, runs


def measure(args: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """Return costs, memory, latency and throughput of each model in each runtime, by label."""
    rows, runs = make_runs(args, folder)
    # turns of a runtime in a row
    by_runtime = sorted(rows, key=lambda label: args.runtimes.index(label.rpartition(", ")[2]))
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


def show(rows: dict[str, dict[str, Any]], unit: float) -> None:
    """Print costs and times, then the ratios within each round; ``unit`` is a yard in milliseconds."""
    lines, ratios = [], []
    for label, row in rows.items():
        values = [row[f"{kind}_{cost}"] for kind in ("trained", "deployed") for cost in ("parameters_m", "gflops")]
        values += [row["median_ms"], row["p95_ms"], row["median_ms"] / unit, row["images_a_second"], row["peak_mb"]]
        lines.append([label, *(f"{value:.{digits}f}" for value, digits in zip(values, (2, 2, 2, 2, 1, 1, 3, 1, 0)))])
        compared = [row.get(key) for key in ("of_first_model", "faster_than_pytorch")]
        shown = ["" if c is None else f"{c[0]:.3f}" + (f" ({c[1]:.3f} to {c[2]:.3f})" if c[1:] else "") for c in compared]
        ratios.append([label, *shown])
    head = ("M params", "GFLOPs", "deployed:", "GFLOPs", "median ms", "p95 ms", "yards", "images/s", "peak MB")
    print_table(("", *head), *lines)
    print()
    print_table(("in the same round:", "time / first model", "times as fast as PyTorch"), *ratios)


def main() -> None:
    """Measure, print, write."""
    parser = option_parser(__doc__, models=["yolo26_n", "dyn_n"], size=640, batch=8, rounds=40, out="inference")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--int8", type=Path, help="folder of images to calibrate with; without it, int8 is left out")
    args = parser.parse_args()
    if "openvino-int8" in args.runtimes and args.int8 is None and args.runtimes != list(RUNTIMES):
        parser.error("openvino-int8 needs images to calibrate with: --int8 FOLDER")
    torch.set_num_threads(THREADS)
    before = yard()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args, Path(folder))
    unit = (before + yard()) / 2
    show(rows, unit)
    print(f"1 yard = {unit:.0f} ms; {args.size} px, {THREADS} threads, {platform.processor() or platform.machine()}")
    write(args.out, {"yard_ms": unit, "settings": json.loads(json.dumps(vars(args), default=str)), "rows": rows})


if __name__ == "__main__":
    main()
