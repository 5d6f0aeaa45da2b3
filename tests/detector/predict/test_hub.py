"""The Hugging Face Hub, on folders: no network is used."""

import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from detector import build_detector
from detector.predict.predictor import Predictor
from detector.weights.files import save_weights
from detector.weights.info import WeightsInfo
from tests.detector.weights.test_reference import outputs

pytest.importorskip("huggingface_hub")


def test_saved_and_loaded_with_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any) -> None:
        raise AssertionError("something asked the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    from detector.predict.hub import HubPredictor  # not above: the package may not be installed

    info = WeightsInfo(
        variant="yolo26_n",
        class_names=["cat", "dog"],
        category_ids=[7, 9],
        image_size=(64, 96),
        license="AGPL-3.0 (as its writer says)",
        provenance="trained for fun",
        metrics={"val/AP": 0.25},
        best_f1_thresholds={"one2one": 0.01237},
    )
    save_weights(tmp_path / "w.safetensors", build_detector("yolo26_n", 2).state_dict(), info)
    before = HubPredictor.from_file(tmp_path / "w.safetensors")
    before.save_pretrained(tmp_path / "shared")
    after = HubPredictor.from_pretrained(str(tmp_path / "shared"))
    assert isinstance(after, Predictor)
    assert after.info == info
    assert all(torch.equal(a, b) for a, b in zip(outputs(before.model), outputs(after.model)))
    card = (tmp_path / "shared" / "README.md").read_text()
    for part in ("license: agpl-3.0\n", "pipeline_tag: object-detection", "| 7 | cat |", "| val/AP | 0.2500 |", "64 x 96"):
        assert part in card, part
    assert "trained for fun" in card
    assert "best F1 on the validation set: 0.01237\n" in card
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == ["README.md", "config.json", "model.safetensors"]
