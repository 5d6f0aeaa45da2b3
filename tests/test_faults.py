"""Faults that cost training runs, tested on whole systems: real files, real steps, real processes."""

import json
import warnings
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import pytest
import torch

import evaluate
import train
from data import CocoDataModule
from detector import DetectorModule, build_detector
from detector.batch import Batch
from detector.callbacks.coco_evaluation import CocoEvaluation
from detector.callbacks.ema import RampedEMA
from detector.commands.run_cli import filter_warnings
from tests.detector.network.test_model import OURS, summary
from tests.detector.training.test_module import trainer as plain_trainer
from tests.processes import Processes

VARIANTS = ["yolo26_n", "dyn_n"]
Arguments = dict[str, Any]


class Losses(L.Callback):
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        self.values.append(outputs["loss"].item())


def start(variant: str, data: CocoDataModule) -> DetectorModule:
    """Return a narrow network: what is tested of its start does not depend on its width."""
    torch.manual_seed(0)
    return DetectorModule(variant, data.class_names, data.category_ids, {"width": 0.125}, nominal_batch=4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_start_on_real_images(variant: str, tiny_arguments: Arguments) -> None:
    """Untrained scores are the prior and boxes near the image."""
    data = CocoDataModule(**tiny_arguments)
    module = start(variant, data)
    with torch.no_grad():
        outputs = module.train()(next(iter(data.train_dataloader()))["images"])
    prior = (5 / 3 / (640 / outputs["strides"]) ** 2).mean()
    for branch in ("one2one", "one2many"):
        assert outputs[branch]["scores"].sigmoid().mean().item() == pytest.approx(prior.item(), rel=0.5)
        assert (outputs[branch]["boxes"] * outputs["strides"]).abs().max() < 2 * 64


def test_the_first_thirty_steps_on_real_images(tiny_arguments: Arguments, tmp_path: Path) -> None:
    """The loss of dyn_n is lower then, and still one. yolo26_n learns such images by heart in tests/test_learning.py."""
    data, losses = CocoDataModule(**tiny_arguments), Losses()
    settings = {"max_epochs": 15, "check_val_every_n_epoch": 15, "callbacks": [losses, RampedEMA()]}
    fitted = plain_trainer(tmp_path, **settings)
    fitted.fit(start("dyn_n", data), datamodule=data)
    assert fitted.global_step == len(losses.values) == 30
    assert np.isfinite(losses.values).all()
    assert min(losses.values) > 0
    assert np.mean(losses.values[-5:]) < np.mean(losses.values[:5])
    assert all(value.isfinite() for value in fitted.callback_metrics.values())


@pytest.mark.filterwarnings("ignore:.*no objects at all")
def test_no_objects_and_no_detections(
    tiny_arguments: Arguments, edit_json: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """train.py and evaluate.py on a set without objects, whose scores never reach the threshold: everything is written."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        edit_json(split, lambda content: content.update(annotations=[]))
    test = {"test_annotations": tiny_arguments["val_annotations"], "test_images": tiny_arguments["val_images"]}
    arguments = [f"--data.{name}={value}" for name, value in (tiny_arguments | test).items()]
    arguments += ["--evaluation.score_threshold=1.0", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    arguments += ["--model.overrides={width: 0.125, depth: 0.33}"]
    train.main([*arguments, "--run_dir", "run"])
    for split in ("val", "test"):
        evaluate.main(["run/last.ckpt", *arguments, "--split", split])
    for folder, split in (("run", "val"), ("run/eval_val", "val"), ("run/eval_test", "test")):
        suffix = "_test" if split == "test" else ""
        for branch in ("", "_one2many"):
            assert json.loads(Path(folder, f"predictions{suffix}{branch}.json").read_text()) == []
        assert cv2.imread(f"{folder}/{split}_predictions.jpg") is not None
    header, line = [text.split() for text in Path("run/train.log").read_text().splitlines()]
    assert line[header.index("AP")] == "none"  # a set without objects
    assert Path("run/best.ckpt").is_file()


@pytest.mark.parametrize("branch", ["one2one", "one2many"])
def test_no_detection_keeps_shapes_and_types(branch: str) -> None:
    detector = build_detector("dyn_n", 3).eval()
    for model in (detector, detector.deploy(branch)):
        (detections,) = model.detect(torch.zeros(1, 3, 64, 96), branch)
        assert (detections["boxes"].shape, detections["scores"].shape, detections["labels"].shape) == ((0, 4), (0,), (0,))
        assert detections["labels"].dtype == torch.int64


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_module_trained_is_the_module_measured_and_exported(
    variant: str, tiny_arguments: Arguments, tmp_path: Path
) -> None:
    """Trained weights have the names and costs of the snapshot; the deployed detector has the outputs of the average."""
    data = CocoDataModule(**tiny_arguments)
    names = [f"class {i}" for i in range(80)]
    module = DetectorModule(variant, names, nominal_batch=4, warmup_epochs=0)
    fitted = plain_trainer(tmp_path, callbacks=[RampedEMA(tau=3)], enable_checkpointing=True)
    fitted.fit(module, data.train_dataloader())
    loaded = DetectorModule.load_from_checkpoint(fitted.checkpoint_callback.best_model_path, weights_only=True).eval()

    build_detector(variant, 80).load_state_dict(loaded.model.state_dict())  # strictly: the same names and shapes
    assert summary(variant) == OURS[variant]
    assert sum(p.numel() for p in loaded.parameters()) == OURS[variant]["parameters_trained"]

    images = next(iter(data.val_dataloader()))["images"]
    for branch in ("one2one", "one2many"):
        deployed = loaded.model.deploy(branch)
        assert sum(p.numel() for p in deployed.parameters()) == OURS[variant]["parameters_deployed"]
        with torch.no_grad():
            expected, got = loaded(images)[branch], deployed(images.float() / 255)[branch]
        for kind, values in expected.items():
            torch.testing.assert_close(got[kind], values, rtol=1e-3, atol=1e-3)


class Recorder(L.Callback):
    """Writes the image ids, metrics and warnings of each process. First in the list of callbacks, to get all warnings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image_ids: dict[str, list[int]] = {"train": [], "val": []}

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        self.catching = warnings.catch_warnings(record=True)
        self.warnings = self.catching.__enter__()
        warnings.simplefilter("always")
        filter_warnings()  # as train.py does

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Batch, index: int) -> None:
        self.image_ids["train"] += [target["image_id"] for target in batch["targets"]]

    def on_validation_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Batch, index: int, dataloader_idx: int = 0
    ) -> None:
        self.image_ids["val"] += [target["image_id"] for target in batch["targets"]]

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        record = {"image_ids": self.image_ids, "metrics": metrics, "warnings": [str(w.message) for w in self.warnings]}
        record["weights"] = [p.double().sum().item() for p in module.parameters()]
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(record))
        self.catching.__exit__(None, None, None)


