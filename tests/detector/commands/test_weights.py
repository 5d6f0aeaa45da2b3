"""``python -m detector weights``."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detector import build_detector, load_detector
from detector.__main__ import main
from detector.weights.files import read_weights, save_weights
from detector.weights.info import WeightsInfo
from tests.detector.reference_files import some_weights, write_checkpoint
from tests.detector.weights.test_reference import outputs


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "ref.pt", some_weights(2), {0: "a", 1: "b"}, train_args={"imgsz": [64, 96]})


def test_a_converted_file_gives_identical_outputs_and_keeps_its_license(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for dtype in ("float32", "float16"):  # float16: the precision of the reference's files
        out = tmp_path / f"{dtype}.safetensors"
        main(["weights", str(reference), str(out), "--dtype", dtype])
        assert "license: AGPL-3.0. These weights keep the license of their source" in capsys.readouterr().out
        before, after = load_detector(reference), load_detector(out)
        assert after.info == before.info
        assert after.image_size == (64, 96)
        assert all(torch.equal(a, b) for a, b in zip(outputs(before.model), outputs(after.model)))


def test_thresholds_are_kept_and_printed(reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out.safetensors"
    main(["weights", str(reference), str(out)])
    assert "score threshold of the best F1: unknown, because the file records no validation\n" in capsys.readouterr().out
    weights = read_weights(out)
    info = replace(weights.info, best_f1_thresholds={"one2one": 0.01237, "one2many": None})
    save_weights(tmp_path / "known.safetensors", weights.state_dict, info)
    main(["weights", str(tmp_path / "known.safetensors"), str(out), "--overwrite"])
    printed = capsys.readouterr().out
    assert "score threshold of the best F1: one2one 0.01237, one2many none, because no detection was right" in printed
    assert read_weights(out).info == info


def test_a_license_can_be_added_but_not_changed(reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save_weights(tmp_path / "ours.safetensors", build_detector("yolo26_n", 1).state_dict(), WeightsInfo("yolo26_n"))
    main(["weights", str(tmp_path / "ours.safetensors"), str(tmp_path / "out.safetensors"), "--license", "MIT"])
    assert "license: MIT" in capsys.readouterr().out
    assert load_detector(tmp_path / "out.safetensors").info.license == "MIT"
    with pytest.raises(SystemExit, match=r"under AGPL-3\.0, which stays"):
        main(["weights", str(reference), str(tmp_path / "free.safetensors"), "--license", "MIT"])
    assert not (tmp_path / "free.safetensors").exists()


def test_mistakes_exit_with_a_message(reference: Path, tmp_path: Path) -> None:
    (tmp_path / "old.safetensors").touch()
    for arguments, message in (
        ([reference, "out.pt"], "must end in .safetensors"),
        ([reference, tmp_path / "old.safetensors"], "already exists"),
        ([reference, tmp_path / "nowhere" / "out.safetensors"], "no such folder"),
        (["lost.ckpt", tmp_path / "out.safetensors"], r"lost\.ckpt: no such file"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["weights", *map(str, arguments)])
    assert main(["weights", str(reference), str(tmp_path / "old.safetensors"), "--overwrite"]) == 0
