"""Predictor: images in any form give the same detections, in pixels of the image."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from detector import build_detector, load_detector
from detector.callbacks import CocoEvaluation
from detector.export import ExportSettings
from detector.imaging.letterbox import letterbox, to_original
from detector.predict.pixels import as_array
from detector.predict.predictor import Predictor
from detector.predict.stream_sources import open_stream
from detector.weights.info import WeightsInfo


@pytest.fixture
def predictor() -> Predictor:
    torch.manual_seed(0)
    info = WeightsInfo("yolo26_n", class_names=["cat", "dog"], category_ids=[7, 9], image_size=(64, 96))
    return Predictor(build_detector("yolo26_n", 2).eval(), info)


def test_every_form_of_an_image_gives_the_same(predictor: Predictor, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 120, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    forms = [tmp_path / "a.png", str(tmp_path / "a.png"), image, tensor, tensor / 255]
    results = predictor(forms, score_threshold=0.0, max_detections=5)
    canvas, placement = letterbox(image, (64, 96))
    batch = torch.from_numpy(canvas).permute(2, 0, 1)[None] / 255
    (expected,) = predictor.model.detect(batch, score_threshold=0.0, max_detections=5)
    for detections in results:
        assert len(detections) == 5
        torch.testing.assert_close(detections.boxes, to_original(expected["boxes"], placement), atol=1e-3, rtol=0)
        torch.testing.assert_close(detections.scores, expected["scores"])
        assert detections.names == [["cat", "dog"][label] for label in detections.labels.tolist()]
        assert detections.category_ids == [[7, 9][label] for label in detections.labels.tolist()]
    (alone,) = predictor(image, score_threshold=1.0)
    assert (len(alone), alone.boxes.shape, alone.names) == (0, (0, 4), [])


def test_anything_but_an_image_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no image")
    for image, message in (
        (tmp_path / "a.txt", r"a\.txt: is not a whole image"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (torch.full((3, 4, 4), 255.0), "values from 255 to 255"),
        (torch.zeros(4, 4), r"shape \(4, 4\)"),
        (np.zeros((4, 4, 3)), "float64"),
        (torch.zeros(1, 3, 4, 4), r"\(1, 3, 4, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            predictor(image)


WRONG_SETTINGS = [
    ("score_threshold", "0.3"), ("score_threshold", 25), ("score_threshold", float("nan")), ("score_threshold", None),
    ("score_threshold", True), ("score_threshold", -0.1), ("iou_threshold", 1.5), ("iou_threshold", "0.7"),
    ("max_detections", 10.0), ("max_detections", "10"), ("max_detections", 0), ("max_detections", -1),
    ("max_detections", True), ("batch_size", 0), ("batch_size", 2.0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG_SETTINGS)
def test_wrong_settings_are_named_with_what_is_expected(predictor: Predictor, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is .+; expected a (whole )?number"):
        predictor([], **{name: value})
    if name != "batch_size":
        with pytest.raises(ValueError, match=rf"^{name} is .+; expected a (whole )?number"):
            predictor.model.detect(torch.zeros(1, 3, 64, 64), **{name: value})


@pytest.mark.parametrize("value", ["no", "false", 1, 0, None, [True]])
def test_a_switch_is_true_or_false(predictor: Predictor, value: Any) -> None:
    """A text is true for Python, also "no"."""
    with pytest.raises(ValueError, match=r"^flip_test is .+; expected True or False"):
        predictor([], flip_test=value)
    assert predictor([], flip_test=np.bool_(True)) == []
    with pytest.raises(ValueError, match=r"^flip_test is .+; expected True or False"):
        CocoEvaluation(flip_test=value)
    with pytest.raises(ValueError, match=r"^half is .+; expected True or False"):
        ExportSettings(half=value)
    with pytest.raises(ValueError, match=r"^every_frame is .+; expected True or False"):
        open_stream("-", every_frame=value)


def test_numbers_of_numpy_are_settings(predictor: Predictor) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    (detections,) = predictor(image, np.float32(0), np.int64(3), [np.int64(1)], None, np.uint8(1))
    assert detections.names == ["dog"] * 3
    (detections,) = predictor(image, np.float32(0), np.int64(1), [np.int64(1)], np.float64(0.5), branch="one2many")
    assert detections.names == ["dog"]


@pytest.mark.parametrize("classes", ["cat", 0, [99], [1.5], [True], [None], ["cow"], [-1], []])
def test_wrong_classes_are_refused(predictor: Predictor, classes: Any) -> None:
    with pytest.raises(ValueError, match=r"classes is .*; expected a list of|unknown class .*hoose one of cat|no class is"):
        predictor([], classes=classes)


def test_a_name_of_two_classes_means_both() -> None:
    info = WeightsInfo("yolo26_n", class_names=["cat", "dog", "cat"], category_ids=[1, 2, 3])
    assert Predictor(build_detector("yolo26_n", 3), info).labels_of(["cat"]) == [0, 2]


@pytest.mark.parametrize("images", [None, torch.zeros(3, 64, 64), torch.zeros(1, 3, 64, 64, dtype=torch.uint8), np.zeros(3)])
def test_a_detector_names_the_images_that_it_takes(predictor: Predictor, images: Any) -> None:
    with pytest.raises(ValueError, match=r"^images is .*; expected a floating-point tensor \(B, 3, height, width\)"):
        predictor.model.detect(images)


def test_wrong_arguments_of_the_builders(predictor: Predictor) -> None:
    for classes in (0, "cat", ["cat"]):
        with pytest.raises(ValueError, match=r"classes is .*; expected a (list of labels|whole number)"):
            predictor.model.detect(torch.zeros(1, 3, 64, 64), classes=classes)
    with pytest.raises(ValueError, match="unknown branch 'both'"):
        predictor.model.deploy("both")
    for number in (3.0, "3", 0, True, None):
        with pytest.raises(ValueError, match=r"^num_classes is .*; expected a whole number, 1 or more"):
            build_detector("yolo26_n", number)
    with pytest.raises(ValueError, match=r"model is a Linear .*expected a Detector"):
        Predictor(torch.nn.Linear(1, 1), predictor.info)
    with pytest.raises(ValueError, match="unknown branch 'both'; choose one of one2one, one2many"):
        load_detector("lost.ckpt", "both")
    for path in (None, 3, ["a.ckpt"]):
        with pytest.raises(ValueError, match="expected the path of a weights file"):
            load_detector(path)
    for size in (0, True, 64.0, "64", (64, 64, 3)):
        with pytest.raises(ValueError, match=r"image_size is .*; expected one side, or height and width"):
            Predictor(predictor.model, predictor.info, image_size=size)


def test_a_predictor_evaluates_in_any_mode(predictor: Predictor) -> None:
    """Also after train() by mistake, in the whole model or a part; the mode stays, for a training that goes on."""
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    settings = {"score_threshold": 0.0, "max_detections": 5}
    (expected,) = predictor(image, **settings)
    before = {name: value.clone() for name, value in predictor.model.state_dict().items()}
    for module in (predictor.model, predictor.model.backbone.stage_p4):
        predictor.model.eval()
        module.train()
        modes = [m.training for m in predictor.model.modules()]
        with torch.enable_grad():
            (detections,) = predictor(image, **settings)
        assert torch.equal(detections.boxes, expected.boxes)
        assert [m.training for m in predictor.model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in predictor.model.state_dict().items())
    assert not detections.boxes.requires_grad
    for tensor in (detections.boxes, detections.scores, detections.labels):
        tensor.add_(1)  # ordinary tensors, not those of inference mode


def test_a_generator_is_read_batch_by_batch(predictor: Predictor) -> None:
    image, taken = np.zeros((64, 96, 3), np.uint8), []

    def images() -> Iterator[np.ndarray]:
        for number in range(5):
            taken.append(number)
            yield image

    assert len(predictor(images(), batch_size=2)) == 5
    assert taken == [0, 1, 2, 3, 4]


def test_sixteen_bits_are_read_as_in_training(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The range of the weights file acts on files and arrays, also after ``deploy``."""
    values = np.random.default_rng(0).integers(0, 4096, (64, 96, 3), np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), values[..., ::-1])
    twelve_bits = Predictor(predictor.model, replace(predictor.info, sixteen_bit_range=(0, 4095))).deploy()
    batches = []
    monkeypatch.setattr(twelve_bits.model, "detect", lambda batch, *_: batches.append(batch) or [])
    with pytest.raises(ValueError, match="zip"):  # no outputs
        twelve_bits([tmp_path / "deep.png", values])
    expected = torch.from_numpy((values >> 4).astype(np.uint8)).permute(2, 0, 1) / 255
    assert all(torch.equal(image, expected) for image in batches[0])
    assert len(batches[0]) == 2


