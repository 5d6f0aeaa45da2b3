"""Write a detector as ONNX, OpenVINO, TorchScript or torch.export file."""

import io
import json
import os
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from detector.dynamic import dynamic_layers
from detector.export.graph import CONTRACTS, MAX_DETECTIONS, OUTPUT_NAMES, ExportGraph, ExportSettings
from detector.extras import PACKAGE, check_installed
from detector.files import atomic_write, check_output
from detector.imaging.letterbox import GRAY
from detector.network.model import Detector
from detector.predict import Predictor
from detector.text import package_version, unknown_name

if TYPE_CHECKING:
    import onnx
    import openvino

Format = Literal["onnx", "openvino", "torchscript", "torch-export"]

# For a new format, also add to PACKAGES, and a branch in ``export``.
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".torchscript", "torch-export": ".pt2"}
# Packages that a format needs beside ours
PACKAGES: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx",), "openvino": ("onnx", "openvino"), "torchscript": (), "torch-export": ()
}  # fmt: skip
OPSET = 18
METADATA_FILE = "metadata.json"  # inside TorchScript and torch.export files


def export(predictor: Predictor, path: str | Path, format: Format, settings: ExportSettings | None = None) -> dict[str, str]:
    """Write the detector of ``predictor``, with its branch and input size, to ``path``; return the file's metadata.

    An existing file is replaced. The suffix must be that of the format, see ``SUFFIXES``; OpenVINO also writes a ``.bin``.
    In half precision the network computes in float16, with float32 input and output; OpenVINO files only store the weights
    in float16, and OpenVINO's plugins choose the precision of the arithmetic. Raises ValueError for settings that the
    format does not support.
    """
    path, settings = Path(path), settings or ExportSettings()
    _check(predictor, path, format, settings)
    metadata = export_metadata(predictor, format, settings)
    if format == "openvino" and settings.half:
        settings = replace(settings, half=False)  # save_openvino compresses the weights
    height, width = predictor.image_size
    graph = ExportGraph(predictor.model, predictor.branch, settings, predictor.image_size).cpu().eval()
    images = torch.rand(settings.batch_size or 2, 3, height, width)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer on our checks of sizes, and on the older exporter, see _onnx
        if format == "torchscript":
            content = _torchscript(graph, images, metadata)
        elif format == "torch-export":
            content = _torch_export(graph, images, metadata, settings)
        else:  # OpenVINO reads ONNX
            content = _onnx(graph, images, metadata, settings)
    if format == "openvino":
        import openvino

        save_openvino(openvino.Core().read_model(content), path, metadata)
    else:
        with atomic_write(path) as unfinished:
            unfinished.write_bytes(content)
    return metadata


def export_metadata(predictor: Predictor, format: Format, settings: ExportSettings) -> dict[str, str]:
    """Return the metadata of the exported file: class names, input, output, license, threshold.

    Every value is text, lists are JSON.
    """
    info = predictor.info
    # of the exported branch; absent if unknown
    best_f1 = {} if predictor.best_f1_threshold is None else {"best_f1_threshold": str(predictor.best_f1_threshold)}
    # absent if all 16 bits were used
    sample_range = {} if info.sixteen_bit_range is None else {"sixteen_bit_range": json.dumps(info.sixteen_bit_range)}
    # absent if the weights did not start from a pre-training of our own, or if nothing is known of its images
    images = {} if info.images_of_pretraining is None else {"images_of_pretraining": info.images_of_pretraining}
    return {
        "names": json.dumps(predictor.class_names, ensure_ascii=False),
        "category_ids": json.dumps(predictor.category_ids),
        "image_size": json.dumps(predictor.image_size),  # height, width
        "batch_size": json.dumps(settings.batch_size),
        "dynamic_size": json.dumps(settings.dynamic_size),
        "stride": str(predictor.model.strides[-1]),
        "letterbox": f"keep the aspect ratio, bilinear, centered (odd pixel right or bottom), padded with {GRAY}",
        "normalization": "RGB, value / 255",
        **sample_range,
        "output": settings.output,
        "output_contract": CONTRACTS[settings.output],
        "branch": predictor.branch,
        "precision": "float16" if settings.half else "float32",
        "dynamic_convolution": _dynamic_convolution(predictor.model, settings),
        "variant": info.variant,
        "backbone": predictor.model.backbone.name,
        "license": info.license or "not stated",
        "provenance": info.provenance,
        **images,
        **best_f1,
        "version": f"{PACKAGE} {package_version(PACKAGE) or 'of a clone'}, format {format}",
    }


