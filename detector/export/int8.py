"""int8 after training, by NNCF, for OpenVINO: needs ``pip install lightning-dyn-detector[int8]``."""

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from detector.export.formats import export, save_openvino
from detector.export.graph import ExportSettings
from detector.imaging.read import read_upright
from detector.predict.predictor import Predictor
from detector.text import plural

# In float: the decoding, which is arithmetic on pixels, the last convolutions, whose outputs are distances and logits, and
# the routing of dynamic layers, which decides on kernels
IN_FLOAT = [r"/(?!detector/).*", r".*/router/.*", r"/detector/head/one2\w+/(box\.\d+/box\.\d+\.2|cls\.\d+/cls\.\d+\.4)/.*"]


def quantize(
    predictor: Predictor, path: str | Path, images: Sequence[Path], settings: ExportSettings | None = None
) -> dict[str, str]:
    """Write the detector of ``predictor`` in int8 to ``path`` (.xml, and a .bin) and return its metadata.

    ``images`` show what ranges the activations have: a few hundred, like those that will be looked at. Dynamic layers are
    exported in the form "experts", whose kernels are constants. Measure the AP afterwards: it may fall. Raises ValueError
    as ``export`` does, or if there are no images.
    """
    if not images:
        raise ValueError("no images to calibrate with; give some hundred that are like those to be looked at")
    # NNCF reports its use unless told that it runs in a test machine; we want no network.
    os.environ.setdefault("NNCF_CI", "1")
    import nncf
    import openvino

    path, settings = Path(path), replace(settings or ExportSettings(), dynamic_form="experts")
    if path.suffix != ".xml" or not path.parent.is_dir():
        raise ValueError(f"{path}: expected a name ending in .xml, in a folder that is there")
    with tempfile.TemporaryDirectory() as folder:
        about = export(predictor, Path(folder) / "float.xml", "openvino", settings)
        model = openvino.Core().read_model(Path(folder) / "float.xml")

        def inputs(image: Path) -> np.ndarray:
            batch = [read_upright(image)] * (settings.batch_size or 1)
            return predictor.prepare(batch)[0].float().cpu().numpy()

        level = logging.getLogger("nncf").level
        nncf.set_log_level(logging.WARNING)  # it would name every layer that stays in float
        try:
            model = nncf.quantize(
                model,
                nncf.Dataset(images, inputs),
                preset=nncf.QuantizationPreset.MIXED,  # zero points: SiLU is not symmetric
                subset_size=len(images),
                ignored_scope=nncf.IgnoredScope(patterns=IN_FLOAT, validate=False),
            )
        finally:
            nncf.set_log_level(level)
        about |= {"precision": "int8", "calibration": f"{plural(len(images), 'image')}, NNCF {nncf.__version__}"}
        save_openvino(model, path, about)
    return about
