"""Detectors as functions of images, in PyTorch, ONNX Runtime and OpenVINO on the CPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detector.export import ExportSettings
from detector.export.graph import ExportGraph
from detector.extras import check_installed
from detector.predict import Predictor

Run = Callable[[Tensor], list[np.ndarray]]  # images (B, 3, H, W) -> outputs


def load_onnx(path: Path, threads: int = 0) -> Run:
    """Return a function that runs an ONNX file in ONNX Runtime; 0 ``threads``: as many as it chooses."""
    check_installed("a timing of ONNX Runtime", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.numpy()})


def load_openvino(path: Path, **settings: object) -> Run:
    """Return a function that runs an ONNX or IR file in OpenVINO, in float32: some processors would use bfloat16."""
    check_installed("a timing of OpenVINO", "openvino")
    import openvino

    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32", **settings})
    return lambda images: list(model(images.numpy()).values())


def load_torch(predictor: Predictor, settings: ExportSettings, layout: torch.memory_format = torch.contiguous_format) -> Run:
    """Return a function that runs the graph of an exported file in PyTorch; ``layout`` is that of its weights."""
    graph = ExportGraph(predictor.model, predictor.branch, settings, predictor.image_size).eval().to(memory_format=layout)

    def run(images: Tensor) -> list[np.ndarray]:
        with torch.inference_mode():
            outputs = graph(images)
        return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return run
