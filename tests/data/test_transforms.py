"""Colors, flip, and the user's own albumentations."""

import colorsys
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest

from data.mosaic import Source
from data.transforms import Augmentation, HsvJitter, TrainPipeline, build_transforms

SIDES = {"min_height": 64, "min_width": 64}
SIZE = (64, 64)


def run(transforms: list[dict[str, Any]] | None, image: np.ndarray, boxes: list, seed: int = 0, **augment: Any) -> dict:
    settings = Augmentation(**{"mosaic": 0, "scale": 0, "translate": 0, "fliplr": 0, "hsv": (0, 0, 0)} | augment)
    sources = [[Source(image, np.array(boxes, np.float32).reshape(-1, 5))]]
    return dict(zip(("image", "bboxes"), TrainPipeline(SIZE, settings, transforms)(sources, np.random.default_rng(seed))))


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
        result = run([transform], image_with_rectangle(), [[22, 10, 52, 30, 0]], seed)
        weight = result["image"][:, :, 0].astype(float) - 114
        weight[weight < 3] = 0
        ys, xs = np.mgrid[:64, :64] + 0.5
        centroid = np.array([(weight * xs).sum(), (weight * ys).sum()]) / weight.sum()
        (box,) = np.asarray(result["bboxes"])
        np.testing.assert_allclose(centroid, (box[:2] + box[2:4]) / 2, atol=0.1)


def test_one_of_moves_the_boxes_and_images_without_objects_are_varied_too() -> None:
    flip = [{"OneOf": {"transforms": [{"HorizontalFlip": {"p": 1}}], "p": 1}}]
    image = image_with_rectangle()
    assert run(flip, image, [[22, 10, 52, 30, 0]])["bboxes"].tolist() == [[12, 10, 42, 30, 0]]
    np.testing.assert_array_equal(run(flip, image, [])["image"], image[:, ::-1])


def test_transforms_draw_independently() -> None:
    """With ``Compose.set_random_seed`` two flips of the same probability would always agree."""
    flips = [{"HorizontalFlip": {"p": 0.5}}, {"VerticalFlip": {"p": 0.5}}]
    image, outcomes = image_with_rectangle(), set()
    for seed in range(40):
        result = run(flips, image, [[22, 10, 52, 30, 0]], seed)
        outcomes.add(tuple(result["bboxes"][0][:2].tolist()))
    assert len(outcomes) == 4


def test_what_user_transforms_leave_of_a_box_is_filtered() -> None:
    crop = {"Sequential": {"transforms": [{"Crop": {"x_max": 23, "y_max": 64}}, {"PadIfNeeded": SIDES}], "p": 1}}
    assert len(run([crop], image_with_rectangle(), [[22, 10, 52, 30, 0]])["bboxes"]) == 0


def test_five_hundred_boxes_are_kept() -> None:
    corners = np.stack(np.meshgrid(np.arange(20) * 3, np.arange(25) * 2.5), -1).reshape(-1, 2)
    boxes = np.column_stack([corners, corners + 2.4, np.arange(500)])
    result = run(None, image_with_rectangle(), boxes.tolist())
    assert sorted(result["bboxes"][:, 4].astype(int).tolist()) == list(range(500))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"HorizontalFlipp": {}}], "no transform 'HorizontalFlipp'; did you mean HorizontalFlip"),
        ([{"Lambda": {}}], "no transform 'Lambda'"),
        ([{"HorizontalFlip": {"prob": 1}}], "HorizontalFlip has no argument 'prob'"),
        ([{"Blur": {"blur_limt": 3}}], "Blur has no argument 'blur_limt'; did you mean blur_limit"),
        ([{"OneOf": {"transforms": [{"Blurr": {}}]}}], "no transform 'Blurr'; did you mean Blur"),
        ([{"OneOf": {"transforms": [{"Blur": {}}], "n": 2}}], "OneOf has no argument 'n'"),
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
        build_transforms(entries, SIZE)


def test_building_changes_nothing_of_what_the_user_gave() -> None:
    entry = {"OneOf": {"transforms": [{"Blur": {"p": 0.2}}, {"CLAHE": None}], "p": 0.5}}
    (built,) = build_transforms([entry], SIZE)
    assert entry == {"OneOf": {"transforms": [{"Blur": {"p": 0.2}}, {"CLAHE": None}], "p": 0.5}}
    assert [transform.p for transform in built.transforms] == [0.2, 0.5]
    assert isinstance(built, A.OneOf)


def test_hsv_equals_a_slow_loop() -> None:
    jitter, drawn = HsvJitter((0.1, 0.7, 0.4)), np.array([0.07, 0.3, -0.2])
    colors = np.random.default_rng(0).integers(40, 220, (5, 5, 3), dtype=np.uint8)
    found = jitter.apply(colors, drawn=drawn)
    for before, after in zip(colors.reshape(-1, 3) / 255, found.reshape(-1, 3)):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        hue, saturation, value = (hue + drawn[0]) % 1, min(saturation * 1.3, 1), value * 0.8
        np.testing.assert_allclose(after, np.array(colorsys.hsv_to_rgb(hue, saturation, value)) * 255, atol=6)


def test_hsv_draws_within_its_gains_and_saturates() -> None:
    jitter = HsvJitter((0.015, 0.7, 0.4))
    jitter.set_random_seed(0)
    drawn = np.array([jitter.get_params()["drawn"] for _ in range(1000)])
    np.testing.assert_allclose(drawn.max(axis=0), (0.015, 0.7, 0.4), rtol=0.01)
    np.testing.assert_allclose(drawn.min(axis=0), (-0.015, -0.7, -0.4), rtol=0.01)
    white = np.full((2, 2, 3), 255, np.uint8)
    assert (jitter.apply(white, drawn=np.array([0, 0, 0.4])) == 255).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mosaic", 1.5),
        ("fliplr", -0.1),
        ("scale", 1.0),
        ("translate", -1),
        ("close_mosaic", -1),
        ("mixup", 2),
        ("pool", -1),
        ("pool", 3),
        ("multi_scale", 1),
        ("hsv", (0.1, 0.2)),
    ],
)
def test_augmentation_refuses_values_out_of_range(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"augment\.{field} is"):
        Augmentation(**{field: value})
