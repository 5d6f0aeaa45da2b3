import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any, get_args

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch.utils.data import DataLoader

from detector.callbacks.coco_evaluation import CocoEvaluation
from detector.callbacks.epoch_log import EpochLog
from detector.callbacks.prediction_sheet import PredictionSheet
from detector.evaluation.coco_eval import METRICS, Backend, coco_table, evaluate
from detector.evaluation.coco_files import detection_rows, load_ground_truth, write_predictions
from tests.detector.fakes import (
    CATEGORY_IDS,
    CLASS_NAMES,
    IMAGE,
    Answer,
    RoteData,
    RoteDetector,
    coco_dict,
    collate,
    random_answer,
    samples,
)
from tests.processes import Processes

CAT, DOG, BIRD = CATEGORY_IDS
FIRST_ID = 20_000_001  # beyond what float32 holds
IMAGES = list(range(FIRST_ID, FIRST_ID + 21))


def thing(image_id: int, category_id: int, box: list[float], **more: Any) -> dict[str, Any]:
    """An annotation; ``box`` is x y width height."""
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "area": box[2] * box[3], "iscrowd": 0, **more}


def rows(*found: tuple[int, int, list[float], float]) -> np.ndarray:
    """Detections (N, 7) from (image id, category id, x y width height, score)."""
    return np.array([[image, *box, score, category] for image, category, box, score in found]).reshape(-1, 7)


def offline(truth: dict[str, Any], predictions: Path, tmp_path: Path) -> tuple[list[float], list[float]]:
    """Plain pycocotools on two files, as anybody would: the twelve numbers, and AP by class."""
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "truth.json"))
        judge = COCOeval(coco, coco.loadRes(str(predictions)), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    precision = judge.eval["precision"][:, :, :, 0, 2]
    return judge.stats.tolist(), [precision[:, :, k].mean() for k in range(len(judge.params.catIds))]


def random_run(seed: int = 0) -> tuple[dict[str, Any], dict[int, Answer], dict[int, Answer]]:
    """Ground truth for IMAGES, answers near it and other answers. Some images have no objects or no detections."""
    rng = np.random.default_rng(seed)
    objects, near, other = [], {}, {}
    for image_id in IMAGES:
        answer = random_answer(rng, int(rng.integers(0, 6)))
        for (x1, y1, x2, y2), _, label in answer:
            crowd = int(rng.random() < 0.1)
            objects.append(thing(image_id, CATEGORY_IDS[label], [x1, y1, x2 - x1, y2 - y1], iscrowd=crowd))
        near[image_id] = [((np.array(b) + rng.normal(0, 1, 4)).tolist(), score, label) for b, score, label in answer]
        other[image_id] = random_answer(rng, int(rng.integers(0, 4)))
    return coco_dict(IMAGES, objects), near, other


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


def test_the_faster_backend_finds_the_same(tmp_path: Path) -> None:
    """All numbers: with crowds, empty images, images left out, ties of scores, and no detection at all."""
    pytest.importorskip("faster_coco_eval")
    for seed in range(3):
        truth, near, other = random_run(seed)
        told = [(i, box, score, k) for answers in (near, other) for i, found in answers.items() for box, score, k in found]
        found = rows(*[(i, CATEGORY_IDS[k], [*b[:2], b[2] - b[0], b[3] - b[1]], round(s, 1)) for i, b, s, k in told])
        for detections, images in ((found, None), (found[:0], None), (found[found[:, 0] < IMAGES[9]], IMAGES[:9])):
            ours, theirs = (evaluate(truth, detections, images, name) for name in get_args(Backend))
            # Not to the last bit: pycocotools divides by n + 2.2e-16, which shows where n is 1.
            assert theirs.metrics == pytest.approx(ours.metrics, rel=0, abs=1e-12)
            assert theirs.per_class == pytest.approx(ours.per_class, rel=0, abs=1e-12)


def test_an_unknown_or_missing_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="backend is 'hotcoco'; choose one of pycocotools, faster-coco-eval"):
        CocoEvaluation(backend="hotcoco")
    monkeypatch.setattr("detector.evaluation.coco_eval.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install faster-coco-eval"):
        CocoEvaluation(backend="faster-coco-eval")


