"""Settings on the command lines of train.py and evaluate.py reach what they set."""

import inspect
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm

import evaluate
from data import CocoDataModule
from detector import build_detector
from detector.callbacks import CocoEvaluation, NonFiniteGuard, RampedEMA, SaveOnSignal
from detector.commands.evaluate_cli import EvaluateCLI
from detector.commands.train_cli import TrainCLI
from detector.runs.checkpoint_io import AtomicCheckpointIO
from detector.weights.files import save_weights
from detector.weights.info import WeightsInfo
from tests.conftest import CATEGORIES
from tests.data.test_datamodule import fingerprint
from tests.detector.training.test_settings import SETTINGS as MODEL_SETTINGS

TINY = {"width": 0.125, "depth": 0.33}
MODEL = ["--model.variant=yolo26_n", f"--model.overrides={TINY}"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A weights file of a small network."""
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    names = {"class_names": list(CATEGORIES.values()), "category_ids": list(CATEGORIES)}
    info = WeightsInfo("yolo26_n", **names, image_size=(64, 64), overrides=TINY)
    save_weights(path, build_detector("yolo26_n", 3, **TINY).state_dict(), info)
    return str(path)


def first_batch(data: CocoDataModule) -> list[tuple]:
    return fingerprint(next(iter(data.train_dataloader())))


def test_the_seed_of_a_training_reaches_its_data(arguments: list[str], tiny_arguments: dict[str, Any]) -> None:
    """Order, partners and pixels are those of a data module with this seed. configs/base.yaml has the seed 0."""
    seen = []
    for seed, words in ((0, []), (5, ["--seed_everything", "5"])):
        cli = TrainCLI(CocoDataModule, [*arguments, *MODEL, *words])
        seen.append(first_batch(cli.datamodule))
        assert seen[-1] == first_batch(CocoDataModule(**tiny_arguments, seed=seed))
    assert not set(seen[0]) & set(seen[1])


EVALUATION = {
    "branch": "one2many",
    "ground_truth": "truth.json",
    "score_threshold": 0.2,
    "max_detections": 7,
    "iou_threshold": 0.4,
    "predictions": False,
    "per_class": False,
    "backend": "faster-coco-eval",
    "flip_test": True,
}


LINKED = {  # settings of the model that come from the data, and their values for the tiny set
    "class_names": list(CATEGORIES.values()),
    "category_ids": list(CATEGORIES),
    "image_size": [64, 64],
    "sixteen_bit_range": [0, 4095],
}


def test_every_setting_of_a_training_reaches_model_average_and_guard(arguments: list[str]) -> None:
    values = {name: value for name, (value, _) in MODEL_SETTINGS.items() if name not in {"weights", *LINKED}}
    words = [f"--model.{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()]
    words += ["--ema.decay=0.5", "--ema.tau=7", "--guard.max_skips=3", "--data.sixteen_bit_range=[0,4095]"]
    words += ["--trainer.log_every_n_steps=null"]
    cli = TrainCLI(CocoDataModule, [*arguments, *words])
    expected = values | LINKED
    assert {name: cli.model.hparams[name] for name in expected} == expected
    callbacks = {type(callback): callback for callback in cli.trainer.callbacks}
    assert (callbacks[RampedEMA].decay, callbacks[RampedEMA].tau, callbacks[NonFiniteGuard].max_skips) == (0.5, 7, 3)
    assert callbacks[SaveOnSignal].path == cli.run_dir / "last.ckpt"
    assert isinstance(cli.trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    assert "  log_every_n_steps: null\n" in cli.config_text()  # in config.yaml: a resumed run would get the default, 50


@pytest.mark.parametrize(
    ("accelerator", "has_cuda", "setting", "expected"),
    [
        ("auto", True, "true", True),
        ("cpu", True, "true", False),
        ("auto", False, "true", False),
        ("gpu", True, "false", False),
    ],
)
def test_batch_statistics_are_shared_where_cuda_is(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, accelerator: str, has_cuda: bool, setting: str, expected: bool
) -> None:
    """DDP converts the norms of the network if its strategy has a ``_layer_sync``."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    given: dict[str, Any] = {}
    numbers = {"world_size": 1, "max_epochs": 1, "max_steps": -1, "limit_train_batches": 1.0, "accumulate_grad_batches": 1}
    trainer = Mock(**numbers, callbacks=[], check_val_every_n_epoch=1, val_check_interval=1.0)
    monkeypatch.setattr(LightningCLI, "instantiate_trainer", lambda self, **kwargs: given.update(kwargs) or trainer)
    options = [f"--trainer.accelerator={accelerator}", f"--trainer.sync_batchnorm={setting}"]
    TrainCLI(CocoDataModule, [*arguments, *MODEL, *options])
    assert given["sync_batchnorm"] is expected
    strategy = Trainer(accelerator="cpu", devices=2, logger=False, sync_batchnorm=given["sync_batchnorm"]).strategy
    assert isinstance(strategy._layer_sync, TorchSyncBatchNorm) is expected


@pytest.mark.parametrize("program", ["train", "evaluate"])
def test_every_setting_of_the_evaluation_reaches_it(
    weights: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr("detector.callbacks.coco_evaluation.check_backend", lambda backend: None)  # may not be installed
    assert EVALUATION.keys() == inspect.signature(CocoEvaluation).parameters.keys(), "a new setting needs a line above"
    words = [f"--evaluation.{name}={value}" for name, value in EVALUATION.items()]
    if program == "evaluate":
        cli = EvaluateCLI(CocoDataModule, [weights, *arguments, *MODEL, *words])
    else:
        cli = TrainCLI(CocoDataModule, [*arguments, *MODEL, *words])
    (evaluation,) = (callback for callback in cli.trainer.callbacks if isinstance(callback, CocoEvaluation))
    assert vars(evaluation) == vars(CocoEvaluation(**EVALUATION))
    assert vars(evaluation) != vars(CocoEvaluation())


def test_split_and_folder_of_an_evaluation(weights: str, arguments: list[str], edit_json: Any, tiny_coco: Path) -> None:
    """The test split has the images of the training set. Its areas are those of the file."""
    edit_json("train", lambda content: [entry.update(area=3 * n + 1) for n, entry in enumerate(content["annotations"])])
    areas = [entry["area"] for entry in json.loads((tiny_coco / "annotations/train.json").read_text())["annotations"]]
    test = ["--data.test_annotations", "annotations/train.json", "--data.test_images", "images/train"]
    evaluate.main([weights, *arguments, *MODEL, *test, "--split", "test", "--run_dir", "here"])
    written = {path.name for path in Path("here").iterdir()}
    assert {"predictions_test.json", "ground_truth_test.json"} <= written
    assert not {"predictions.json", "ground_truth.json"} & written
    truth = json.loads(Path("here/ground_truth_test.json").read_text())
    assert len(truth["images"]) == 8
    assert sorted(entry["area"] for entry in truth["annotations"]) == sorted(areas)


def test_settings_are_written_only_beside_predictions(weights: str, arguments: list[str]) -> None:
    """A report needs both."""
    for value in ("true", "false"):
        words = ["--run_dir", value, "--evaluation.predictions", value]
        cli = EvaluateCLI(CocoDataModule, [weights, *arguments, *MODEL, *words])
        cli.trainer.validate = lambda *args, **kwargs: None
        cli.evaluate()
    assert Path("true/evaluation.yaml").is_file()
    assert not Path("false/evaluation.yaml").exists()