def _dynamic_convolution(model: Detector, settings: ExportSettings) -> str:
    """Return the form of the dynamic layers in the graph: "none", "gates" (of channels only), "mix" or "experts"."""
    layers = dynamic_layers(model).values()
    if not layers:
        return "none"
    return "gates" if all(layer.has_constant_kernel for layer in layers) else settings.form


def _check(predictor: Predictor, path: Path, format: Format, settings: ExportSettings) -> None:
    if format not in SUFFIXES:
        raise ValueError(unknown_name("format", format, SUFFIXES))
    if path.suffix != SUFFIXES[format]:
        raise ValueError(f"{path}: the name of a file of format {format} must end in {SUFFIXES[format]}")
    check_installed(f"format {format}", *PACKAGES[format])
    check_output(path, overwrite=True)
    if settings.output == "end2end" and predictor.branch == "one2many":
        raise ValueError("the branch one2many needs NMS, which is not in the graph; export one2one, or the output raw")
    if settings.dynamic_form is not None and not dynamic_layers(predictor.model):
        raise ValueError(f"dynamic_form is {settings.dynamic_form}, but the network has no dynamic layers; leave it out")
    if format == "torchscript" and (settings.batch_size is None or settings.dynamic_size):
        raise ValueError("TorchScript files are traced, for one batch and input size; choose another format for any size")
    if format == "torchscript" and settings.half:
        raise ValueError("TorchScript files are float32; load the file and call .half(), or export another format")


def _onnx(graph: ExportGraph, images: Tensor, metadata: dict[str, str], settings: ExportSettings) -> bytes:
    """Return the graph as an ONNX file, by PyTorch's older, tracing exporter.

    The newer exporter, ``dynamo=True``, takes much longer, for a graph that computes the same.
    """
    import onnx

    file = io.BytesIO()
    names, axes = list(OUTPUT_NAMES[graph.output]), _dynamic_axes(settings)
    torch.onnx.export(
        graph,
        (images,),
        cast(Any, file),  # declared as a path, but a file is documented, too
        input_names=["images"],
        output_names=names,
        dynamic_axes=axes,
        opset_version=OPSET,
        dynamo=False,
    )
    model = onnx.load_from_string(file.getvalue())
    model.producer_name = PACKAGE
    _set_output_sizes(model, num_classes=len(json.loads(metadata["names"])))
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _dynamic_axes(settings: ExportSettings) -> dict[str, dict[int, str]]:
    """Return the axes of any size, by input or output: axis -> name."""
    batch = {0: "batch"} if settings.batch_size is None else {}
    sides = {2: "height", 3: "width"} if settings.dynamic_size else {}
    anchors = {1: "anchors"} if settings.dynamic_size and settings.output == "raw" else {}
    axes = {"images": batch | sides} | dict.fromkeys(OUTPUT_NAMES[settings.output], batch | anchors)
    return {name: numbers for name, numbers in axes.items() if numbers}


def _set_output_sizes(model: "onnx.ModelProto", num_classes: int) -> None:
    """Set the fixed last sizes of the outputs, in place: the tracer does not always know them."""
    last_sizes = {"detections": (MAX_DETECTIONS, 6), "boxes": (4,), "scores": (num_classes,)}
    for output in model.graph.output:
        sizes = last_sizes[output.name]
        for dimension, size in zip(output.type.tensor_type.shape.dim[-len(sizes) :], sizes):
            dimension.dim_value = size


def save_openvino(model: "openvino.Model", path: Path, metadata: dict[str, str]) -> None:
    """Write ``model`` to ``path`` (.xml) and a ``.bin`` beside it, with ``metadata`` as its ``model_info``."""
    import openvino

    for name, value in metadata.items():
        model.set_rt_info(value, ["model_info", name])
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        openvino.save_model(model, Path(folder) / path.name, compress_to_fp16=metadata["precision"] == "float16")
        for suffix in (".bin", ".xml"):
            os.replace(Path(folder) / path.with_suffix(suffix).name, path.with_suffix(suffix))


def _torchscript(graph: ExportGraph, images: Tensor, metadata: dict[str, str]) -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(graph, images), file, _extra_files={METADATA_FILE: json.dumps(metadata)})
    return file.getvalue()


def _torch_export(graph: ExportGraph, images: Tensor, metadata: dict[str, str], settings: ExportSettings) -> bytes:
    stride = int(metadata["stride"])
    rows, columns = (torch.export.Dim(name, min=2) for name in ("rows", "columns"))  # torch.export makes a 1 constant
    sides = {2: stride * rows, 3: stride * columns} if settings.dynamic_size else {}
    batch = {0: torch.export.Dim("batch")} if settings.batch_size is None else {}
    program = torch.export.export(graph, (images,), dynamic_shapes={"images": batch | sides})
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={METADATA_FILE: json.dumps(metadata)})
    return file.getvalue()
