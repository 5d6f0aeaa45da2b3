import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from detector.callbacks.coco_evaluation import CocoEvaluation
from detector.callbacks.epoch_log import EpochLog
from detector.callbacks.prediction_sheet import PredictionSheet
from detector.evaluation import METRICS, evaluate, read_predictions
from tests.detector.evaluation.cases import CAT, DOG, IMAGES, annotation, plain_pycocotools, random_case, with_ids
from tests.detector.fakes import (
    CATEGORY_IDS,
    CLASS_NAMES,
    IMAGE,
    Answer,
    RoteData,
    RoteDetector,
    coco_dict,
    collate,
    samples,
)
from tests.processes import Processes


def quiet_trainer(root: Path, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        default_root_dir=root,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        **{"logger": False, "devices": 1, **options},
    )


@pytest.mark.parametrize(
    ("backend", "package", "extra"),
    [
        ("faster-coco-eval", "faster_coco_eval", "fast-eval"),
        ("ultrafast-pycocotools", "ultrafast_pycocotools", "ultrafast-eval"),
    ],
)
def test_an_unknown_or_missing_backend_is_refused(
    monkeypatch: pytest.MonkeyPatch, backend: str, package: str, extra: str
) -> None:
    with pytest.raises(ValueError, match=f"unknown backend 'coco'; choose one of pycocotools, .*{backend}"):
        CocoEvaluation(backend="coco")
    monkeypatch.setattr("detector.extras.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf"{package}, not installed here: pip install 'lightning-dyn-detector\[{extra}\]'"):
        CocoEvaluation(backend=backend)


def test_the_callback_equals_pycocotools_on_its_files_bit_for_bit(tmp_path: Path) -> None:
    truth, close, unrelated = random_case()
    evaluation = CocoEvaluation()
    trainer = quiet_trainer(tmp_path, evaluation)
    module = RoteDetector(close, unrelated)
    trainer.validate(module, RoteData(IMAGES, {"val": truth}, batch_size=4), verbose=False)
    files = {"one2one": "predictions.json", "one2many": "predictions_one2many.json"}
    for branch, file_name in files.items():
        metrics, per_class = plain_pycocotools(truth, tmp_path / file_name, tmp_path)
        result = evaluation.results[branch]
        detections = read_predictions(tmp_path / file_name)
        assert result.best_f1 == evaluate(truth, detections).best_f1
        assert module.best_f1_thresholds[branch] == (result.best_f1 and result.best_f1.threshold)
        assert list(result.metrics.values()) == metrics
        assert list(result.per_class.values()) == per_class
        prefix = "val" if branch == "one2one" else "val/one2many"
        logged = {name: trainer.callback_metrics[f"{prefix}/{name}"].item() for name in METRICS}
        assert logged == pytest.approx(result.metrics)
        assert trainer.callback_metrics[f"{prefix}/AP_class/dog"].item() == pytest.approx(result.per_class["dog"])
    assert evaluation.results["one2one"].metrics["AP50"] > evaluation.results["one2many"].metrics["AP50"] + 0.3
    assert module.best_f1_thresholds["one2one"] > 0
    assert trainer.callback_metrics["val/eval_seconds"] > 0
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert {entry["category_id"] for entry in written} <= set(CATEGORY_IDS)
    assert [entry["image_id"] for entry in written] == sorted(entry["image_id"] for entry in written)


@pytest.mark.parametrize("large", [True, False], ids=["63 bits", "text"])
def test_ids_that_float64_would_round_reach_the_files(tmp_path: Path, large: bool) -> None:
    plain, close, _ = random_case()
    image_ids = {i: 2**63 - i if large else f"{i}.jpg" for i in IMAGES}
    category_ids = {id_: 2**53 + n for n, id_ in enumerate(CATEGORY_IDS)}
    truth = with_ids(plain, image_ids, category_ids)
    detector = RoteDetector({image_ids[i]: answer for i, answer in close.items()})
    detector.category_ids = list(category_ids.values())
    evaluation = CocoEvaluation("one2one")
    data = RoteData(list(image_ids.values()), {"val": truth}, batch_size=4)
    quiet_trainer(tmp_path, evaluation).validate(detector, data, verbose=False)
    metrics, per_class = plain_pycocotools(truth, tmp_path / "predictions.json", tmp_path)
    assert list(evaluation.results["one2one"].metrics.values()) == metrics
    assert list(evaluation.results["one2one"].per_class.values()) == per_class
    assert metrics[1] > 0.5
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert {entry["category_id"] for entry in written} == set(category_ids.values())
    ground_truth = json.loads((tmp_path / "ground_truth.json").read_text())
    assert [image["id"] for image in ground_truth["images"]] == [image["id"] for image in truth["images"]]
    assert ground_truth["categories"] == truth["categories"]


def test_a_chosen_branch_has_the_plain_names(tmp_path: Path) -> None:
    truth, close, unrelated = random_case()
    evaluation = CocoEvaluation("one2many", ground_truth=truth, predictions=False, per_class=False)
    trainer = quiet_trainer(tmp_path, evaluation)
    trainer.test(RoteDetector(unrelated, close), DataLoader(samples(IMAGES), 4, collate_fn=collate), verbose=False)
    assert trainer.callback_metrics["test/AP50"] > 0.5
    assert not [name for name in trainer.callback_metrics if "one2many" in name or "class" in name]
    assert not list(tmp_path.glob("*.json"))


def test_a_test_uses_the_ground_truth_of_its_split(tmp_path: Path) -> None:
    truth, close, _ = random_case()
    empty = coco_dict(IMAGES, [])
    evaluation = CocoEvaluation()
    trainer = quiet_trainer(tmp_path, evaluation)
    data = RoteData(IMAGES, {"val": empty, "test": truth})
    module = RoteDetector(close)
    trainer.test(module, data, verbose=False)
    assert trainer.callback_metrics["test/AP50"] > 0.5
    assert evaluation.results["one2one"].best_f1 is not None
    assert not hasattr(module, "best_f1_thresholds")  # a checkpoint keeps those of the validation
    assert (tmp_path / "predictions_test.json").exists()
    trainer.validate(module, data, verbose=False)
    assert trainer.callback_metrics["val/AP50"] == -1
    assert module.best_f1_thresholds == {"one2one": None, "one2many": None}


@pytest.mark.parametrize("objects", [True, False])
def test_an_untrained_model_finishes_and_leaves_checkpoints(tmp_path: Path, objects: bool) -> None:
    truth = random_case()[0] if objects else coco_dict(IMAGES, [])
    best = ModelCheckpoint(tmp_path, monitor="val/AP", mode="max", save_last=True, filename="best")
    evaluation = CocoEvaluation()
    trainer = quiet_trainer(tmp_path, evaluation, best, max_epochs=2, num_sanity_val_steps=2)
    trainer.fit(RoteDetector({}), RoteData(IMAGES, {"val": truth}))
    assert best.best_model_score == (0 if objects else -1)
    assert Path(best.best_model_path).exists()
    assert (tmp_path / "last.ckpt").exists()
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert not [name for name in checkpoint["callbacks"] if "CocoEvaluation" in name]


class ResultsAfterSanityCheck(L.Callback):
    """Copies the results of an evaluation when the sanity check has ended."""

    def __init__(self, evaluation: CocoEvaluation) -> None:
        self.evaluation = evaluation

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.results = dict(self.evaluation.results)


def test_the_sanity_check_is_not_evaluated(tmp_path: Path) -> None:
    evaluation = CocoEvaluation()
    watcher = ResultsAfterSanityCheck(evaluation)
    trainer = quiet_trainer(tmp_path, evaluation, watcher, max_epochs=1, num_sanity_val_steps=2)
    trainer.fit(RoteDetector({}), RoteData(IMAGES, {"val": random_case()[0]}))
    assert watcher.results == {}
    assert evaluation.results["one2one"].num_images == len(IMAGES)


def test_only_the_images_of_the_dataloader_count(tmp_path: Path) -> None:
    truth, close, _ = random_case()
    evaluation = CocoEvaluation("one2one")
    trainer = quiet_trainer(tmp_path, evaluation, limit_val_batches=2)
    with pytest.warns(UserWarning, match="of 4 of 21 images"):
        trainer.validate(RoteDetector(close), RoteData(IMAGES, {"val": truth}), verbose=False)
    evaluated = set(IMAGES[:4])
    part = {**truth, "images": [image for image in truth["images"] if image["id"] in evaluated]}
    part["annotations"] = [a for a in truth["annotations"] if a["image_id"] in evaluated]
    metrics, _ = plain_pycocotools(part, tmp_path / "predictions.json", tmp_path)
    assert list(evaluation.results["one2one"].metrics.values()) == metrics


def test_detections_that_are_not_numbers_are_left_out_with_a_warning(tmp_path: Path) -> None:
    truth = coco_dict([1], [annotation(1, CAT, [10, 10, 20, 20])])
    broken: Answer = [([float("nan"), 10.0, 30.0, 30.0], 0.9, 0)]
    trainer = quiet_trainer(tmp_path, CocoEvaluation())
    with pytest.warns(UserWarning, match="1 of 1 one2one detection is not finite"):
        trainer.validate(RoteDetector({1: broken}), RoteData([1], {"val": truth}), verbose=False)
    assert trainer.callback_metrics["val/AP"] == 0


def test_fitting_without_validation_needs_no_ground_truth(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, CocoEvaluation(), max_epochs=1, limit_val_batches=0)
    trainer.fit(RoteDetector({}), RoteData(IMAGES, {}))


def assert_refused(ground_truth: Any, message: str, data: Any = None, tmp_path: Path | None = None) -> None:
    trainer = quiet_trainer(tmp_path, CocoEvaluation(ground_truth=ground_truth), max_epochs=1)
    loader = DataLoader(samples([1]), collate_fn=collate)
    with pytest.raises(ValueError, match=message):
        trainer.fit(RoteDetector({}), *([loader, loader] if data is None else [data]))
    assert trainer.global_step == 0


def test_bad_ground_truth_is_refused_before_training(tmp_path: Path) -> None:
    assert_refused(None, "no ground truth for 'val'.*ground_truth=", tmp_path=tmp_path)
    assert_refused(None, "no ground truth for 'val'", RoteData([1], {"test": {}}), tmp_path)
    assert_refused(tmp_path / "absent.json", "absent.json: no such file", tmp_path=tmp_path)
    (tmp_path / "list.json").write_text("[]")
    assert_refused(tmp_path / "list.json", "holds a list", tmp_path=tmp_path)
    (tmp_path / "broken.json").write_text("{")
    assert_refused(tmp_path / "broken.json", "broken.json: not JSON", tmp_path=tmp_path)
    assert_refused({"images": []}, "annotations, categories", tmp_path=tmp_path)
    assert_refused(
        {**coco_dict([1], []), "annotations": [{"id": 5, "image_id": 1}]}, "annotation 5 has no", tmp_path=tmp_path
    )


def test_categories_must_be_those_of_the_model(tmp_path: Path) -> None:
    shifted = [{"id": i, "name": name} for i, name in zip(CATEGORY_IDS, ["background", *CLASS_NAMES])]
    assert_refused(
        {**coco_dict([1], []), "categories": shifted}, "7 is 'background' in the ground truth and 'cat'", tmp_path=tmp_path
    )
    foreign = [{"id": 1, "name": "cat"}]
    assert_refused(
        {**coco_dict([1], []), "categories": foreign}, r"ids \[1\] in the ground truth and \[7, 22, 90\]", tmp_path=tmp_path
    )


def test_classes_the_model_lacks_count_as_missed_with_a_warning(tmp_path: Path) -> None:
    truth = coco_dict([1], [annotation(1, 91, [1, 1, 5, 5])])
    truth["categories"].append({"id": 91, "name": "fish"})
    trainer = quiet_trainer(tmp_path, CocoEvaluation())
    with pytest.warns(UserWarning, match="no class for fish"):
        trainer.validate(RoteDetector({}), RoteData([1], {"val": truth}), verbose=False)
    assert trainer.callback_metrics["val/AP_class/fish"] == 0


def test_errors_during_an_evaluation_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown branch 'nms'; choose"):
        CocoEvaluation("nms")
    bare = samples([1])
    bare[0]["target"].pop("letterbox")
    evaluation = CocoEvaluation(ground_truth=coco_dict([1], []))
    with pytest.raises(ValueError, match="no letterbox, only boxes, labels, image_id"):
        quiet_trainer(tmp_path, evaluation).validate(RoteDetector({}), DataLoader(bare, collate_fn=collate))
    unknown = DataLoader(samples([1, 5, 6]), collate_fn=collate)
    with pytest.raises(ValueError, match=r"2 of 3 evaluated images .* ids \[5, 6\]"):
        quiet_trainer(tmp_path, evaluation).validate(RoteDetector({}), unknown)


def test_boxes_go_back_to_the_image(tmp_path: Path) -> None:
    truth = coco_dict([1], [annotation(1, DOG, [0, 0, IMAGE[1], IMAGE[0]])])
    answer: Answer = [([-9.0, -9.0, IMAGE[1] + 9.0, IMAGE[0] + 9.0], 0.5, 1)]
    trainer = quiet_trainer(tmp_path, CocoEvaluation(ground_truth=truth))
    trainer.validate(RoteDetector({1: answer}), DataLoader(samples([1]), collate_fn=collate), verbose=False)
    (entry,) = json.loads((tmp_path / "predictions.json").read_text())
    assert entry["bbox"] == [0.0, 0.0, IMAGE[1], IMAGE[0]]
    assert trainer.callback_metrics["val/AP"] == 1


class WriteMetrics(L.Callback):
    """Writes the metrics of each rank to a file when the training ends."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        names = [name for name in trainer.callback_metrics if name.startswith("val/") and "seconds" not in name]
        values = {name: trainer.callback_metrics[name].item() for name in names}
        values["best"] = trainer.checkpoint_callback.best_model_score.item()
        Path(trainer.default_root_dir, f"rank{trainer.global_rank}.json").write_text(json.dumps(values))


@pytest.mark.parametrize("devices", [2, 3])
def test_several_processes_give_the_metrics_of_one(tmp_path: Path, devices: int, processes: Processes) -> None:
    """21 images do not divide by 2; one rank has a batch without detections; all ranks know the metric."""
    truth, close, unrelated = random_case()
    close = {image_id: close[image_id] for image_id in IMAGES[::2]}  # with 2 processes rank 1 has no detections
    scores = {}
    for count in (1, devices):
        root = tmp_path / str(count)
        best = ModelCheckpoint(root, monitor="val/AP", mode="max")
        callbacks = [CocoEvaluation(), EpochLog(), PredictionSheet(), WriteMetrics(), best]
        trainer = quiet_trainer(root, *callbacks, max_epochs=1, num_sanity_val_steps=0, **processes(count))
        trainer.fit(RoteDetector(close, unrelated), RoteData(IMAGES, {"val": truth}))
        scores[count] = [json.loads((root / f"rank{rank}.json").read_text()) for rank in range(count)]
    for values in scores[devices]:
        assert values == scores[1][0]
    one, several = (tmp_path / str(count) / "predictions.json" for count in (1, devices))
    assert one.read_text() == several.read_text()
    assert scores[1][0]["best"] > 0.1


class SeesOnlyMirrored(RoteDetector):
    """Finds nothing in an image, and the cat in its mirror image."""

    def forward(self, images: torch.Tensor) -> dict[str, Any]:
        assert images[0, 0, 0].tolist() == list(range(64))[::-1]
        answers = {i: [([80.0, 10.0, 110.0, 40.0], 0.8, 0)] for i in range(1, 3)}
        return RoteDetector(answers).validation_step({"targets": [{"image_id": i} for i in (1, 2)]}, 0)


def test_flip_test_adds_the_detections_of_the_mirror_images(tmp_path: Path) -> None:
    truth = coco_dict([1, 2], [{"image_id": i, "category_id": CAT, "bbox": [10, 10, 30, 30]} for i in (1, 2)])
    data = RoteData([1, 2], {"val": truth})
    loader = data.val_dataloader()
    for row in loader.dataset:
        row["image"][:] = torch.arange(64, dtype=torch.uint8)
    for flip_test, expected in ((False, 0.0), (True, 1.0)):
        evaluation = CocoEvaluation(ground_truth=truth, flip_test=flip_test, predictions=False)
        quiet_trainer(tmp_path, evaluation).validate(SeesOnlyMirrored({}), loader, verbose=False)
        assert [result.metrics["AP"] for result in evaluation.results.values()] == pytest.approx([expected] * 2)