def test_batches_give_the_same_as_one_by_one(predictor: Predictor) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in ((50, 120), (64, 96), (200, 30), (9, 9), (64, 65))]
    alone = [predictor(image, score_threshold=0.0, max_detections=20)[0] for image in images]
    assert predictor([]) == []
    for size in (2, 5, 8):
        together = predictor(images, score_threshold=0.0, max_detections=20, batch_size=size)
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a.boxes, b.boxes, atol=1e-3, rtol=0)
            torch.testing.assert_close(a.scores, b.scores, atol=1e-6, rtol=0)
            assert a.names == b.names


def test_gray_alpha_and_16_bits(predictor: Predictor) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (50, 70), np.uint8)
    rgb = np.stack([gray] * 3, axis=2)
    for form in (gray, gray[..., None], np.dstack([rgb, 255 - gray]), rgb.astype(np.uint16) * 257):
        np.testing.assert_array_equal(as_array(form), rgb)
    np.testing.assert_array_equal(as_array(torch.from_numpy(gray)[None]), rgb)


def test_classes_are_chosen_before_ranking(predictor: Predictor) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    (both,) = predictor(image, score_threshold=0.0, max_detections=3)
    for name in ("cat", "dog"):
        (one,) = predictor(image, score_threshold=0.0, max_detections=3, classes=[name])
        assert one.names == [name] * 3
        (other,) = predictor(image, score_threshold=0.0, max_detections=3, classes=[predictor.labels_of([name])[0]])
        assert torch.equal(one.boxes, other.boxes)
    assert len(both) == 3
    for classes in (["cow"], [2], []):
        with pytest.raises(ValueError, match=r"(unknown|no) class .*hoose (one|some) of:? cat, dog"):
            predictor(image, classes=classes)


