"""Quantize a detector to int8 after training, by NNCF, for OpenVINO; needs the extra ``int8``."""

import logging
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from detector.export.formats import export, save_openvino
from detector.export.graph import ExportSettings
from detector.extras import check_installed
from detector.imaging.read import read_upright
from detector.predict import Predictor
from detector.text import plural

if TYPE_CHECKING:
    import openvino

# Patterns of operations that stay in floating point: decoding (arithmetic on pixels), and the last convolutions (their
# outputs are distances and logits). See also ``_in_float``.
IN_FLOAT = [r"/(?!detector/).*", r"/detector/head/one2\w+/(box\.\d+/box\.\d+\.2|cls\.\d+/cls\.\d+\.4)/.*"]


def quantize(
    predictor: Predictor, path: str | Path, images: Sequence[Path], settings: ExportSettings | None = None
) -> dict[str, str]:
    """Write the detector of ``predictor`` in int8 to ``path`` (.xml, and a .bin beside it); return the file's metadata.

    ``images`` calibrate the ranges of the activations: a few hundred, like those in use later. Dynamic layers are exported
    in the form "experts", whose kernels are constants. Measure the AP afterwards: it may fall. Raises ValueError as
    ``export`` does, and without images.
    """
    if not images:
        raise ValueError("no images to calibrate with; give a few hundred that are like those in use later")
    nncf = _import_nncf()
    import openvino

    path, settings = Path(path), replace(settings or ExportSettings(), dynamic_form="experts")
    if path.suffix != ".xml" or not path.parent.is_dir():
        raise ValueError(f"{path}: expected a name ending in .xml, in an existing folder")
    with tempfile.TemporaryDirectory() as folder:
        float_path = Path(folder) / "float.xml"
        metadata = export(predictor, float_path, "openvino", settings)
        model = _calibrate(openvino.Core().read_model(float_path), predictor, images, settings.batch_size or 1)
        metadata |= {"precision": "int8", "calibration": f"{plural(len(images), 'image')}, NNCF {nncf.__version__}"}
        save_openvino(model, path, metadata)
    return metadata


def _in_float(operations: Iterable[str]) -> list[str]:
    """Return ``IN_FLOAT`` and patterns of what stays in floating point in dynamic layers: all but their convolutions.

    Routers decide on kernels, and int8 would only add conversions around products with routing weights. A dynamic layer is
    known by its router, which has the name of the layer before its own.
    """
    layers = {match[1] for name in operations if (match := re.match(r"(.+?)(/layer)?/router/", name))}
    return IN_FLOAT + [rf"{re.escape(layer)}/(?!Conv).*" for layer in sorted(layers)]


def _import_nncf() -> ModuleType:
    """Import NNCF with its usage reports turned off: nothing here uses the network."""
    check_installed("quantization to int8", "nncf", "openvino")
    os.environ.setdefault("NNCF_CI", "1")  # NNCF sends no reports from test machines
    import nncf

    return nncf


def _calibrate(model: "openvino.Model", predictor: Predictor, images: Sequence[Path], batch_size: int) -> "openvino.Model":
    """Return ``model`` with int8 convolutions, whose ranges are those on ``images``."""
    nncf = _import_nncf()

    def network_input(image: Path) -> np.ndarray:  # (batch_size, 3, H, W): copies of one image
        batch, _ = predictor.prepare([read_upright(image, predictor.sixteen_bit_range)] * batch_size)
        return batch.float().cpu().numpy()

    preset = nncf.QuantizationPreset.MIXED  # zero points for activations: SiLU is not symmetric
    dataset = nncf.Dataset(images, network_input)
    scope = nncf.IgnoredScope(patterns=_in_float([op.get_friendly_name() for op in model.get_ops()]), validate=False)
    level = logging.getLogger("nncf").level
    nncf.set_log_level(logging.WARNING)  # on INFO it lists every layer that stays in float
    try:
        return nncf.quantize(model, dataset, preset=preset, subset_size=len(images), ignored_scope=scope)
    finally:
        nncf.set_log_level(level)
