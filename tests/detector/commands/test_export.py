"""``python -m detector export``: the file and its metadata, or a message."""

import socket
from pathlib import Path

import pytest

from detector import build_detector
from detector.__main__ import main
from detector.weights.files import save_weights
from detector.weights.info import WeightsInfo
from tests.detector.export.test_formats import INFO, assert_same, lively, random_images, run_openvino


def test_mistakes_exit_with_a_message(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    save_weights(weights, build_detector("yolo26_n", 3).state_dict(), WeightsInfo("yolo26_n", **INFO))
    (tmp_path / "w.onnx").write_text("mine")
    out = ["--out", str(tmp_path / "new.onnx")]
    for arguments, message in (
        ([], r"w\.onnx already exists"),
        (["--out", str(tmp_path / "a.xml")], r"must end in \.onnx"),
        (["--out", str(tmp_path / "lost" / "a.onnx")], "no such folder"),
        ([*out, "--branch", "one2many"], "needs NMS"),
        ([*out, "--batch_size", "0"], "batch_size is 0"),
        ([*out, "--batch_size", "2", "--dynamic", "batch"], "leave out --batch_size"),
        ([*out, "--batch_size", "2", "--dynamic_form", "mix"], "batch size 1 only"),
        (
            [*out, "--dynamic_form", "experts"],
            "dynamic_form is experts, but the network has no dynamic layers",
        ),
        ([*out, "--image_size", "100"], "multiples of 32"),
        (["--format", "torchscript", "--dynamic", "batch"], "are traced"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["export", str(weights), *arguments])
    assert (tmp_path / "w.onnx").read_text() == "mine"
    assert not (tmp_path / "new.onnx").exists()


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was used"))
    weights = tmp_path / "w.safetensors"
    own = {"class_path": "docs.my_blocks.SqueezeExcitation", "init_args": {"reduction": 2}}  # a block of the user
    predictor = lively("yolo26_n", replace=[{"where": "backbone-bottlenecks", "layer": own}])
    save_weights(weights, predictor.model.state_dict(), predictor.info)
    assert main(["export", str(weights), "--format", "openvino", "--dynamic", "size", "--image_size", "64"]) == 0
    assert "  image_size: [64, 64]" in capsys.readouterr().out
    images = random_images(1, (96, 64))
    assert_same(predictor, images, run_openvino(tmp_path / "w.xml", images), "end2end")
