"""The user's own albumentations."""

from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest

from data.mosaic import MosaicTile
from data.transforms import Augmentation, TrainPipeline
from data.user_transforms import build_transforms, compose

SIDES = {"min_height": 64, "min_width": 64}
SIZE = (64, 64)


def run(transforms: list[dict[str, Any]], image: np.ndarray, objects: list, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the image and the objects after the transforms, without any other augmentation."""
    augment = Augmentation(mosaic=0, scale=0, translate=0, fliplr=0, hsv=(0, 0, 0))
    tile = MosaicTile(image, np.array(objects, np.float32).reshape(-1, 5))
    return TrainPipeline(SIZE, augment, transforms)([[tile]], np.random.default_rng(seed))


def image_with_rectangle() -> np.ndarray:
    image = np.full((*SIZE, 3), 114, np.float32)
    image[10:30, 22:52] = 230
    return cv2.GaussianBlur(image, (0, 0), 1.2).round().astype(np.uint8)


GEOMETRIC = [
    {"HorizontalFlip": {"p": 1}},
    {"VerticalFlip": {"p": 1}},
    {"Transpose": {"p": 1}},
    {"RandomRotate90": {"p": 1}},
    {"Affine": {"translate_px": {"x": [-5, 5], "y": [-5, 5]}, "fill": 114, "p": 1}},
    {"Sequential": {"transforms": [{"RandomCrop": {"height": 56, "width": 60}}, {"Resize": {"height": 64, "width": 64}}]}},
    {"OneOf": {"transforms": [{"HorizontalFlip": {"p": 1}}], "p": 1}},
    {"SomeOf": {"transforms": [{"HorizontalFlip": {"p": 1}}, {"VerticalFlip": {"p": 1}}, {"Blur": {}}], "n": 2}},
    {"Compose": {"transforms": [{"OneOf": {"transforms": [{"HorizontalFlip": None}, {"Blur": {}}], "p": 0.5}}]}},
    {"Blur": {"blur_limit": [3, 3], "p": 1}},
]


@pytest.mark.parametrize("transform", GEOMETRIC, ids=lambda t: next(iter(t)))
def test_boxes_move_with_the_image(transform: dict[str, Any]) -> None:
    for seed in range(6):
        image, objects = run([transform], image_with_rectangle(), [[22, 10, 52, 30, 0]], seed)
        weight = image[:, :, 0].astype(float) - 114
        weight[weight < 3] = 0
        ys, xs = np.mgrid[:64, :64] + 0.5
        centroid = np.array([(weight * xs).sum(), (weight * ys).sum()]) / weight.sum()
        (box,) = objects
        np.testing.assert_allclose(centroid, (box[:2] + box[2:4]) / 2, atol=0.1)


def test_one_of_moves_boxes_and_also_applies_without_objects() -> None:
    flip = [{"OneOf": {"transforms": [{"HorizontalFlip": {"p": 1}}], "p": 1}}]
    image = image_with_rectangle()
    assert run(flip, image, [[22, 10, 52, 30, 0]])[1].tolist() == [[12, 10, 42, 30, 0]]
    np.testing.assert_array_equal(run(flip, image, [])[0], image[:, ::-1])


def test_transforms_draw_independently() -> None:
    """With ``Compose.set_random_seed`` two flips of the same probability would always agree."""
    flips = [{"HorizontalFlip": {"p": 0.5}}, {"VerticalFlip": {"p": 0.5}}]
    image, outcomes = image_with_rectangle(), set()
    for seed in range(40):
        _, objects = run(flips, image, [[22, 10, 52, 30, 0]], seed)
        outcomes.add(tuple(objects[0, :2].tolist()))
    assert len(outcomes) == 4


@pytest.mark.parametrize(("corner", "kept"), [((23, 64), 0), ((25, 64), 1), ((64, 11), 0), ((64, 13), 1)])
def test_small_remainders_of_boxes_are_dropped(corner: tuple[int, int], kept: int) -> None:
    """A side of one pixel is too small. ``corner`` (x, y) is where the image is cut."""
    cut = {"Crop": {"x_max": corner[0], "y_max": corner[1], "p": 1}}
    crop = {"Sequential": {"transforms": [cut, {"PadIfNeeded": SIDES | {"position": "top_left"}}], "p": 1}}
    assert len(run([crop], image_with_rectangle(), [[22, 10, 52, 30, 0]])[1]) == kept


def test_boxes_that_stick_out_are_clipped_and_boxes_without_area_dropped() -> None:
    """Albumentations would raise an error for both."""
    boxes = np.array([[-1, 5, 20, 20, 0], [30, 30, 30, 40, 1], [50, 50, 66, 60, 2]], np.float32)
    result = compose([A.HorizontalFlip(p=0)])(image=image_with_rectangle(), bboxes=boxes)
    np.testing.assert_allclose(result["bboxes"], [[0, 5, 20, 20, 0], [50, 50, 64, 60, 2]], atol=1e-3)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"HorizontalFlipp": {}}], "no transform 'HorizontalFlipp'; did you mean HorizontalFlip"),
        ([{"Lambda": {}}], "no transform 'Lambda'"),
        ([{"albumentations.Lambda": {}}], "albumentations.Lambda is no ImageOnlyTransform or DualTransform"),
        ([{"lost_module.Rain": {}}], r"cannot import lost_module.Rain: No module named 'lost_module'; .* PYTHONPATH"),
        ([{"tests.data.own_transforms.Rain": {}}], "cannot import tests.data.own_transforms.Rain: .* no attribute 'Rain'"),
        ([{".Rain": {}}], "cannot import .Rain"),
        ([{"tests.data.own_transforms.NoTransform": {}}], "NoTransform is no ImageOnlyTransform or DualTransform"),
        ([{"tests.data.own_transforms.Draws": {"rain": 1}}], "argument of tests.data.own_transforms.Draws: 'rain'"),
        ([{"HorizontalFlip": {"prob": 1}}], "unknown argument of HorizontalFlip: 'prob'"),
        ([{"Blur": {"blur_limt": 3}}], "unknown argument of Blur: 'blur_limt'; did you mean blur_limit"),
        ([{"OneOf": {"transforms": [{"Blurr": {}}]}}], "no transform 'Blurr'; did you mean Blur"),
        ([{"OneOf": {"transforms": [{"Blur": {}}], "n": 2}}], "unknown argument of OneOf: 'n'; choose one of p, transforms"),
        ([{"OneOf": {}}], "OneOf has transforms None; expected a list"),
        ([{"Blur": {"blur_limit": "large"}}], "Blur refuses its arguments"),
        ([{"Resize": {}}], "Resize refuses its arguments"),
        ([{"Blur": 0.5}], "Blur has the arguments 0.5"),
        (["Blur"], "has the entry 'Blur'"),
        ([{"Blur": {}, "Flip": {}}], "has the entry"),
        ([{"RandomCrop": {"height": 32, "width": 32, "p": 1}}], r"into \(32, 32, 3\) uint8; keep size"),
        ([{"Normalize": {"p": 1}}], "float32; keep size and type"),
        ([{"FDA": {"p": 0.01}}], "FDA does not work on an image of 64 x 64 with boxes"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_mistakes_are_refused_at_the_start(entries: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_transforms(entries, [SIZE])


def test_building_does_not_change_the_entries() -> None:
    entry = {"OneOf": {"transforms": [{"Blur": {"p": 0.2}}, {"CLAHE": None}], "p": 0.5}}
    (built,) = build_transforms([entry], [SIZE])
    assert entry == {"OneOf": {"transforms": [{"Blur": {"p": 0.2}}, {"CLAHE": None}], "p": 0.5}}
    assert [transform.p for transform in built.transforms] == [0.2, 0.5]
    assert isinstance(built, A.OneOf)


def test_classes_of_the_users_own_are_named_with_their_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_transforms.py").write_text(
        "import albumentations as A\n"
        "class Paint(A.ImageOnlyTransform):\n"
        "    def __init__(self, value: int, p: float = 0.5):\n"
        "        super().__init__(p)\n"
        "        self.value = value\n"
        "    def apply(self, image, **_):\n"
        "        return image * 0 + self.value\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    paint = {"my_transforms.Paint": {"value": 7, "p": 1}}
    flip = {"albumentations.HorizontalFlip": {"p": 1}}
    image, objects = run(
        [{"Sequential": {"transforms": [paint, flip], "p": 1}}], image_with_rectangle(), [[22, 10, 52, 30, 0]]
    )
    assert (image == 7).all()
    assert objects.tolist() == [[12, 10, 42, 30, 0]]


def test_a_rare_change_of_the_size_is_found_at_the_start() -> None:
    """The first of eight trials does not show it."""
    with pytest.raises(ValueError, match="keep size and type"):
        build_transforms([{"RandomCrop": {"height": 32, "width": 32, "p": 0.3}}], [SIZE])


def test_height_and_width_must_not_be_swapped() -> None:
    with pytest.raises(ValueError, match=r"\(64, 96, 3\) uint8 into \(96, 64, 3\)"):
        build_transforms([{"Transpose": {"p": 1}}], [(64, 96)])


def test_a_change_of_the_size_that_the_trials_missed_stops_training() -> None:
    pipeline = TrainPipeline(SIZE, Augmentation(mosaic=0), [{"Blur": {"p": 1}}])
    pipeline.user_transforms = compose([A.RandomCrop(32, 32, p=1)])
    with pytest.raises(ValueError, match=r"into \(32, 32, 3\) uint8; keep size and type"):
        pipeline([[MosaicTile(image_with_rectangle(), np.zeros((0, 5), np.float32))]], np.random.default_rng(0))