def test_two_processes_agree_and_do_not_warn(tiny_arguments: Arguments, tmp_path: Path, processes: Processes) -> None:
    """Real data, network, average and evaluation. The 5 images of the evaluation do not divide by two."""
    data = CocoDataModule(**tiny_arguments | {"batch_size": 2})
    module = DetectorModule("dyn_n", data.class_names, data.category_ids, {"width": 0.125, "depth": 0.33}, nominal_batch=4)
    callbacks = [Recorder(tmp_path), RampedEMA(tau=3), CocoEvaluation()]
    plain_trainer(tmp_path, callbacks=callbacks, **processes(2)).fit(module, datamodule=data)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert [rank["warnings"] for rank in ranks] == [[], []]
    assert sorted(ranks[0]["image_ids"]["train"] + ranks[1]["image_ids"]["train"]) == list(range(101, 109))
    assert sorted(ranks[0]["image_ids"]["val"] + ranks[1]["image_ids"]["val"]) == list(range(201, 206))
    assert ranks[0]["weights"] == ranks[1]["weights"]
    for name in ("train/total", "val/total", "val/AP", "val/one2many/AP"):
        assert ranks[0]["metrics"][name] == ranks[1]["metrics"][name], name
    predictions = json.loads((tmp_path / "predictions.json").read_text())
    assert {entry["image_id"] for entry in predictions} == set(range(201, 206))
