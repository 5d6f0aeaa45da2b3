"""Do exported files compute what PyTorch computes, and what does it do to AP?

``python -m benchmarks.export --checkpoint ../shared/checkpoints/yolo26n-bccd.pt --root ../shared/datasets/bccd`` exports the
checkpoint in every way that runs on a CPU, and prints for each the AP on the validation set and the largest differences to
PyTorch of raw boxes (px of the network input) and scores, over real images in batches of 1, 2 and 5. Writes
``benchmarks/results/export.json``. Takes a few minutes; the machine need not be quiet.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.reference_checkpoint import read_rgb
from benchmarks.runs import write
from detector.evaluation.coco_eval import evaluate
from detector.evaluation.coco_files import detection_rows, load_ground_truth
from detector.export.formats import export
from detector.export.graph import ExportGraph, ExportSettings
from detector.export.int8 import quantize
from detector.imaging.letterbox import to_original
from detector.predict.predictor import Predictor, load_detector

Run = Callable[[Tensor], list[np.ndarray]]
SCORE_THRESHOLD = 0.001
BATCH = 5
ANY_BATCH = f"ONNX Runtime, batches of {BATCH}"  # of a file for any


def onnx_runner(path: Path) -> Run:
    """Return what runs an ONNX file in ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.numpy()})


def openvino_runner(path: Path) -> Run:
    """Return what runs an ONNX or IR file in OpenVINO, in float32 where the processor would choose bfloat16."""
    import openvino

    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: list(model(images.numpy()).values())


def torch_runner(predictor: Predictor, settings: ExportSettings) -> Run:
    """Return what runs the graph in PyTorch."""
    graph = ExportGraph(predictor.model, predictor.branch, settings, predictor.image_size).eval()

    def run(images: Tensor) -> list[np.ndarray]:
        with torch.inference_mode():
            found = graph(images)
        return [part.numpy() for part in (found if isinstance(found, tuple) else (found,))]

    return run


def differences(run: Run, truth: Run, inputs: Tensor, batches: tuple[int, ...]) -> dict[str, list[float]]:
    """Return, for each batch size, the largest difference of raw boxes in pixels, and of scores."""
    result = {}
    for size in batches:
        worst = [0.0, 0.0]
        for images in inputs.split(size):
            if len(images) == size:
                gaps = [float(np.abs(a - b).max()) for a, b in zip(run(images), truth(images), strict=True)]
                worst = [max(pair) for pair in zip(worst, gaps)]
        result[str(size)] = worst
    return result


def average_precision(
    run: Run, predictor: Predictor, images: list[dict[str, Any]], folder: Path, truth: Any, batch_size: int = 1
) -> float:
    """Return AP of an end2end graph on ``images``, so many at a time."""
    ids = np.array(sorted(truth.cats))
    if [truth.cats[i]["name"] for i in ids] != predictor.class_names:
        raise ValueError(f"the validation set has other classes than the checkpoint: {predictor.class_names}")
    rows = []
    for start in range(0, len(images), batch_size):
        some = images[start : start + batch_size]
        batch, places = predictor.prepare([read_rgb(folder / image["file_name"]) for image in some])
        for image, place, found in zip(some, places, run(batch)[0], strict=True):
            found = found[found[:, 4] > SCORE_THRESHOLD]
            boxes = to_original(torch.from_numpy(found[:, :4]), place).numpy()
            rows.append(detection_rows(image["id"], boxes, found[:, 4], ids[found[:, 5].astype(int)]))
    return evaluate(truth, np.concatenate(rows)).metrics["AP"]


def main() -> None:
    """Export, run, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("../shared/checkpoints/yolo26n-bccd.pt"))
    parser.add_argument("--root", type=Path, default=Path("../shared/datasets/bccd"))
    parser.add_argument("--image_size", type=int, help="side of the input; default: that of the checkpoint")
    parser.add_argument("--int8", action="store_true", help="quantize, too, on 200 images of the training set")
    parser.add_argument("--out", default="export", help="name of the results file (%(default)s)")
    args = parser.parse_args()
    predictor = load_detector(args.checkpoint, image_size=args.image_size)
    annotations = args.root / "annotations" / "instances_val.json"
    images = sorted(json.loads(annotations.read_text())["images"], key=lambda image: image["id"])
    folder, truth = args.root / "val", load_ground_truth(annotations)
    inputs, _ = predictor.prepare([read_rgb(folder / image["file_name"]) for image in images[:10]])
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        files = Path(name)
        one, half = ExportSettings(), ExportSettings(half=True)
        export(predictor, files / "one.onnx", "onnx", one)
        export(predictor, files / "half.onnx", "onnx", half)
        export(predictor, files / "one.xml", "openvino", one)
        export(predictor, files / "half.xml", "openvino", half)
        export(predictor, files / "any.onnx", "onnx", ExportSettings(batch_size=None))
        runs = {
            "PyTorch": torch_runner(predictor, one),
            "ONNX Runtime": onnx_runner(files / "one.onnx"),
            ANY_BATCH: onnx_runner(files / "any.onnx"),
            "ONNX Runtime, half": onnx_runner(files / "half.onnx"),
            "OpenVINO": openvino_runner(files / "one.xml"),
            "OpenVINO, half": openvino_runner(files / "half.xml"),
        }
        if args.int8:
            calibration = sorted((args.root / "train").glob("*.jpg"))[:200]
            quantize(predictor, files / "int8.xml", calibration)
            runs["OpenVINO, int8"] = openvino_runner(files / "int8.xml")
        for label, run in runs.items():
            at_a_time = BATCH if label == ANY_BATCH else 1
            result[label] = {"AP": average_precision(run, predictor, images, folder, truth, at_a_time)}
            print(f"{label:<28}AP {result[label]['AP']:.4f}", flush=True)
        raw = ExportSettings("raw", batch_size=None, dynamic_size=True)
        export(predictor, files / "raw.onnx", "onnx", raw)
        expected = torch_runner(predictor, ExportSettings("raw"))
        for label, make in (("ONNX Runtime", onnx_runner), ("OpenVINO", openvino_runner)):
            found = differences(make(files / "raw.onnx"), expected, inputs, (1, 2, 5))
            result[label]["largest difference by batch size: box px, score"] = found
            print(f"{label:<28}" + "   ".join(f"batch {b}: {x:.1e} px, {y:.1e}" for b, (x, y) in found.items()))
    write(args.out, result)


if __name__ == "__main__":
    main()