def test_a_result_worked_out_by_hand() -> None:
    truth = coco_dict(
        [1, 2, 3, 4],
        [
            thing(1, CAT, [10, 10, 20, 20]),
            thing(2, CAT, [50, 10, 40, 40]),
            thing(2, DOG, [0, 0, 100, 100], iscrowd=1),
            thing(2, DOG, [200, 200, 120, 120]),
            thing(4, BIRD, [10, 10, 20, 20]),
        ],
    )
    found = rows(
        (1, CAT, [10, 10, 20, 20], 0.9),  # right
        (3, CAT, [10, 10, 20, 20], 0.8),  # wrong: the image has no objects
        (2, CAT, [50, 10, 40, 40], 0.7),  # right
        *[(2, DOG, [i * 20, 5, 15, 15], 0.95) for i in range(4)],  # inside the crowd: neither right nor wrong
        (2, DOG, [200, 200, 120, 120], 0.6),  # right
        *[(4, BIRD, [300, 10 + i, 20, 20], 0.9) for i in range(100)],  # wrong
        (4, BIRD, [10, 10, 20, 20], 0.5),  # right, but the 101st of its image
    )
    result = evaluate(truth, found)
    cat = (51 + 50 * 2 / 3) / 101  # precision is 1 up to recall 0.50, then 2/3: 101 recall points
    assert result.per_class == pytest.approx({"cat": cat, "dog": 1.0, "bird": 0.0}, abs=1e-9)
    assert result.metrics["AP"] == pytest.approx((cat + 1 + 0) / 3, abs=1e-9)
    assert result.metrics["AP_small"] == pytest.approx((1 + 0) / 2)  # of cats the first alone is small
    assert result.metrics["AP_large"] == pytest.approx(1.0)
    assert result.metrics["AR100"] == pytest.approx((1 + 1 + 0) / 3)
    assert result.num_images == 4
    assert evaluate(truth, np.delete(found, 8, axis=0)).per_class["bird"] == pytest.approx(1 / 100)  # now the 100th


def test_perfect_predictions_score_one_whatever_the_annotations_lack() -> None:
    objects = [
        thing(1, CAT, [10, 10, 20, 20], id=0),  # pycocotools takes a match with the id 0 for none
        thing(1, CAT, [30, 30, 50, 50], area=0),
        thing(1, DOG, [5, 5, 90, 90], iscrowd=1),
        thing(2, DOG, [0, 0, 200, 110], id=2),  # an id that is used twice
        {"image_id": 2, "category_id": BIRD, "bbox": [1, 2, 3, 4]},  # no area, no iscrowd
    ]
    truth = coco_dict([1, 2, 3], objects)
    before = copy.deepcopy(truth)
    result = evaluate(truth, rows(*[(a["image_id"], a["category_id"], a["bbox"], 0.9) for a in objects]))
    assert truth == before
    assert result.per_class == dict.fromkeys(CLASS_NAMES, pytest.approx(1.0))
    assert all(value in (-1, pytest.approx(1)) for name, value in result.metrics.items() if name.startswith("AP"))
    assert result.metrics["AP"] == result.metrics["AR100"] == pytest.approx(1.0)


@pytest.mark.parametrize("num_objects", [0, 1])
@pytest.mark.parametrize("num_detections", [0, 1])
def test_no_detections_and_no_objects(num_objects: int, num_detections: int, tmp_path: Path) -> None:
    truth = coco_dict([1], [thing(1, CAT, [10, 10, 20, 20])] * num_objects)
    found = rows(*[(1, CAT, [10, 10, 20, 20], 0.5)] * num_detections)
    result = evaluate(truth, found)
    assert result.metrics["AP"] == pytest.approx(-1.0 if num_objects == 0 else float(num_detections))
    assert result.per_class["dog"] == -1.0
    assert "none" in coco_table({"one2one": result})
    write_predictions(tmp_path / "predictions.json", found)
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == num_detections
    assert evaluate(truth, rows(), image_ids=[]).metrics["AP"] == -1.0


