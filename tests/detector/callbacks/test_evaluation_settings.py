"""Every setting of CocoEvaluation has its effect, in the right direction. A new setting needs a row here."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from detector.callbacks import coco_evaluation
from detector.callbacks.coco_evaluation import CocoEvaluation
from tests.detector.callbacks.test_coco_evaluation import quiet_trainer
from tests.detector.evaluation.cases import CAT, DOG, annotation
from tests.detector.fakes import Answer, RoteData, RoteDetector, coco_dict, collate, raw_output, samples

TRUTH = coco_dict([1, 2], [annotation(1, CAT, [10, 10, 40, 40]), annotation(2, DOG, [20, 20, 30, 30])])
OTHER_TRUTH = coco_dict([1, 2], [annotation(1, CAT, [10, 10, 40, 40]), annotation(2, CAT, [20, 20, 30, 30])])
# Two boxes of one class with an IoU of 0.6, a weaker one elsewhere, and one of another class.
CATS: Answer = [([10.0, 10, 50, 50], 0.9, 0), ([10.0, 10, 50, 34], 0.8, 0), ([60.0, 10, 100, 50], 0.05, 0)]
ANSWERS = {1: CATS, 2: [([20.0, 20.0, 50.0, 50.0], 0.5, 1)]}
ONE2MANY = {1: CATS, 2: []}


class FlippedDetector(RoteDetector):
    """Also finds a bird in every mirror image, which ``flip_test`` gives to ``forward``: its score tells the branch."""

    def forward(self, images: torch.Tensor) -> dict[str, Any]:
        answers = [[[([70.0, 50, 90, 70], score, 2)]] * len(images) for score in (0.6, 0.4)]
        outputs = {branch: raw_output(answer, 1) for branch, answer in zip(("one2one", "one2many"), answers)}
        return {**outputs, "points": torch.zeros(1, 2), "strides": torch.ones(1)}


def evaluate(folder: Path, settings: dict[str, Any]) -> tuple[CocoEvaluation, dict[str, float]]:
    """Run an evaluation with files in ``folder``; return the callback and what it logged."""
    evaluation = CocoEvaluation(**settings)
    trainer = quiet_trainer(folder, evaluation)
    trainer.validate(FlippedDetector(ANSWERS, ONE2MANY), RoteData([1, 2], {"val": TRUTH}), verbose=False)
    return evaluation, {name: value.item() for name, value in trainer.callback_metrics.items()}


def scores(folder: Path, settings: dict[str, Any], branch: str = "one2one") -> list[float]:
    """Return the scores of the detections that were evaluated, as written, rounded."""
    evaluate(folder, settings)
    name = "predictions.json" if branch == "one2one" else "predictions_one2many.json"
    return sorted(round(entry["score"], 3) for entry in json.loads((folder / name).read_text()))


def scores_with_nms(folder: Path, settings: dict[str, Any]) -> list[float]:
    return scores(folder, settings, "one2many")


def branches(folder: Path, settings: dict[str, Any]) -> tuple[list[str], float]:
    """Return the branches that were evaluated, and the AP50 that has the plain name."""
    evaluation, logged = evaluate(folder, settings)
    return list(evaluation.results), round(logged["val/AP50"], 2)


def class_ap(folder: Path, settings: dict[str, Any]) -> list[float]:
    """Return the AP of each class: of no object it is -1."""
    return [round(value, 3) for value in evaluate(folder, settings)[0].results["one2one"].per_class.values()]


def files(folder: Path, settings: dict[str, Any]) -> list[str]:
    evaluate(folder, settings)
    return sorted(path.name for path in folder.iterdir())


def names_of_classes(folder: Path, settings: dict[str, Any]) -> list[str]:
    return sorted(name.rsplit("/", 1)[1] for name in evaluate(folder, settings)[1] if name.startswith("val/AP_class/"))


def backend_in_use(folder: Path, settings: dict[str, Any]) -> set[str]:
    """Return the backends that evaluations were asked for."""
    used, original = set(), coco_evaluation.evaluate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_evaluation, "check_backend", lambda backend: None)  # the package need not be installed

        def watched(coco: Any, detections: Any, image_ids: Any, backend: str = "pycocotools") -> Any:
            used.add(backend)
            return original(coco, detections, image_ids)

        patch.setattr(coco_evaluation, "evaluate", watched)
        evaluate(folder, settings)
    return used


FILES = ["ground_truth.json", "predictions.json", "predictions_one2many.json"]
# Setting; other values of it; what to observe; what is seen with the default, and with each of the values.
CASES: list[tuple[str, list[Any], Callable[[Path, dict[str, Any]], Any], Any, list[Any]]] = [
    ("branch", ["one2one", "one2many"], branches, (["one2one", "one2many"], 1.0),
     [(["one2one"], 1.0), (["one2many"], 0.5)]),
    ("ground_truth", [OTHER_TRUTH], class_ap, [1.0, 1.0, -1.0], [[0.505, -1.0, -1.0]]),
    ("score_threshold", [0.1, 0.5, 0.85], scores, [0.05, 0.5, 0.8, 0.9], [[0.5, 0.8, 0.9], [0.8, 0.9], [0.9]]),
    ("max_detections", [2, 1], scores, [0.05, 0.5, 0.8, 0.9], [[0.5, 0.8, 0.9], [0.5, 0.9]]),
    ("max_detections", [2, 1], scores_with_nms, [0.05, 0.8, 0.9], [[0.8, 0.9], [0.9]]),
    ("iou_threshold", [0.5, 0.61], scores_with_nms, [0.05, 0.8, 0.9], [[0.05, 0.9], [0.05, 0.8, 0.9]]),
    ("flip_test", [True], scores, [0.05, 0.5, 0.8, 0.9], [[0.05, 0.5, 0.6, 0.6, 0.8, 0.9]]),
    ("flip_test", [True], scores_with_nms, [0.05, 0.8, 0.9], [[0.05, 0.4, 0.4, 0.8, 0.9]]),
    ("predictions", [False], files, FILES, [[]]),
    ("per_class", [False], names_of_classes, ["bird", "cat", "dog"], [[]]),
    ("backend", ["ultrafast-pycocotools"], backend_in_use, {"pycocotools"}, [{"ultrafast-pycocotools"}]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_every_setting_of_the_evaluation_has_its_effect(tmp_path: Path, case: tuple) -> None:
    name, values, observe, before, after = case
    assert observe(tmp_path / "default", {}) == before
    for number, (value, expected) in enumerate(zip(values, after, strict=True)):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert observe(folder, {name: value}) == expected


def test_every_setting_of_the_evaluation_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(inspect.signature(CocoEvaluation).parameters)


@pytest.mark.parametrize(("name", "value"), [("score_threshold", 5), ("max_detections", 0), ("iou_threshold", 7)])
def test_a_wrong_setting_is_refused_before_the_training(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}; expected "):
        CocoEvaluation(**{name: value})


def test_a_threshold_of_nms_is_refused_without_nms() -> None:
    """0.7 is what configurations of earlier versions have."""
    settings = CocoEvaluation("one2one", iou_threshold=0.7).decode_settings("one2one")
    assert settings == {"score_threshold": 0.001, "max_detections": 300}
    with pytest.raises(ValueError, match=r"iou_threshold is 0\.5, but .* one2one does not use; .* or leave it at 0\.7"):
        CocoEvaluation("one2one", iou_threshold=0.5)


def test_the_progress_bar_has_two_metrics_of_the_first_branch(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, CocoEvaluation())
    trainer.validate(RoteDetector(ANSWERS, ONE2MANY), RoteData([1, 2], {"val": TRUTH}), verbose=False)
    assert set(trainer.progress_bar_metrics) == {"val/AP", "val/AP50"}


class GrowingData(RoteData):
    """One image in the first epoch, two in the second."""

    def val_dataloader(self) -> DataLoader:
        images = self.images if self.trainer.current_epoch else self.images[:1]
        return DataLoader(samples(images), collate_fn=collate)


@pytest.mark.filterwarnings("ignore:the COCO metrics are of")
def test_the_ground_truth_file_has_the_images_of_the_last_evaluation(tmp_path: Path) -> None:
    evaluation = CocoEvaluation()
    options = {"max_epochs": 2, "reload_dataloaders_every_n_epochs": 1, "num_sanity_val_steps": 0}
    trainer = quiet_trainer(tmp_path, evaluation, **options)
    trainer.fit(RoteDetector(ANSWERS), GrowingData([1, 2], {"val": TRUTH}))
    assert evaluation.results["one2one"].num_images == 2
    assert [image["id"] for image in json.loads((tmp_path / "ground_truth.json").read_text())["images"]] == [1, 2]
