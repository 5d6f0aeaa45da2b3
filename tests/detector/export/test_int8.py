"""int8 files: smaller, with similar results. benchmarks/export.py measures the loss of AP."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("nncf")
pytest.importorskip("openvino")

from detector.export.graph import ExportSettings
from detector.export.int8 import IN_FLOAT, quantize
from tests.detector.export.test_formats import expected, lively, random_images, run_openvino


@pytest.mark.parametrize("kind", [None, "mixture", "omni"])
def test_int8(kind: str | None, tmp_path: Path) -> None:
    predictor = lively("yolo26_n", **({"dynamic": {"kind": kind}} if kind else {}))
    files = []
    for number, image in enumerate(random_images(4)):
        files.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(files[-1]), (image.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    about = quantize(predictor, tmp_path / "a.xml", files, ExportSettings("raw"))
    assert (about["precision"], about["best_f1_threshold"]) == ("int8", "0.01237")
    import openvino

    model = openvino.Core().read_model(tmp_path / "a.xml")
    assert model.get_rt_info(["model_info", "best_f1_threshold"]).value == "0.01237"
    quantized = {
        op.get_friendly_name(): op.input_value(0).get_node().get_type_name() == "FakeQuantize"
        for op in model.get_ops()
        if op.get_type_name() in ("Convolution", "MatMul", "Multiply", "ReduceMean")
    }
    in_layers = [name for name in quantized if re.match(r".*/stage_p\d/.*conv[12]/conv/(?!Conv)", name)]
    assert len(in_layers) >= {None: 0, "mixture": 12 * 3, "omni": 12 * 7}[kind]  # pooling, routers, products
    assert not any(quantized[name] for name in in_layers)
    in_float = [name for name in quantized if any(re.match(pattern, name) for pattern in IN_FLOAT)]
    assert len(in_float) >= 6  # the last convolutions of a branch
    assert not any(quantized[name] for name in in_float)
    assert sum(quantized.values()) > 60
    num_parameters = sum(p.numel() for p in predictor.model.deploy().parameters())
    assert (tmp_path / "a.bin").stat().st_size < 1.5 * num_parameters  # bytes
    images = random_images(1)
    truth, results = expected(predictor, images, "raw"), run_openvino(tmp_path / "a.xml", images)
    assert 0 < np.abs(results[1] - truth[1].numpy()).mean() < 0.05
    with pytest.raises(ValueError, match="no images to calibrate with"):
        quantize(predictor, tmp_path / "b.xml", [])
    with pytest.raises(ValueError, match=r"ending in \.xml"):
        quantize(predictor, tmp_path / "b.onnx", files)