def test_rows_are_rounded_as_they_are_written(tmp_path: Path) -> None:
    found = detection_rows(
        2**40 + 1, np.array([[1 / 3, 2 / 3, 100 / 3, 200 / 3]], np.float32), np.array([1 / 3], np.float32), np.array([90])
    )
    assert found.tolist() == [[2**40 + 1, 0.333, 0.667, 33.0, 66.0, 0.333333, 90]]
    write_predictions(tmp_path / "predictions.json", found)
    expected = {"image_id": 2**40 + 1, "category_id": 90, "bbox": [0.333, 0.667, 33.0, 66.0], "score": 0.333333}
    assert json.loads((tmp_path / "predictions.json").read_text()) == [expected]
    assert detection_rows(1, np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)).shape == (0, 7)


def test_the_callback_equals_pycocotools_on_its_files_bit_for_bit(tmp_path: Path) -> None:
    truth, near, other = random_run()
    evaluation = CocoEvaluation()
    trainer = quiet_trainer(tmp_path, evaluation)
    trainer.validate(RoteDetector(near, other), RoteData(IMAGES, {"val": truth}, batch_size=4), verbose=False)
    files = {"one2one": "predictions.json", "one2many": "predictions_one2many.json"}
    for branch, file_name in files.items():
        numbers, per_class = offline(truth, tmp_path / file_name, tmp_path)
        result = evaluation.results[branch]
        assert list(result.metrics.values()) == numbers
        assert list(result.per_class.values()) == per_class
        prefix = "val" if branch == "one2one" else "val/one2many"
        logged = {name: trainer.callback_metrics[f"{prefix}/{name}"].item() for name in METRICS}
        assert logged == pytest.approx(result.metrics)
        assert trainer.callback_metrics[f"{prefix}/AP_class/dog"].item() == pytest.approx(result.per_class["dog"])
    assert evaluation.results["one2one"].metrics["AP50"] > evaluation.results["one2many"].metrics["AP50"] + 0.3
    assert trainer.callback_metrics["val/eval_seconds"] > 0
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert {entry["category_id"] for entry in written} <= set(CATEGORY_IDS)
    assert [entry["image_id"] for entry in written] == sorted(entry["image_id"] for entry in written)


def test_a_chosen_branch_has_the_plain_names(tmp_path: Path) -> None:
    truth, near, other = random_run()
    evaluation = CocoEvaluation("one2many", ground_truth=truth, predictions=False, per_class=False)
    trainer = quiet_trainer(tmp_path, evaluation)
    trainer.test(RoteDetector(other, near), DataLoader(samples(IMAGES), 4, collate_fn=collate), verbose=False)
    assert trainer.callback_metrics["test/AP50"] > 0.5
    assert not [name for name in trainer.callback_metrics if "one2many" in name or "class" in name]
    assert not list(tmp_path.glob("*.json"))


def test_a_test_asks_for_its_own_split(tmp_path: Path) -> None:
    truth, near, _ = random_run()
    empty = coco_dict(IMAGES, [])
    evaluation = CocoEvaluation()
    trainer = quiet_trainer(tmp_path, evaluation)
    data = RoteData(IMAGES, {"val": empty, "test": truth})
    trainer.test(RoteDetector(near), data, verbose=False)
    assert trainer.callback_metrics["test/AP50"] > 0.5
    assert (tmp_path / "predictions_test.json").exists()
    trainer.validate(RoteDetector(near), data, verbose=False)
    assert trainer.callback_metrics["val/AP50"] == -1


@pytest.mark.parametrize("objects", [True, False])
def test_an_untrained_model_finishes_and_leaves_checkpoints(tmp_path: Path, objects: bool) -> None:
    truth = random_run()[0] if objects else coco_dict(IMAGES, [])
    best = ModelCheckpoint(tmp_path, monitor="val/AP", mode="max", save_last=True, filename="best")
    evaluation = CocoEvaluation()
    trainer = quiet_trainer(tmp_path, evaluation, best, max_epochs=2, num_sanity_val_steps=2)
    trainer.fit(RoteDetector({}), RoteData(IMAGES, {"val": truth}))
    assert best.best_model_score == (0 if objects else -1)
    assert Path(best.best_model_path).exists()
    assert (tmp_path / "last.ckpt").exists()
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert not [name for name in checkpoint["callbacks"] if "CocoEvaluation" in name]


