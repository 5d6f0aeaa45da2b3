"""The example in docs/ finds what the predictor finds."""

import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.export.formats import export
from detector.imaging.letterbox import letterbox

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

EXAMPLE = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "onnx_example.py"))


@pytest.mark.parametrize("shape", [(40, 60), (200, 100), (64, 96), (7, 5)])
def test_letterbox(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 2)
    canvas, scale, shift = EXAMPLE["letterbox"](image, [64, 96])
    expected, place = letterbox(image, (64, 96))
    assert np.abs(canvas.astype(int) - expected).max() <= 1  # OpenCV's weights are of 11 bits
    assert shift.tolist() == [place.left, place.top] * 2
    assert scale.tolist() == [place.width / shape[1], place.height / shape[0]] * 2


def test_detections(tmp_path: Path) -> None:
    from tests.detector.export.test_formats import lively

    predictor = lively("yolo26_n")
    export(predictor, tmp_path / "a.onnx", "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)  # no resizing: equal pixels
    found = EXAMPLE["detect"](session, image, 0.4)
    (expected,) = predictor(image, score_threshold=0.4)
    # How near the runtime itself is, test_export.py tests; an untrained network enlarges rounding errors.
    assert len(found) == len(expected) > 5
    np.testing.assert_allclose(sorted(score for _, score, _ in found), expected.scores.flip(0), atol=1e-3)
    for name, score, box in found[:5]:
        same = (expected.boxes - np.float32(box)).abs().amax(dim=1) < 0.01
        assert (same & ((expected.scores - score).abs() < 1e-3)).any()
        assert name in {expected.names[i] for i in same.nonzero().flatten()}
