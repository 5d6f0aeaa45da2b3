"""int8 files: smaller, and near enough. What int8 costs in AP, benchmarks/export.py measures."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("nncf")
pytest.importorskip("openvino")

from detector.export import ExportSettings
from detector.quantize import quantize
from tests.detector.test_export import expected, lively, pictures, run_openvino


def test_int8(tmp_path: Path) -> None:
    predictor = lively("yolo26_n")
    files = []
    for number, image in enumerate(pictures(4)):
        files.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(files[-1]), (image.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    about = quantize(predictor, tmp_path / "a.xml", files, ExportSettings("raw"))
    assert about["precision"] == "int8"
    num_parameters = sum(p.numel() for p in predictor.model.deploy().parameters())
    assert (tmp_path / "a.bin").stat().st_size < 1.5 * num_parameters  # bytes
    images = pictures(1)
    truth, found = expected(predictor, images, "raw"), run_openvino(tmp_path / "a.xml", images)
    assert 0 < np.abs(found[1] - truth[1].numpy()).mean() < 0.05
    with pytest.raises(ValueError, match="no pictures to calibrate with"):
        quantize(predictor, tmp_path / "b.xml", [])
    with pytest.raises(ValueError, match=r"ending in \.xml"):
        quantize(predictor, tmp_path / "b.onnx", files)