class CountEvaluations(L.Callback):
    """Sees what was evaluated when the sanity check has ended."""

    def __init__(self, evaluation: CocoEvaluation) -> None:
        self.evaluation = evaluation

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.after_sanity = dict(self.evaluation.results)


def test_the_sanity_check_is_not_evaluated(tmp_path: Path) -> None:
    evaluation = CocoEvaluation()
    watch = CountEvaluations(evaluation)
    trainer = quiet_trainer(tmp_path, evaluation, watch, max_epochs=1, num_sanity_val_steps=2)
    trainer.fit(RoteDetector({}), RoteData(IMAGES, {"val": random_run()[0]}))
    assert watch.after_sanity == {}
    assert evaluation.results["one2one"].num_images == len(IMAGES)


def test_only_images_that_were_seen_count(tmp_path: Path) -> None:
    truth, near, _ = random_run()
    evaluation = CocoEvaluation("one2one")
    trainer = quiet_trainer(tmp_path, evaluation, limit_val_batches=2)
    with pytest.warns(UserWarning, match="of 4 images, of 21"):
        trainer.validate(RoteDetector(near), RoteData(IMAGES, {"val": truth}), verbose=False)
    seen = set(IMAGES[:4])
    part = {**truth, "images": [image for image in truth["images"] if image["id"] in seen]}
    part["annotations"] = [a for a in truth["annotations"] if a["image_id"] in seen]
    numbers, _ = offline(part, tmp_path / "predictions.json", tmp_path)
    assert list(evaluation.results["one2one"].metrics.values()) == numbers


def test_detections_that_are_not_numbers_are_left_out_with_a_warning(tmp_path: Path) -> None:
    truth = coco_dict([1], [thing(1, CAT, [10, 10, 20, 20])])
    broken: Answer = [([float("nan"), 10.0, 30.0, 30.0], 0.9, 0)]
    trainer = quiet_trainer(tmp_path, CocoEvaluation())
    with pytest.warns(UserWarning, match="1 of 1 one2one detection is not finite"):
        trainer.validate(RoteDetector({1: broken}), RoteData([1], {"val": truth}), verbose=False)
    assert trainer.callback_metrics["val/AP"] == 0


def test_fitting_without_validation_needs_no_ground_truth(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, CocoEvaluation(), max_epochs=1, limit_val_batches=0)
    trainer.fit(RoteDetector({}), RoteData(IMAGES, {}))


def refuses(ground_truth: Any, message: str, data: Any = None, tmp_path: Path | None = None) -> None:
    trainer = quiet_trainer(tmp_path, CocoEvaluation(ground_truth=ground_truth), max_epochs=1)
    loader = DataLoader(samples([1]), collate_fn=collate)
    with pytest.raises(ValueError, match=message):
        trainer.fit(RoteDetector({}), *([loader, loader] if data is None else [data]))
    assert trainer.global_step == 0


def test_bad_ground_truth_is_refused_before_training(tmp_path: Path) -> None:
    refuses(None, "no ground truth for 'val'.*ground_truth=", tmp_path=tmp_path)
    refuses(None, "no ground truth for 'val'", RoteData([1], {"test": {}}), tmp_path)
    refuses(tmp_path / "absent.json", "absent.json: no such file", tmp_path=tmp_path)
    (tmp_path / "list.json").write_text("[]")
    refuses(tmp_path / "list.json", "holds a list", tmp_path=tmp_path)
    (tmp_path / "broken.json").write_text("{")
    refuses(tmp_path / "broken.json", "broken.json: not JSON", tmp_path=tmp_path)
    refuses({"images": []}, "annotations, categories", tmp_path=tmp_path)
    refuses({**coco_dict([1], []), "annotations": [{"id": 5, "image_id": 1}]}, "annotation 5 has no", tmp_path=tmp_path)


def test_categories_must_be_those_of_the_model(tmp_path: Path) -> None:
    shifted = [{"id": i, "name": name} for i, name in zip(CATEGORY_IDS, ["background", *CLASS_NAMES])]
    refuses({**coco_dict([1], []), "categories": shifted}, "7 is 'background' there and 'cat'", tmp_path=tmp_path)
    foreign = [{"id": 1, "name": "cat"}]
    refuses({**coco_dict([1], []), "categories": foreign}, r"ids \[1\] there and \[7, 22, 90\]", tmp_path=tmp_path)