def test_a_branch_can_be_asked_for(predictor: Predictor) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    other = Predictor(predictor.model, predictor.info, "one2many", image_size=predictor.image_size)
    settings = {"score_threshold": 0.0, "max_detections": 20}
    (main_branch,), (asked,), (expected,) = (
        predictor(image, **settings),
        predictor(image, **settings, branch="one2many"),
        other(image, **settings),
    )
    assert torch.equal(asked.boxes, expected.boxes)
    assert not torch.equal(asked.boxes, main_branch.boxes)
    for wrong, one in (("both", predictor), ("one2many", predictor.deploy())):
        with pytest.raises(ValueError, match=f"(unknown|no) branch '{wrong}'"):
            one(image, branch=wrong)


def test_boxes_without_area_are_left_out(predictor: Predictor) -> None:
    """A network that has learned little may give the right side before the left."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [10, 0, 5, 10], [0, 10, 10, 5], [3, 3, 3, 9]])
    output = {"boxes": boxes, "scores": torch.tensor([0.1, 0.9, 0.8, 0.7]), "labels": torch.zeros(4, dtype=torch.long)}
    _, (placement,) = predictor.prepare([np.zeros((64, 96, 3), np.uint8)])
    detections = predictor.detections(output, placement)
    assert detections.scores.tolist() == pytest.approx([0.1])
    assert len(detections.names) == len(detections.boxes) == 1


def test_images_of_pil_and_folders(predictor: Predictor, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    image = PIL.Image.fromarray(np.rot90(pixels).copy())
    image.getexif()[0x0112] = 6  # to be turned clockwise
    settings = {"score_threshold": 0.0, "max_detections": 5}
    (expected,), (rotated,) = predictor(pixels, **settings), predictor(image, **settings)
    assert torch.equal(rotated.boxes, expected.boxes)
    (gray,) = predictor([image.convert("L")], **settings)
    assert len(gray) == 5
    with pytest.raises(ValueError, match="is a folder; give images"):
        predictor(tmp_path)


def test_detections_convert(predictor: Predictor) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    (first,) = predictor(image, score_threshold=0.0, max_detections=3)
    assert first.to_torchvision() == {"boxes": first.boxes, "scores": first.scores, "labels": first.labels}
    pytest.importorskip("supervision")
    for detections in (first, predictor(image, score_threshold=1.0)[0]):
        converted = detections.to_supervision()
        np.testing.assert_array_equal(converted.xyxy, detections.boxes)
        np.testing.assert_array_equal(converted.class_id, detections.labels)
        assert converted["class_name"].tolist() == detections.names
        assert len(converted) == len(detections)


def test_a_deployed_predictor_answers_alike(predictor: Predictor) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    (before,), (after,) = (p(image, score_threshold=0.0, max_detections=20) for p in (predictor, predictor.deploy()))
    torch.testing.assert_close(before.boxes, after.boxes, atol=1e-2, rtol=0)
    torch.testing.assert_close(before.scores, after.scores, atol=1e-5, rtol=0)


def test_the_threshold_of_the_best_f1(predictor: Predictor) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    scores = [predictor(image, score_threshold=0.0, branch=branch)[0].scores for branch in ("one2one", "one2many")]
    thresholds = [share * one.max().item() for share, one in zip((0.9, 1.1), scores)]
    info = replace(predictor.info, best_f1_thresholds=dict(zip(("one2one", "one2many"), thresholds)))
    known = Predictor(predictor.model, info)
    assert known.best_f1_threshold == thresholds[0]
    assert known.deploy().best_f1_threshold == thresholds[0]
    assert Predictor(predictor.model, info, "one2many").deploy().best_f1_threshold == thresholds[1]
    for branch, threshold in zip(("one2one", "one2many"), thresholds):
        (detections,) = known(image, score_threshold="best", branch=branch)
        assert torch.equal(detections.scores, known(image, score_threshold=threshold, branch=branch)[0].scores)
        assert (len(detections) > 0) == (branch == "one2one")
    assert len(known(image)[0]) != len(known(image, score_threshold="best")[0])  # 0.25 is the default


def test_an_unknown_threshold_is_refused(predictor: Predictor) -> None:
    assert predictor.best_f1_threshold is None
    unknown = "unknown, because the file records no validation; give a number"
    for word, message in (("best", unknown), ("low", "score_threshold is 'low'; expected a number")):
        with pytest.raises(ValueError, match=message):
            predictor([], score_threshold=word)


def test_branches() -> None:
    model = build_detector("yolo26_n", 2)
    assert Predictor(model.deploy("one2many"), WeightsInfo("yolo26_n"), "one2many").category_ids == [0, 1]
    for detector, branch in ((model, "one2two"), (model.deploy("one2many"), "one2one")):
        with pytest.raises(ValueError, match=f"(unknown|no) branch '{branch}'"):
            Predictor(detector, WeightsInfo("yolo26_n"), branch)


def test_classes_without_names_get_numbers() -> None:
    predictor = Predictor(build_detector("yolo26_n", 2), WeightsInfo("yolo26_n"))
    assert (predictor.class_names, predictor.category_ids) == (["class 0", "class 1"], [0, 1])
    assert predictor.image_size == (640, 640)


def test_a_detector_fresh_from_training_predicts_and_stays_as_it_is() -> None:
    model = build_detector("yolo26_n", 2).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Predictor(model, WeightsInfo("yolo26_n", image_size=(64, 64)))(torch.rand(3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_input_size_can_be_chosen() -> None:
    model, info = build_detector("yolo26_n", 2), WeightsInfo("yolo26_n", image_size=(64, 64))
    assert Predictor(model, info, image_size=96).image_size == (96, 96)
    assert Predictor(model, info, image_size=(64, 96)).image_size == (64, 96)
    for size in (100, (64, 65), 16):
        with pytest.raises(ValueError, match="multiples of 32"):
            Predictor(model, info, image_size=size)


def test_a_predictor_and_its_detections_show_what_they_are(predictor: Predictor, tmp_path: Path) -> None:
    text = "Predictor: yolo26_n, 2 classes (cat, dog), input 64 x 96 px (height x width), branch one2one"
    assert repr(predictor) == text
    image = np.zeros((64, 96, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    path = tmp_path / "a.png"
    (of_path,), (of_array,) = predictor(path), predictor([image])
    assert of_path.image == path
    assert of_array.image is image
    assert predictor(one for one in [image])[0].image is None  # a generator may give more images than fit into memory
    assert of_path.class_names == ["cat", "dog"]
    assert of_path.plot().size == (96, 64)


def test_an_unknown_argument_is_answered_with_the_right_one(predictor: Predictor) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    for name, right in (("conf", "score_threshold"), ("iou", "iou_threshold"), ("max_det", "max_detections")):
        with pytest.raises(TypeError, match=f"Predictor: unknown argument {name}; did you mean {right}"):
            predictor(image, **{name: 0.1})
    with pytest.raises(TypeError, match=r"unknown argument augment\. It takes images, score_threshold, .*flip_test"):
        predictor(image, augment=True)
    with pytest.raises(TypeError, match="load_detector: unknown argument imgsz; did you mean image_size"):
        load_detector("a.ckpt", imgsz=640)


def test_flip_test_merges_both_views(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network that finds the box around bright pixels, with a higher score on the right."""

    def detect(inputs: torch.Tensor, *_: Any) -> list[dict[str, torch.Tensor]]:
        rows, columns = (inputs[0].amin(0) > 0.9).nonzero(as_tuple=True)
        box = torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)).float()[None]
        score = 0.9 if box[0, 0] > 48 else 0.6
        return [{"boxes": box, "scores": torch.tensor([score]), "labels": torch.tensor([1])}]

    image = np.zeros((64, 96, 3), np.uint8)
    image[10:30, 20:31] = 255
    monkeypatch.setattr(predictor.model, "detect", detect)
    (plain,), (both,) = predictor(image), predictor(image, flip_test=True)
    assert plain.boxes.tolist() == both.boxes.tolist() == [[20, 10, 31, 30]]
    assert (plain.scores.item(), both.scores.item()) == (pytest.approx(0.6), pytest.approx(0.9))


