"""A block of the user, in a file beside her configuration, through the commands. No file of ours knows it."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import evaluate
import train
from detector import load_detector
from detector.__main__ import main as detector_command
from detector.report import speed
from tests.detector.reference_files import some_weights, write_checkpoint

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the example of docs/your-own-block.md, where Python does not look for modules."""
    folder = tmp_path / "study"
    folder.mkdir()
    shutil.copy(DOCS / "my_blocks.py", folder / "her_blocks.py")
    config = (DOCS / "my_blocks.yaml").read_text().replace("my_blocks.S", "her_blocks.S").replace("variant: yolo26_n", "")
    (folder / "own.yaml").write_text(config)
    monkeypatch.setattr(sys, "path", list(sys.path))
    start_anew()
    yield folder
    start_anew()


def start_anew() -> None:
    """Forget what this process has imported, and where from, as a new process does."""
    sys.modules.pop("her_blocks", None)
    sys.path[:] = [folder for folder in sys.path if Path(folder).name != "study"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "reduction: 4",
            "reducton: 4",
            "unknown argument of her_blocks.SqueezeExcitation: 'reducton'; did you mean reduction?",
        ),
        ("where: backbone", "where: backbon", "names no part of the detector; did you mean backbone-bottlenecks"),
        ("replace:", "overrides:\n   replace:", "model.overrides has replace; give it on its own, as model.replace"),
        ("replace:", "replaces:", "unknown key model.replaces; did you mean model.replace?"),
    ],
)
def test_mistakes_are_found_before_the_data_are_read(
    arguments: list[str], study: Path, old: str, new: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    config = study / "own.yaml"
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(SystemExit) as stop:
        train.main([*arguments, "--config", str(config), "--data.root", "nowhere"])
    text = stop.value.code if isinstance(stop.value.code, str) else capsys.readouterr().err
    assert re.search(message, text)


def test_a_run_from_reference_weights_with_an_own_block(
    arguments: list[str],
    study: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The run is resumed and evaluated without the weights file, and written as safetensors.

    Its checkpoints find the block where it was in training; others need it in a folder of PYTHONPATH.
    """
    names = ["green", "person", "red", *(f"class {i}" for i in range(77))]  # 80: class towers of another width than for 3
    weights = write_checkpoint(tmp_path / "official.pt", some_weights(80), names, train_args={"imgsz": 640})
    quick = ["--trainer.max_epochs", "1", "--model.variant", "null", "--model.overrides", "null"]
    quick += ["--model.freeze", '["backbone.stem"]', "--trainer.limit_val_batches", "0"]
    train.main([*arguments, "--config", str(study / "own.yaml"), *quick, "--model.weights", str(weights)])
    row = "backbone.stage_p3.blocks.0.conv1.conv +Conv2d +SqueezeExcitation +16x8x8 +4,608 -> 4,756 +294,912 -> 295,040"
    assert re.search(row, caplog.text)
    assert "    48 of new parts, as initialized: backbone.stage_p2.blocks.0.conv1.conv, " in caplog.text
    run = Path("runs/yolo26_n")  # the variant is the file's
    before = load_detector(weights).model.state_dict()
    weights.unlink()
    last = torch.load(run / "last.ckpt", weights_only=True)
    stem = last["state_dict"]["model.backbone.stem.conv.weight"]
    assert torch.equal(stem, before["backbone.stem.conv.weight"])
    kernel = "backbone.stage_p3.blocks.0.conv1.conv"
    assert (
        last["state_dict"][f"model.{kernel}.conv.weight"] - before[f"{kernel}.weight"]
    ).abs().max() < 0.1  # one step later
    assert last["hyper_parameters"]["overrides"]["class_channels"] == 80
    (entry,) = last["hyper_parameters"]["overrides"]["replace"]
    layer = {"class_path": "her_blocks.SqueezeExcitation", "init_args": {"reduction": 4}}
    assert entry == {"where": ["backbone-bottlenecks"], "layer": layer}
    squeezed = [name for name in last["current_model_state"] if ".squeeze." in name]
    assert len(squeezed) == 24
    average = {name.removeprefix("module."): value for name, value in last["state_dict"].items()}
    assert not all(torch.equal(last["current_model_state"][name], average[name]) for name in squeezed)

    start_anew()
    longer = ["--trainer.max_epochs", "2", "--trainer.limit_val_batches", "1.0"]
    train.main(["--config", str(run / "config.yaml"), "--ckpt_path", str(run / "last.ckpt"), *longer])
    assert torch.load(run / "last.ckpt", weights_only=True)["epoch"] == 1
    start_anew()
    evaluate.main([str(run / "last.ckpt"), *arguments])
    with pytest.raises(SystemExit, match=r"freeze: \['backbone.stem'\] in the checkpoint, None here"):
        train.main([*arguments, "--model.variant", "null", "--ckpt_path", str(run / "last.ckpt")])

    capsys.readouterr()
    detector_command(["weights", str(run / "last.ckpt"), "out.safetensors"])
    assert "license: AGPL-3.0" in capsys.readouterr().out
    start_anew()
    with pytest.raises(ValueError, match=r"no module her_blocks, and its file in training, her_blocks.py, is not here"):
        load_detector("out.safetensors")
    monkeypatch.syspath_prepend(study)
    predictor = load_detector("out.safetensors")
    assert (predictor.class_names, predictor.category_ids) == (["red", "green", "blue"], [7, 22, 90])
    assert predictor.image_size == (64, 64)
    assert (
        "trained with lightning-dyn-detector for 2 epochs, starting from: converted from official.pt"
        in predictor.info.provenance
    )
    assert set(predictor.info.metrics) >= {"val/AP", "val/one2many/AP", "val/AR100"}
    expected = load_detector(run / "last.ckpt").model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in predictor.model.state_dict().items())
    monkeypatch.setattr(speed, "RUNS", 1)
    assert speed.measure(run / "last.ckpt").table.rows[0][1] == f"{sum(p.numel() for p in predictor.model.parameters()):,}"