def test_classes_the_model_lacks_count_as_missed_with_a_warning(tmp_path: Path) -> None:
    truth = coco_dict([1], [thing(1, 91, [1, 1, 5, 5])])
    truth["categories"].append({"id": 91, "name": "fish"})
    trainer = quiet_trainer(tmp_path, CocoEvaluation())
    with pytest.warns(UserWarning, match="no class for fish"):
        trainer.validate(RoteDetector({}), RoteData([1], {"val": truth}), verbose=False)
    assert trainer.callback_metrics["val/AP_class/fish"] == 0


def test_errors_during_an_evaluation_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="branch is 'nms'; choose"):
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
    truth = coco_dict([1], [thing(1, DOG, [0, 0, IMAGE[1], IMAGE[0]])])
    answer: Answer = [([-9.0, -9.0, IMAGE[1] + 9.0, IMAGE[0] + 9.0], 0.5, 1)]
    trainer = quiet_trainer(tmp_path, CocoEvaluation(ground_truth=truth))
    trainer.validate(RoteDetector({1: answer}), DataLoader(samples([1]), collate_fn=collate), verbose=False)
    (entry,) = json.loads((tmp_path / "predictions.json").read_text())
    assert entry["bbox"] == [0.0, 0.0, IMAGE[1], IMAGE[0]]
    assert trainer.callback_metrics["val/AP"] == 1


def test_the_table_shows_every_number_of_both_branches() -> None:
    truth, near, other = random_run()
    coco = load_ground_truth(truth)
    found = {}
    for branch, answers in {"one2one": near, "one2many": other}.items():
        told = [(i, box, score, label) for i, answer in answers.items() for box, score, label in answer]
        xywh = [(i, CATEGORY_IDS[k], [*box[:2], box[2] - box[0], box[3] - box[1]], score) for i, box, score, k in told]
        found[branch] = evaluate(coco, rows(*xywh))
    lines = coco_table(found).splitlines()
    assert len(lines) == 1 + 12 + 1 + 3
    assert lines[0].split() == ["21", "images", "one2one", "one2many"]
    assert lines[1].split()[:3] == ["AP"] + [f"{found[branch].metrics['AP']:.4f}" for branch in found]
    assert lines[-1].split() == ["bird"] + [f"{found[branch].per_class['bird']:.4f}" for branch in found]


class KeepScores(L.Callback):
    """Writes what each rank holds in the end."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        names = [name for name in trainer.callback_metrics if name.startswith("val/") and "seconds" not in name]
        values = {name: trainer.callback_metrics[name].item() for name in names}
        values["best"] = trainer.checkpoint_callback.best_model_score.item()
        Path(trainer.default_root_dir, f"rank{trainer.global_rank}.json").write_text(json.dumps(values))


@pytest.mark.parametrize("devices", [2, 3])
def test_several_processes_find_what_one_finds(tmp_path: Path, devices: int, processes: Processes) -> None:
    """21 images do not divide by 2; one rank has a batch without detections; all ranks know the metric."""
    truth, near, other = random_run()
    near = {image_id: near[image_id] for image_id in IMAGES[::2]}  # with 2 processes rank 1 finds nothing
    scores = {}
    for count in (1, devices):
        root = tmp_path / str(count)
        best = ModelCheckpoint(root, monitor="val/AP", mode="max")
        watch = [CocoEvaluation(), EpochLog(), PredictionSheet(), KeepScores()]
        trainer = quiet_trainer(root, *watch, best, max_epochs=1, num_sanity_val_steps=0, **processes(count))
        trainer.fit(RoteDetector(near, other), RoteData(IMAGES, {"val": truth}))
        scores[count] = [json.loads((root / f"rank{rank}.json").read_text()) for rank in range(count)]
    for values in scores[devices]:
        assert values == scores[1][0]
    one, several = (tmp_path / str(count) / "predictions.json" for count in (1, devices))
    assert one.read_text() == several.read_text()
    assert scores[1][0]["best"] > 0.1
