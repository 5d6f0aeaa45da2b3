"""Write a detector as ONNX, OpenVINO, TorchScript or torch.export file."""

import io
import json
import os
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from detector.dynamic.conv2d import dynamic_layers
from detector.files import atomic_write
from detector.imaging.letterbox import GRAY
from detector.predict.predictor import Predictor
from detector.text import package_version

if TYPE_CHECKING:
    import openvino

from detector.export.graph import CONTRACTS, MAX_DETECTIONS, OUTPUT_NAMES, ExportGraph, ExportSettings

Format = Literal["onnx", "openvino", "torchscript", "torch-export"]

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".torchscript", "torch-export": ".pt2"}
OPSET = 18
METADATA_FILE = "metadata.json"  # inside of TorchScript and torch.export files


def export(predictor: Predictor, path: str | Path, format: Format, settings: ExportSettings | None = None) -> dict[str, str]:
    """Write the detector of ``predictor``, with its branch and input size, to ``path`` and return the file's metadata.

    A file there is replaced. The suffix must be that of the format, see ``SUFFIXES``; OpenVINO writes a ``.bin`` beside it.
    In half precision the network computes in float16, between float32 input and output; for OpenVINO the weights are
    float16, and its plugins choose what to compute in. Raises ValueError for what cannot be exported.
    """
    path, settings = Path(path), settings or ExportSettings()
    _check(predictor, path, format, settings)
    about = describe(predictor, format, settings)
    if format == "openvino" and settings.half:
        settings = replace(settings, half=False)  # the weights are compressed when they are written
    height, width = predictor.image_size
    graph = ExportGraph(predictor.model, predictor.branch, settings, predictor.image_size).cpu().eval()
    images = torch.rand(settings.batch_size or 2, 3, height, width)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer doubts our checks of sizes; the exporter is deprecated, see _onnx
        if format == "torchscript":
            _save_torchscript(graph, images, path, about)
        elif format == "torch-export":
            _save_torch_export(graph, images, path, about, settings)
        elif format == "onnx":
            _write(path, _onnx(graph, images, about, settings))
        else:
            import openvino

            save_openvino(openvino.Core().read_model(_onnx(graph, images, about, settings)), path, about)
    return about


def describe(predictor: Predictor, format: Format, settings: ExportSettings) -> dict[str, str]:
    """Return what a user of the exported file must know; every value is text, lists are JSON."""
    info = predictor.info
    return {
        "names": json.dumps(predictor.class_names, ensure_ascii=False),
        "category_ids": json.dumps(predictor.category_ids),
        "image_size": json.dumps(predictor.image_size),  # height, width
        "batch_size": json.dumps(settings.batch_size),
        "dynamic_size": json.dumps(settings.dynamic_size),
        "stride": str(predictor.model.strides[-1]),
        "letterbox": f"keep the aspect ratio, bilinear, centered (odd pixel right or bottom), padded with {GRAY}",
        "normalization": "RGB, value / 255",
        "output": settings.output,
        "output_contract": CONTRACTS[settings.output],
        "branch": predictor.branch,
        "precision": "float16" if settings.half else "float32",
        "dynamic_convolution": settings.form if dynamic_layers(predictor.model) else "none",
        "variant": info.variant,
        "license": info.license or "not stated",
        "provenance": info.provenance,
        "version": f"lightning-dyn-detector {package_version('lightning-dyn-detector') or 'of a clone'}, format {format}",
    }


def _check(predictor: Predictor, path: Path, format: Format, settings: ExportSettings) -> None:
    if format not in SUFFIXES:
        raise ValueError(f"unknown format {format!r}; choose one of {', '.join(SUFFIXES)}")
    if path.suffix != SUFFIXES[format]:
        raise ValueError(f"{path}: the name of a file of format {format} must end in {SUFFIXES[format]}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent}: no such folder; make it first")
    if settings.output == "end2end" and predictor.branch == "one2many":
        raise ValueError("the branch one2many needs NMS, which is not in the graph; export one2one, or the output raw")
    if format == "torchscript" and (settings.batch_size is None or settings.dynamic_size):
        raise ValueError("TorchScript files are traced, for one batch and input size; choose another format for any size")
    if format == "torchscript" and settings.half:
        raise ValueError("TorchScript files are float32; load the file and call .half(), or export another format")


def _onnx(graph: ExportGraph, images: Tensor, about: dict[str, str], settings: ExportSettings) -> bytes:
    """Return the graph as an ONNX file.

    By the tracing exporter: the newer one, ``dynamo=True``, takes much longer, for a graph that computes the same.
    """
    import onnx

    names = OUTPUT_NAMES[graph.output]
    axes = {0: "batch"} if settings.batch_size is None else {}
    sides = {2: "height", 3: "width"} if settings.dynamic_size else {}
    anchors = {1: "anchors"} if settings.dynamic_size and graph.output == "raw" else {}
    dynamic = {"images": axes | sides} | dict.fromkeys(names, axes | anchors)
    file = io.BytesIO()
    torch.onnx.export(
        graph,
        (images,),
        file,
        input_names=["images"],
        output_names=list(names),
        dynamic_axes={name: values for name, values in dynamic.items() if values},
        opset_version=OPSET,
        dynamo=False,
    )
    model = onnx.load_from_string(file.getvalue())
    model.producer_name = "lightning-dyn-detector"
    for output in model.graph.output:  # the tracer does not always know them
        last = {"detections": (MAX_DETECTIONS, 6), "boxes": (4,), "scores": (len(json.loads(about["names"])),)}[output.name]
        for size, value in zip(output.type.tensor_type.shape.dim[-len(last) :], last):
            size.dim_value = value
    onnx.helper.set_model_props(model, about)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def save_openvino(model: "openvino.Model", path: Path, about: dict[str, str]) -> None:
    """Write ``model`` to ``path`` (.xml) and a ``.bin`` beside it, with ``about`` as its ``model_info``."""
    import openvino

    for name, value in about.items():
        model.set_rt_info(value, ["model_info", name])
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        openvino.save_model(model, Path(folder) / path.name, compress_to_fp16=about["precision"] == "float16")
        for suffix in (".bin", ".xml"):
            os.replace(Path(folder) / path.with_suffix(suffix).name, path.with_suffix(suffix))


def _save_torchscript(graph: ExportGraph, images: Tensor, path: Path, about: dict[str, str]) -> None:
    traced = torch.jit.trace(graph, images)
    file = io.BytesIO()
    torch.jit.save(traced, file, _extra_files={METADATA_FILE: json.dumps(about)})
    _write(path, file.getvalue())


def _save_torch_export(
    graph: ExportGraph, images: Tensor, path: Path, about: dict[str, str], settings: ExportSettings
) -> None:
    stride = int(about["stride"])
    rows, columns = (torch.export.Dim(name, min=2) for name in ("rows", "columns"))  # with one, torch.export compiles it in
    sides = {2: stride * rows, 3: stride * columns} if settings.dynamic_size else {}
    batch = {0: torch.export.Dim("batch")} if settings.batch_size is None else {}
    program = torch.export.export(graph, (images,), dynamic_shapes={"images": batch | sides})
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={METADATA_FILE: json.dumps(about)})
    _write(path, file.getvalue())


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(content)
