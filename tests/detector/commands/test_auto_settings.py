"""Settings that are auto: chosen, written to config.yaml, and taken from the run that is resumed."""

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

from data import Augmentation, CocoDataModule
from detector import DetectorModule
from detector.callbacks import RampedEMA
from detector.commands.auto_settings import KEYS, DetectorTrainer, start_of, take_values_of_run
from detector.commands.pretrain_cli import PretrainCLI
from detector.commands.train_cli import TrainCLI
from detector.training import batch_size, recipe
from detector.training.recipe_table import SCRATCH

TINY = ["--model.variant=yolo26_n", "--model.overrides={'width': 0.125, 'depth': 0.33}"]


def value_of(cli: TrainCLI, key: str) -> Any:
    """Return the value of a setting where it has its effect."""
    section, _, name = key.partition(".")
    if section == "trainer":
        return cli.trainer.max_epochs
    if section == "model":
        return cli.model.hparams[name]
    if section == "data":
        return getattr(cli.datamodule.augment, name.removeprefix("augment."))
    return next(getattr(c, name) for c in cli.trainer.callbacks if isinstance(c, RampedEMA))


def test_auto_is_chosen_once_and_a_resumed_run_keeps_it(
    arguments: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = [*arguments, *TINY, "--run_dir=run", "--trainer.max_epochs=auto", "--model.nominal_batch=auto"]
    start += ["--model.optimizer=adamw"]
    monkeypatch.setattr(batch_size, "cuda_batch_size", lambda *_: 24)
    with caplog.at_level(logging.INFO):
        cli = TrainCLI(CocoDataModule, [*start, "--auto_batch_size=0.7"])
    assert cli.model.hparams.nominal_batch == 24  # the batch size is known before
    expected = recipe.recipe_for(cli.datamodule.num_train_images, cli.datamodule.batch_size, given={"optimizer": "adamw"})
    values = {key: getattr(expected, name) for name, key in KEYS.items()}
    assert {key: value_of(cli, key) for key in KEYS.values()} == values
    assert cli.model.hparams_initial["lr"] == 0.002  # in hparams.yaml
    (table,) = [text for text in caplog.messages if text.startswith("recipe for ")]
    assert [line.split()[0] for line in table.splitlines()[1:]] == [key for key in KEYS.values() if "optimizer" not in key]
    assert "follows from adamw" in table
    cli._write_config_and_record()
    cli.model.trainer = cli.trainer
    cli.trainer.strategy.connect(cli.model)
    cli.trainer.save_checkpoint("run/last.ckpt", weights_only=True)
    written = yaml.safe_load(Path("run/config.yaml").read_text())
    assert "auto" not in {written[key.split(".")[0]].get(key.split(".")[-1]) for key in KEYS.values()}
    assert written["data"]["augment"]["mosaic"] == 1.0
    loaded = DetectorModule.load_from_checkpoint("run/last.ckpt", weights_only=True)
    assert (loaded.hparams.optimizer, loaded.hparams.lr) == ("adamw", 0.002)

    # The same command resumes with the values of the run, also if another version, or other data, would choose others.
    monkeypatch.setattr(recipe, "RULES", {})
    resumed = TrainCLI(CocoDataModule, [*start, "--ckpt_path=run/last.ckpt"])
    assert {key: value_of(resumed, key) for key in KEYS.values()} == values
    config = resumed.config.clone()
    config["ema.tau"] = "auto"
    Path("run/config.yaml").write_text(yaml.safe_dump(written | {"ema": {"decay": 0.9}}))
    with pytest.raises(ValueError, match=r"auto: ema\.tau; run/last\.ckpt goes on .* run/config\.yaml does not have that"):
        take_values_of_run(config, "run/last.ckpt")
    config["model.lr"] = "auto"
    with pytest.raises(ValueError, match=r"other has no config\.yaml: .* or give --model\.lr VALUE --ema\.tau VALUE"):
        take_values_of_run(config, "other/last.ckpt")


def test_what_only_train_py_chooses_is_refused_elsewhere(tiny_arguments: dict[str, Any]) -> None:
    module = DetectorModule("yolo26_n", ["a"], overrides={"width": 0.125, "depth": 0.33}, lr="auto", nominal_batch="auto")
    with pytest.raises(ValueError, match=r"lr, nominal_batch: auto is chosen by train\.py; .*recipe_for"):
        module.setup("fit")
    module.setup("validate")
    with pytest.raises(ValueError, match=r"ema decay is 0\.9 and tau auto: auto is chosen by train\.py"):
        RampedEMA(0.9, "auto").setup(Mock(), module, "fit")
    with pytest.raises(ValueError, match=r"give pretrain\.py numbers"):
        PretrainCLI.before_instantiate_classes(SimpleNamespace(config={"ema": {"decay": "auto", "tau": 7}}))
    data = CocoDataModule(**tiny_arguments, augment=Augmentation(mosaic="auto", close_mosaic="auto"))
    data.train_dataloader()
    assert data._train_dataset.mosaic == 1.0  # as python -m data show has it
    data.trainer = Mock(max_epochs=5)
    with pytest.raises(ValueError, match=r"data\.augment\.mosaic is auto and close_mosaic auto: auto is chosen by"):
        data.train_dataloader()
    data.choose_mosaic(0.5, 2)
    assert (data.augment.mosaic, data.num_closing_epochs) == (0.5, 2)


@pytest.mark.parametrize(
    ("settings", "written", "trained"),
    [({"fast_dev_run": 8}, 30, 1), ({"max_steps": 60}, 5, 5), ({"max_steps": 900}, 30, 30)],
)
def test_the_epochs_follow_max_steps_and_a_fast_dev_run_has_one(
    settings: dict[str, Any], written: int, trained: int
) -> None:
    """200 images in batches of 4, 16 images a step: 13 steps in an epoch."""
    trainer = DetectorTrainer(max_epochs="auto", accelerator="cpu", logger=False, **settings)
    config = {"trainer.max_epochs": "auto", "model": {"weights": "a.pt"}}
    data = Mock(num_train_images=200, num_train_samples=200, batch_size=4)
    TrainCLI._choose_settings(
        SimpleNamespace(trainer=trainer, config=config, datamodule=data, model=Mock()), {"epochs": "trainer.max_epochs"}
    )
    assert (config["trainer.max_epochs"], trainer.max_epochs) == (written, trained)


def test_the_average_counts_the_steps_of_repeated_images_and_of_a_part_of_the_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """200 images make 300 samples: 150 batches of 2, of which half are used, on 1 device; 4 of them make a step."""
    monkeypatch.setattr(recipe, "RULES", {"scratch": replace(SCRATCH, ema_share=0.1)})
    trainer = DetectorTrainer(max_epochs=10, limit_train_batches=0.5, max_steps=180, accelerator="cpu", logger=False)
    config = {"ema.tau": "auto", "trainer.max_epochs": 10, "model.nominal_batch": 8}
    config["model"] = {"weights": None, "backbone_weights": None}
    data = Mock(num_train_images=200, num_train_samples=300, batch_size=2)
    cli = SimpleNamespace(trainer=trainer, config=config, datamodule=data, model=Mock())
    TrainCLI._choose_settings(cli, {"ema_tau": "ema.tau"})
    assert config["ema.tau"] == 18.0  # a tenth of 19 steps in each of 10 epochs, at most 180


@pytest.mark.parametrize(
    ("weights", "backbone_weights", "start"),
    [(None, None, "scratch"), (None, "none", "scratch"), (None, "pretrained", "backbone"), ("a.pt", None, "detector")],
)
def test_the_start_is_seen_from_the_weights(weights: str | None, backbone_weights: str | None, start: str) -> None:
    assert start_of({"model": {"weights": weights, "backbone_weights": backbone_weights}}) == start