def bright_spots(inputs: torch.Tensor, *_: Any) -> list[dict[str, torch.Tensor]]:
    """Detect as a perfect network: a box around each bright spot of the input, with its brightness as the score."""
    results = []
    for image in (inputs[:, 0] * 255).byte().numpy():
        _, _, stats, _ = cv2.connectedComponentsWithStats((image > 120).astype(np.uint8))
        boxes = [(x, y, x + w, y + h) for x, y, w, h, _ in stats[1:].tolist()]
        scores = torch.tensor([image[y, x] / 255 for x, y, _, _ in boxes])
        box_tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        results.append({"boxes": box_tensor, "scores": scores, "labels": torch.zeros(len(boxes), dtype=torch.long)})
    return results


def test_tiles_find_each_object_once(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also at seams, where tiles see it whole or cut, and an object that is longer than the overlap."""
    image = np.zeros((128, 200, 3), np.uint8)
    objects = [(3, 3, 9, 9), (88, 50, 100, 58), (100, 60, 104, 70), (40, 100, 160, 110), (180, 110, 200, 128)]
    objects.append((60, 56, 70, 75))
    for number, (x1, y1, x2, y2) in enumerate(objects):
        image[y1:y2, x1:x2] = 250 - number
    batches = []

    def detect(inputs: torch.Tensor, *_: Any) -> list[dict[str, torch.Tensor]]:
        batches.append(len(inputs))
        return bright_spots(inputs)

    monkeypatch.setattr(predictor.model, "detect", detect)
    settings = {"tile": (64, 96), "overlap": 0.25, "batch_size": 4}
    for flip_test in (False, True):
        (found,) = predictor(image, **settings, flip_test=flip_test)
        assert max(batches) == 4
        expected = torch.tensor(objects, dtype=torch.float32)
        torch.testing.assert_close(found.boxes, expected, atol=2.5, rtol=0)
        assert len(found) == len(objects)
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        assert found.image is image
    (reduced,) = predictor(image)
    assert torch.equal(predictor(image, tile=200)[0].boxes, reduced.boxes)  # one tile: as without
    with pytest.raises(ValueError, match=r"overlap is 1.0; expected a share of the tile"):
        predictor([], tile=64, overlap=1.0)
    with pytest.raises(ValueError, match=r"^overlap is 0\.2, but there are no tiles; give their size, as tile=640"):
        predictor([], overlap=0.2)
    with pytest.raises(ValueError, match=r"the image is 64 x 96, but these detections are of one of 128 x 200 \(height x w"):
        reduced.plot(np.zeros((64, 96, 3), np.uint8))
    with pytest.raises(ValueError, match=r"the image is 200 x 128, but these detections are of one of 128 x 200"):
        found[:1].plot(image.transpose(1, 0, 2))
