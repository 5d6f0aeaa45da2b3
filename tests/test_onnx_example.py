"""The example in docs/ gives the detections of the predictor."""

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
    expected, placement = letterbox(image, (64, 96))
    assert np.abs(canvas.astype(int) - expected).max() <= 1  # OpenCV's weights are of 11 bits
    assert shift.tolist() == [placement.left, placement.top] * 2
    assert scale.tolist() == [placement.width / shape[1], placement.height / shape[0]] * 2


def test_detections(tmp_path: Path) -> None:
    from tests.detector.export.test_formats import lively

    predictor = lively("yolo26_n")
    export(predictor, tmp_path / "a.onnx", "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)  # no resizing: equal pixels
    detections = EXAMPLE["detect"](session, image, 0.4)
    (expected,) = predictor(image, score_threshold=0.4)
    # tests/detector/export/ tests the runtime more closely; here an untrained network enlarges rounding errors.
    assert len(detections) == len(expected) > 5
    np.testing.assert_allclose(sorted(score for _, score, _ in detections), expected.scores.flip(0), atol=1e-3)
    for name, score, box in detections[:5]:
        same = (expected.boxes - np.float32(box)).abs().amax(dim=1) < 0.01
        assert (same & ((expected.scores - score).abs() < 1e-3)).any()
        assert name in {expected.names[i] for i in same.nonzero().flatten()}


def test_without_arguments_it_says_how_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["onnx_example.py"])
    with pytest.raises(SystemExit, match=r"usage: python onnx_example\.py best\.onnx image\.jpg"):
        runpy.run_path(str(Path(__file__).parents[1] / "docs" / "onnx_example.py"), run_name="__main__")
