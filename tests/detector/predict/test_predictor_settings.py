"""Every setting of a Predictor has its effect, in the right direction. A new setting needs a row here."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from detector.network.decode import decode
from detector.network.model import Detector
from detector.predict import Detections, Predictor, load_detector
from detector.predict.predictor import DEFAULT_SIZE
from detector.weights.files import save_weights
from detector.weights.info import WeightsInfo
from tests.detector.predict.crafted import INFO, blank_image, crafted_predictor

NMS = {"branch": "one2many"}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return crafted_predictor()


def scores(detections: Detections) -> list[float]:
    return [round(score, 3) for score in detections.scores.tolist()]


# Setting; the other settings of the call; other values; the scores with the default value, and with each of the others.
CALLS: list[tuple[str, dict[str, Any], list[Any], list[float], list[list[float]]]] = [
    ("score_threshold", {}, [0.05, 0.3, 0.5, 0.95], [0.9, 0.8, 0.5, 0.3],
     [[0.9, 0.8, 0.5, 0.3, 0.1], [0.9, 0.8, 0.5], [0.9, 0.8], []]),
    ("score_threshold", NMS, [0.5, 0.85], [0.9, 0.8, 0.5, 0.3], [[0.9, 0.8], [0.9]]),
    ("max_detections", {}, [3, 1], [0.9, 0.8, 0.5, 0.3], [[0.9, 0.8, 0.5], [0.9]]),
    ("max_detections", NMS, [3, 1], [0.9, 0.8, 0.5, 0.3], [[0.9, 0.8, 0.5], [0.9]]),
    ("classes", {}, [["dog"], [1, 2], ["cat"]], [0.9, 0.8, 0.5, 0.3], [[0.5, 0.3], [0.5, 0.3], [0.9, 0.8]]),
    ("classes", {"max_detections": 1}, [["dog"]], [0.9], [[0.5]]),  # chosen before the best are
    ("iou_threshold", NMS, [0.5, 0.59, 0.61, 0.0], [0.9, 0.8, 0.5, 0.3],
     [[0.9, 0.5, 0.3], [0.9, 0.5, 0.3], [0.9, 0.8, 0.5, 0.3], [0.9, 0.5, 0.3]]),
    ("branch", {"score_threshold": 0.05}, ["one2many"], [0.9, 0.8, 0.5, 0.3, 0.1], [[0.9, 0.8, 0.5, 0.3]]),
]  # fmt: skip


@pytest.mark.parametrize("case", CALLS, ids=[case[0] for case in CALLS])
def test_every_setting_of_a_call_has_its_effect(predictor: Predictor, case: tuple) -> None:
    """Of the Predictor, of ``Detector.detect``, which it calls, and of ``decode``, which that calls."""
    name, others, values, before, after = case
    batch, _ = predictor.prepare([blank_image()])
    for settings, expected in zip([{}, *({name: value} for value in values)], [before, *after], strict=True):
        settings = others | settings
        (detections,) = predictor(blank_image(), **settings)
        assert scores(detections) == expected
        if "classes" in settings:
            settings = settings | {"classes": predictor.labels_of(settings["classes"])}
        (output,) = predictor.model.detect(batch, **settings)
        (decoded,) = decode(predictor.model(batch), **{"score_threshold": 0.25} | settings)
        for other in (output, decoded):
            assert [round(score, 3) for score in other["scores"].tolist()] == expected


def test_a_threshold_of_nms_is_refused_without_nms(predictor: Predictor) -> None:
    """As by the command line; 0.7, too, which is the default of the other branch."""
    batch, _ = predictor.prepare([blank_image()])
    for function, images in ((predictor, blank_image()), (predictor.model.detect, batch), (decode, predictor.model(batch))):
        with pytest.raises(ValueError, match=r"^iou_threshold is 0\.7, .* one2one does not use; choose the branch one2many"):
            function(images, iou_threshold=0.7)
    with pytest.raises(ValueError, match="one2one does not use"):
        predictor([], iou_threshold=0.5, branch="one2one")


WHOLE, TILE = (81, 120), {"tile": (81, 60)}
# Setting that is the Predictor's own; the other settings; other values; what is seen with the default, and with each value.
OWN: list[tuple[str, dict[str, Any], list[Any], Any, list[Any]]] = [
    ("flip_test", {}, [True], [0.9, 0.8, 0.5, 0.3], [[0.9, 0.9, 0.8, 0.8, 0.5, 0.5, 0.3, 0.3]]),
    ("flip_test", NMS | {"max_detections": 3}, [True], [0.9, 0.8, 0.5], [[0.9, 0.9, 0.8]]),
    ("tile", {}, [200, 60, (81, 60)], [WHOLE],
     [[WHOLE], [(60, 60)] * 6 + [WHOLE], [(81, 60)] * 3 + [WHOLE]]),
    ("overlap", TILE, [0.0, 0.6], [(81, 60)] * 3 + [WHOLE],
     [[(81, 60)] * 2 + [WHOLE], [(81, 60)] * 4 + [WHOLE]]),
]  # fmt: skip


@pytest.mark.parametrize("case", OWN, ids=[case[0] for case in OWN])
def test_every_setting_of_the_predictor_alone_has_its_effect(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, case: tuple
) -> None:
    """On the scores, where both views of an image count, or on the parts of the image that the network sees."""
    name, others, values, before, after = case
    seen, original = [], predictor.prepare
    monkeypatch.setattr(predictor, "prepare", lambda parts: seen.extend(part.shape[:2] for part in parts) or original(parts))
    for settings, expected in zip([{}, *({name: value} for value in values)], [before, *after], strict=True):
        seen.clear()
        (detections,) = predictor(blank_image(), **others | settings)
        assert (scores(detections) if name == "flip_test" else seen) == expected


def test_the_best_threshold_is_that_of_the_branch_that_predicts(predictor: Predictor) -> None:
    """It is 0.6 for one2one and 0.4 for one2many."""
    other = Predictor(predictor.model, INFO, "one2many")
    for asked, expected in ((None, [0.9, 0.8]), ("one2one", [0.9, 0.8]), ("one2many", [0.9, 0.8, 0.5])):
        assert scores(predictor(blank_image(), "best", branch=asked)[0]) == expected
    for asked, expected in ((None, [0.9, 0.8, 0.5]), ("one2one", [0.9, 0.8])):
        assert scores(other(blank_image(), "best", branch=asked)[0]) == expected
    assert (predictor.best_f1_threshold, other.best_f1_threshold) == (0.6, 0.4)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_batches_have_the_size_asked_for(predictor: Predictor, monkeypatch: pytest.MonkeyPatch, batch_size: int) -> None:
    sizes, original = [], predictor.model.detect
    monkeypatch.setattr(predictor.model, "detect", lambda batch, *rest: sizes.append(len(batch)) or original(batch, *rest))
    assert len(predictor([blank_image()] * 5, batch_size=batch_size)) == 5
    assert sizes == [min(batch_size, 5 - start) for start in range(0, 5, batch_size)]
    sizes.clear()
    predictor(blank_image(), tile=60, batch_size=batch_size)  # 6 tiles and the whole image
    assert sizes == [min(batch_size, 7 - start) for start in range(0, 7, batch_size)]


def test_every_setting_of_a_call_has_a_case() -> None:
    """Also those of ``Detector.detect`` and ``decode``, so that none has a setting that the Predictor cannot pass on."""
    tested, own = ({case[0] for case in cases} for cases in (CALLS, OWN))
    assert tested | own | {"images", "batch_size"} == set(inspect.signature(Predictor.__call__).parameters) - {"self"}
    assert tested | {"images"} == set(inspect.signature(Detector.detect).parameters) - {"self"}
    assert tested | {"outputs"} == set(inspect.signature(decode).parameters)


# Argument of Predictor; another value; what to observe; what is seen without it and with it.
ARGUMENTS: list[tuple[str, Any, Callable[[Predictor], Any], Any, Any]] = [
    ("branch", "one2many", lambda p: scores(p(blank_image(), 0.05)[0]), [0.9, 0.8, 0.5, 0.3, 0.1], [0.9, 0.8, 0.5, 0.3]),
    ("source", "best.ckpt", lambda p: p.source, "", "best.ckpt"),
    ("image_size", (32, 96), lambda p: tuple(p.prepare([blank_image()])[0].shape[2:]), (64, 64), (32, 96)),
    ("info", WeightsInfo("yolo26_n"), lambda p: (p.class_names, p.category_ids, p.image_size),
     (INFO.class_names, INFO.category_ids, INFO.image_size), (["class 0", "class 1", "class 2"], [0, 1, 2], DEFAULT_SIZE)),
]  # fmt: skip


@pytest.mark.parametrize("case", ARGUMENTS, ids=[case[0] for case in ARGUMENTS])
def test_every_argument_of_a_predictor_has_its_effect(predictor: Predictor, case: tuple) -> None:
    """A deployed predictor has it, too."""
    name, value, observe, before, after = case
    assert observe(predictor) == before
    other = Predictor(**{"model": predictor.model, "info": INFO, name: value})
    assert observe(other) == after
    assert observe(other.deploy()) == after


def test_every_argument_of_a_predictor_has_a_case() -> None:
    assert {case[0] for case in ARGUMENTS} | {"model"} == set(inspect.signature(Predictor).parameters)


def test_what_load_detector_is_given_reaches_the_predictor(predictor: Predictor, tmp_path: Any) -> None:
    save_weights(tmp_path / "w.safetensors", predictor.model.state_dict(), INFO_OF_FILE)
    plain = load_detector(tmp_path / "w.safetensors")
    assert (plain.branch, plain.image_size, plain.class_names) == ("one2one", (64, 64), INFO.class_names)
    assert plain.source.startswith(str(tmp_path / "w.safetensors"))
    other = load_detector(tmp_path / "w.safetensors", "one2many", (32, 96))
    assert (other.branch, other.image_size, other.class_names) == ("one2many", (32, 96), INFO.class_names)
    weights, loaded = predictor.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    parameters = set(inspect.signature(load_detector).parameters)
    assert parameters == {"path", "branch", "image_size"}, "a new argument needs a line above"


INFO_OF_FILE = WeightsInfo(**vars(INFO) | {"overrides": {"width": 0.125, "depth": 0.33}})
