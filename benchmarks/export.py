"""Compare exported files with PyTorch: raw outputs and AP.

``python -m benchmarks.export --checkpoint checkpoints/yolo26n-bccd.pt --root datasets/bccd`` exports the
checkpoint in every format that runs on a CPU. For each it prints the AP on the validation set, and the largest differences
to PyTorch of raw boxes (px of the network input) and scores, over real images in batches of 1, 2 and 5. Writes
``benchmarks/results/export.json``, or another name by ``--out``. ``--int8`` also quantizes, with 200 images of the training
set. Takes a few minutes; the machine may do other work.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import option_parser, write
from benchmarks.reference_checkpoint import images_of, read_rgb
from benchmarks.runs import annotations_file
from benchmarks.runtimes import Run, load_onnx, load_openvino, load_torch
from detector.evaluation import detection_rows, evaluate, load_ground_truth
from detector.export import ExportSettings, export
from detector.export.int8 import quantize
from detector.imaging.letterbox import to_original
from detector.predict import Predictor, load_detector

SCORE_THRESHOLD = 0.001
BATCH = 5
ANY_BATCH = f"ONNX Runtime, batches of {BATCH}"  # a file for any batch size


def make_runs(predictor: Predictor, folder: Path, calibration: list[Path]) -> dict[str, Run]:
    """Export the detector in every way into ``folder``; return a function that runs it, by label. No images: no int8."""
    for suffix, format in ((".onnx", "onnx"), (".xml", "openvino")):
        export(predictor, folder / f"one{suffix}", format)
        export(predictor, folder / f"half{suffix}", format, ExportSettings(half=True))
    export(predictor, folder / "any.onnx", "onnx", ExportSettings(batch_size=None))
    runs = {
        "PyTorch": load_torch(predictor, ExportSettings()),
        "ONNX Runtime": load_onnx(folder / "one.onnx"),
        ANY_BATCH: load_onnx(folder / "any.onnx"),
        "ONNX Runtime, half": load_onnx(folder / "half.onnx"),
        "OpenVINO": load_openvino(folder / "one.xml"),
        "OpenVINO, half": load_openvino(folder / "half.xml"),
    }
    if calibration:
        quantize(predictor, folder / "int8.xml", calibration)
        runs["OpenVINO, int8"] = load_openvino(folder / "int8.xml")
    return runs


def largest_differences(run: Run, expected: Run, inputs: Tensor, batch_size: int) -> list[float]:
    """Return the largest difference of raw boxes, in pixels, and of scores, over batches of ``inputs``."""
    largest = [0.0, 0.0]
    for images in inputs.split(batch_size):
        if len(images) == batch_size:
            differences = [float(np.abs(a - b).max()) for a, b in zip(run(images), expected(images), strict=True)]
            largest = [max(pair) for pair in zip(largest, differences)]
    return largest


def average_precision(
    run: Run, predictor: Predictor, images: list[dict[str, Any]], folder: Path, truth: Any, batch_size: int = 1
) -> float:
    """Return the AP of an end2end graph on ``images``, entries of a COCO file, in batches of ``batch_size``."""
    ids = np.array(sorted(truth.cats))
    if [truth.cats[i]["name"] for i in ids] != predictor.class_names:
        raise ValueError(f"the validation set has other classes than the checkpoint: {predictor.class_names}")
    rows = []
    for start in range(0, len(images), batch_size):
        entries = images[start : start + batch_size]
        batch, placements = predictor.prepare([read_rgb(folder / entry["file_name"]) for entry in entries])
        for entry, placement, detections in zip(entries, placements, run(batch)[0], strict=True):
            detections = detections[detections[:, 4] > SCORE_THRESHOLD]
            boxes = to_original(torch.from_numpy(detections[:, :4]), placement).numpy()
            rows.append(detection_rows(entry["id"], boxes, detections[:, 4], ids[detections[:, 5].astype(int)]))
    return evaluate(truth, np.concatenate(rows)).metrics["AP"]


def compare_raw(predictor: Predictor, folder: Path, inputs: Tensor) -> dict[str, dict[str, list[float]]]:
    """Export the raw output for any batch; return, by runtime and batch size, the largest differences to PyTorch."""
    export(predictor, folder / "raw.onnx", "onnx", ExportSettings("raw", batch_size=None, dynamic_size=True))
    expected = load_torch(predictor, ExportSettings("raw"))
    runs = {"ONNX Runtime": load_onnx(folder / "raw.onnx"), "OpenVINO": load_openvino(folder / "raw.onnx")}
    return {
        label: {str(size): largest_differences(run, expected, inputs, size) for size in (1, 2, 5)}
        for label, run in runs.items()
    }


def main() -> None:
    """Export, run, compare, print, write."""
    defaults = {"checkpoint": Path("checkpoints/yolo26n-bccd.pt"), "root": Path("datasets/bccd")}
    parser = option_parser(__doc__, **defaults, int8=False, out="export")
    parser.add_argument("--image_size", type=int, help="side of the input; default: that of the checkpoint")
    args = parser.parse_args()
    predictor = load_detector(args.checkpoint, image_size=args.image_size)
    annotations = annotations_file(args.root)
    images, folder, truth = images_of(annotations), args.root / "val", load_ground_truth(annotations)
    inputs, _ = predictor.prepare([read_rgb(folder / image["file_name"]) for image in images[:10]])
    calibration = sorted((args.root / "train").glob("*.jpg"))[:200] if args.int8 else []
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for label, run in make_runs(predictor, Path(name), calibration).items():
            batch_size = BATCH if label == ANY_BATCH else 1
            result[label] = {"AP": average_precision(run, predictor, images, folder, truth, batch_size)}
            print(f"{label:<28}AP {result[label]['AP']:.4f}", flush=True)
        for label, differences in compare_raw(predictor, Path(name), inputs).items():
            result[label]["largest difference by batch size: box px, score"] = differences
            shown = "   ".join(f"batch {b}: {x:.1e} px, {y:.1e}" for b, (x, y) in differences.items())
            print(f"{label:<28}{shown}")
    write(args.out, result)


if __name__ == "__main__":
    main()
