"""A run folder of an earlier version (tests/old_run): this version resumes, evaluates, reports on and exports it.

``run.tar.xz`` is a run of dyn_n with 39,146 parameters, stopped by SIGTERM in epoch 2 of 4, with its data set. The
commit and the numbers that it printed and computed are in ``expected.json``.
"""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import evaluate
import train
from detector import load_detector
from detector.__main__ import main as detector_command
from detector.evaluation.coco_eval import evaluate as coco_numbers
from detector.evaluation.coco_files import load_ground_truth, read_predictions
from detector.runs.checks import is_run_config
from detector.weights.files import read_weights

FILES = Path(__file__).parent / "old_run"
EXPECTED: dict[str, Any] = json.loads((FILES / "expected.json").read_text())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The old run folder, unpacked into the working directory."""
    with tarfile.open(FILES / "run.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return Path("B")


def test_it_resumes_as_the_old_version_did(run: Path) -> None:
    assert is_run_config(yaml.safe_load((run / "config.yaml").read_text()))
    (run / "report.html").write_text("of before the resume")
    train.main(["--config", str(run / "config.yaml"), "--ckpt_path", str(run / "last.ckpt")])
    assert not (run / "report.html").exists()
    assert (run / "report-old.html").read_text() == "of before the resume"
    expected = EXPECTED["resumed"]
    checkpoint = torch.load(run / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == expected["global_step"]
    for key, sums in (("state_dict", expected["averaged"]), ("current_model_state", expected["raw"])):
        for name, total in sums.items():  # other processors round differently
            assert checkpoint[key][name].double().sum().item() == pytest.approx(total, rel=1e-3, abs=1e-3), name
    metrics = checkpoint["weights_info"]["metrics"]
    assert metrics == pytest.approx(expected["metrics"], abs=0.02)
    assert (run / "config-2.yaml").exists()
    assert (run / "resumed-2" / "metrics.csv").exists()


def test_it_is_evaluated_and_reported_with_the_same_numbers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run / "eval_val"
    folder.mkdir()
    (folder / "report.html").write_text("of an earlier evaluation")
    evaluate.main([str(run / "last.ckpt"), "--config", str(run / "config.yaml")])
    printed = capsys.readouterr().out
    assert (folder / "report-old.html").read_text() == "of an earlier evaluation"
    for branch, name in (("one2one", "predictions.json"), ("one2many", "predictions_one2many.json")):
        result = coco_numbers(load_ground_truth(folder / "ground_truth.json"), read_predictions(folder / name))
        assert result.metrics == pytest.approx(EXPECTED["evaluation"][branch], abs=0.005)
        assert f"{result.metrics['AP']:.4f}" in printed
    for reported in (run, folder):
        detector_command(["report", str(reported), "--no_speed", "--images", "shapes/images/val"])
        page = (reported / "report.html").read_text()
        assert "one2many" in page
        assert "data:image/jpeg" in page  # the images were found


def test_its_weights_predict_export_and_convert(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = run / "last.ckpt"
    for branch, expected in EXPECTED["detections"].items():
        (detections,) = load_detector(checkpoint, branch)("shapes/images/val/picture_4.png", score_threshold=0.05)
        assert detections.names == expected["names"]
        torch.testing.assert_close(detections.boxes, torch.tensor(expected["boxes"]), rtol=0, atol=1e-2)
        torch.testing.assert_close(detections.scores, torch.tensor(expected["scores"]), rtol=0, atol=1e-4)
    detector_command(["weights", str(checkpoint), "b.safetensors", "--licence", "MIT"])  # the option's old spelling
    assert read_weights("b.safetensors").info.license == "MIT"
    onnxruntime = pytest.importorskip("onnxruntime")
    detector_command(["export", str(checkpoint), "--out", "b.onnx"])
    metadata = onnxruntime.InferenceSession("b.onnx").get_modelmeta().custom_metadata_map
    american = {"licence": "license", "normalisation": "normalization"}
    assert metadata.keys() == {american.get(key, key) for key in EXPECTED["onnx_metadata"]} | {"backbone"}
    for key in ("names", "category_ids", "image_size", "branch", "variant", "provenance"):
        assert metadata[key] == EXPECTED["onnx_metadata"][key]


def test_its_license_is_read_under_the_old_name(run: Path) -> None:
    content = torch.load(run / "last.ckpt", weights_only=True)
    assert "licence" in content["weights_info"]
    content["weights_info"]["licence"] = "AGPL-3.0"
    torch.save(content, run / "last.ckpt")
    assert read_weights(run / "last.ckpt").info.license == "AGPL-3.0"
    shutil.copy(run / "last.ckpt", "start.ckpt")
    start = ["--model.weights", "start.ckpt", "--trainer.max_epochs", "1"]
    train.main(["--config", "small.yaml", *start, "--run_dir", "tuned"])
    assert read_weights("tuned/last.ckpt").info.license == "AGPL-3.0"
