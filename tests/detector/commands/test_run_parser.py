"""Wrong options and keys of train.py and evaluate.py end with one short message."""

import argparse
import json
from pathlib import Path

import pytest

from tests.docs_commands import ParsedTraining


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    return ParsedTraining([]).parser


STOPPING = "lightning.pytorch.callbacks.EarlyStopping"
CALLBACKS = {
    "class": [{"class_path": "lightning.pytorch.callbacks.EarlyStoping"}],
    "argument": [{"class_path": STOPPING, "init_args": {"monitr": "val/AP"}}],
    "module": [{"class_path": "lightning.pytorch.calbacks.EarlyStopping"}],
}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.image_sise", "64"], "unknown option --data.image_sise; did you mean --data.image_size?\ndata has root, "),
        (["--epochs", "3"], "unknown option --epochs; did you mean --trainer.max_epochs?\nthere are --config, "),
        (["--model.optimizer", "sdg"], "unknown model.optimizer 'sdg'; did you mean sgd? Choose one of musgd, sgd, adamw"),
        (["--model.lr_decay", "cosin"], "unknown model.lr_decay 'cosin'; did you mean cosine? Choose one of linear, cosine"),
        (["--data.cache", "rem"], "unknown data.cache 'rem'; did you mean ram"),
        (["--model.lr", "fast"], "model.lr is 'fast'; expected a number, 'auto' or null"),
        (["--data.batch_size", "8.5"], "data.batch_size is '8.5'; expected a whole number\n"),
        (["--data.rect", "maybe"], "data.rect is 'maybe'; expected true or false\n"),
        (["--data.image_size", "x"], "data.image_size is 'x'; expected a whole number or a list of 2 whole numbers\n"),
        (["--model.replace", "{where: sppf}"], "expected a list or null, as [{where: sppf, layer: {class_path: my_blocks"),
        (["--model.freeze", "neck"], "model.freeze is 'neck'; expected a list or null; a list of one is [neck]\n"),
        (["--sheet.score_threshold", "bst"], "sheet.score_threshold is 'bst'; expected a number or 'best'\n"),
        (["--data", "coco"], "data is a group of settings and takes no 'coco'; did you mean --data.root?\n"),
        (["--model", "n.pt"], "model is a group of settings and takes no 'n.pt'; did you mean --model.variant or "),
        (["--overwrite", "true"], "unknown option --overwrite; did you mean --run_dir?\n"),
        (
            ["--trainer.callbacks", "EarlyStoping"],
            "trainer.callbacks: unknown class 'EarlyStoping'; did you mean " + STOPPING,
        ),
        (["--trainer.callbacks", json.dumps(CALLBACKS["class"])], f"Stoping'; did you mean {STOPPING}"),
        (
            ["--trainer.callbacks", json.dumps(CALLBACKS["argument"])],
            f"trainer.callbacks: unknown argument of {STOPPING}: 'monitr'; did you mean monitor? Choose one of monitor, ",
        ),
        (["--trainer.callbacks", json.dumps(CALLBACKS["module"])], "did you mean lightning.pytorch.callbacks?"),
        (["--trainer.logger", "WandLogger"], "'WandLogger'; did you mean lightning.pytorch.loggers.WandbLogger"),
        (
            ["--data.image_size", "64", "96"],
            "--data.image_size takes one value, and is given 2: 64 96; a list is one value, ",
        ),
        (
            ["configs/dyn_n.yaml"],
            "unknown argument 'configs/dyn_n.yaml'; a configuration file is given as --config configs/",
        ),
    ],
)
def test_wrong_options(
    parser: argparse.ArgumentParser, words: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(words)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("error: ")
    assert message in error
    assert "usage" not in error
    assert len(error.splitlines()) <= 3
    assert len(error) < 1500


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"modle": {"lr": 1}}, "unknown key modle.lr; did you mean model.lr?"),
        ({"lr": 1}, "unknown key lr; did you mean model.lr?"),
        ({"model": {"lrr": 1}}, "unknown key model.lrr; did you mean model.lr?\nmodel has variant, "),
        (
            {"data": {"augment": {"mosaik": 1}}},
            "unknown key data.augment.mosaik; did you mean data.augment.mosaic?\ndata.augment",
        ),
        ({"trainer": {"max_epoch": 1}}, "unknown key trainer.max_epoch; did you mean trainer.max_epochs?"),
        (
            {"trainer": {"logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"nam": 1}}}},
            "'nam'; did",
        ),
    ],
)
def test_wrong_keys_at_any_depth(
    parser: argparse.ArgumentParser, config: dict, message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        parser.parse_string(json.dumps(config))
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) <= 3


def test_wrong_configuration_files(
    parser: argparse.ArgumentParser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """No such file, a folder, an empty file, a list, a checkpoint, an unknown key: which file it is, and what to give."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "mine.yaml": "model: {lr: 1}",
        "empty.yaml": "",
        "list.yaml": "- a",
        "key.yaml": "model: {lrr: 1}",
        "data.yaml": "train: images\nval: images\nnames: [red]\n",
    }.items():
        Path(name).write_text(text)
    Path("best.ckpt").write_bytes(b"PK\x80")
    Path("folder").mkdir()
    for words, message in (
        (["--config", "mine.yml"], "--config mine.yml: no such file (looked from "),
        (["--config", "mine.yml"], "did you mean mine.yaml?"),
        (["--config=folder"], "--config folder: is a folder"),
        (["-c", "empty.yaml"], "--config empty.yaml is empty; expected settings"),
        (["--config", "mine.yaml", "--config", "list.yaml"], "--config list.yaml holds a list; expected settings"),
        (["--config", "data.yaml"], "data.yaml describes a data set with YOLO labels; give it as --data.root data.yaml"),
        (["--data=data.yaml"], "data.yaml describes a data set with YOLO labels; give it as --data.root data.yaml"),
        (["--config", "best.ckpt"], "--config best.ckpt is a weights file and not a configuration"),
        (["--config", "mine.yaml", "--config", "key.yaml"], "the key is in key.yaml\n"),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args(words)
        assert message in capsys.readouterr().err
    assert parser.parse_args(["--config", "mine.yaml", "--config", "{model: {lr: 2.0}}"]).model.lr == 2.0


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("2", 2)])
def test_a_limit_of_one_batch_is_no_share(parser: argparse.ArgumentParser, text: str, value: int | float) -> None:
    """Also in a file; Lightning reads 1.0 as all batches."""
    limits = [f"limit_{name}_batches" for name in ("train", "val", "test", "predict")]
    for name in (*limits, "overfit_batches", "val_check_interval"):
        limit = parser.parse_args([f"--trainer.{name}={text}"])["trainer"][name]
        assert (name, limit, type(limit)) == (name, value, type(value))
