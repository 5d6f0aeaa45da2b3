"""Settings and transforms of labeled images."""

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from data.classification.augmentation import MEAN, STD, ClassAugmentation, EvalTransform, TrainTransform
from data.user_transforms import seeded_globals

PLAIN = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0, "auto_augment": None, "color_jitter": 0, "erasing": 0}
NOISE = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)


def transform(size: tuple[int, int] = (32, 24), **settings: Any) -> TrainTransform:
    return TrainTransform(size, ClassAugmentation(**PLAIN | settings))


def normalized(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (pixels / 255 - mean) / std


@pytest.mark.parametrize("erasing", [0.0, 1.0])
def test_training_images_are_those_of_timm(erasing: float) -> None:
    """Noise of erased areas is cut off at black and white; elsewhere only rounding differs."""
    ours = TrainTransform((32, 24), ClassAugmentation(erasing=erasing))
    settings = {"auto_augment": "rand-m9-mstd0.5-inc1", "interpolation": "random", "re_prob": erasing, "re_mode": "pixel"}
    of_timm = create_transform((3, 32, 24), is_training=True, **settings)
    for seed in range(5):
        with seeded_globals(seed):
            pixels = ours(NOISE)
        with seeded_globals(seed):
            expected = of_timm(Image.fromarray(NOISE))
        assert (pixels.shape, pixels.dtype) == ((3, 32, 24), torch.uint8)
        limits = normalized(torch.tensor([0.0, 255.0]).expand(3, 1, 2)).unbind(-1)
        expected = torch.maximum(torch.minimum(expected, limits[1][..., None]), limits[0][..., None])
        torch.testing.assert_close(normalized(pixels), expected, atol=0.51 / 255 / min(STD), rtol=0)


def test_evaluation_images_are_the_center_after_resizing() -> None:
    """At 28 of 32 pixels (0.875), an image with a shorter side of 32 is not resized."""
    image = NOISE[:32, :40]
    np.testing.assert_array_equal(EvalTransform((28, 28), 0.875)(image).permute(1, 2, 0), image[2:30, 6:34])
    np.testing.assert_array_equal(EvalTransform((32, 32), 1.0)(image).permute(1, 2, 0), image[:, 4:36])
    expected = create_transform((3, 28, 20), interpolation="bicubic", crop_pct=0.875)(Image.fromarray(NOISE))
    torch.testing.assert_close(normalized(EvalTransform((28, 20), 0.875)(NOISE)), expected)


FLIPS = [({}, NOISE[:40]), ({"flip": 1}, NOISE[:40, ::-1]), ({"vertical_flip": 1}, NOISE[:40][::-1])]
SETTINGS: list[dict[str, Any]] = [
    {"scale": (0.2, 0.3)},
    {"ratio": (0.3, 0.4)},
    {"auto_augment": "rand-m9-n3"},
    {"auto_augment": "augmix-m3-w2"},
    {"auto_augment": "original-mstd0.5"},
    {"auto_augment": "3a"},
    {"color_jitter": 0.5},
    {"interpolation": "nearest"},
    {"erasing": 1},
]


@pytest.mark.parametrize(("settings", "expected"), FLIPS)
def test_flips_and_plain_crops(settings: dict[str, Any], expected: np.ndarray) -> None:
    with seeded_globals(0):
        pixels = transform((40, 40), **settings)(NOISE[:40])
    np.testing.assert_array_equal(pixels.permute(1, 2, 0), expected)


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_setting_reaches_the_image(settings: dict[str, Any]) -> None:
    images = []
    for one in (transform(), transform(**settings)):
        with seeded_globals(3):
            images.append(one(NOISE))
    assert not torch.equal(*images)


def test_every_field_has_a_case() -> None:
    mixing = {"mixup", "cutmix", "mix_prob", "switch_prob"}  # in test_mixing.py
    tested = {name for settings in (*SETTINGS, *(settings for settings, _ in FLIPS)) for name in settings}
    assert tested | mixing == {field.name for field in dataclasses.fields(ClassAugmentation)}


def test_posterizing_keeps_a_bit() -> None:
    """At full strength timm asks for none, which Pillow refuses."""
    policy = transform((16, 16), auto_augment="rand-m10-inc1")
    posterize = next(op for op in policy.transform.transforms[1].ops if op.name == "PosterizeIncreasing")
    posterize.prob = 1.0
    assert set(np.unique(posterize(Image.fromarray(NOISE)))) == {0, 128}
    original = transform((16, 16), auto_augment="original").transform.transforms[1]
    assert all(op.aug_fn.__module__.startswith("data.") for row in original.policy for op in row if "Poster" in op.name)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 60), (60, 1), (3, 4)])
def test_tiny_images_are_enlarged(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 77, np.uint8)
    none, null = (TrainTransform((16, 16), ClassAugmentation(auto_augment=policy)) for policy in ("none", None))
    assert str(none.transform) == str(null.transform)
    smallest_crops = TrainTransform((16, 16), ClassAugmentation(auto_augment=None, color_jitter=0, erasing=0))
    for seed in range(10):
        with seeded_globals(seed):
            assert torch.unique(smallest_crops(image)).tolist() == [77]
    assert torch.unique(EvalTransform((16, 16), 0.875)(image)).tolist() == [77]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": (0.5, 0.2)}, r"augment\.scale is \(0\.5, 0\.2\); expected the smallest and the largest value"),
        ({"scale": (0.0, 1.0)}, r"augment\.scale is"),
        ({"scale": 0.5}, r"augment\.scale is 0\.5"),
        ({"ratio": (1.0, float("nan"))}, r"augment\.ratio is"),
        ({"flip": 1.5}, r"augment\.flip is 1\.5; expected a number from 0 to 1"),
        ({"mixup": -0.1}, r"augment\.mixup is -0\.1"),
        ({"cutmix": float("inf")}, r"augment\.cutmix is inf"),
        ({"interpolation": "cubic"}, r"augment\.interpolation is 'cubic'; expected one of random, bilinear"),
        ({"auto_augment": "rand-x9"}, r"augment\.auto_augment is 'rand-x9'; expected timm's name of a policy"),
        ({"auto_augment": "rand-m9-tothers"}, r"augment\.auto_augment is"),  # timm would ignore it
        ({"auto_augment": "rand-m9-mstd"}, r"augment\.auto_augment is"),
        ({"auto_augment": "randaugment"}, r"augment\.auto_augment is"),
        ({"auto_augment": ""}, r"augment\.auto_augment is ''.* null for none"),
        ({"auto_augment": True}, r"augment\.auto_augment is True"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassAugmentation(**settings)


def test_a_policy_that_timm_refuses_is_named() -> None:
    with pytest.raises(ValueError, match=r"timm refuses data\.augment: .*'auto_augment': 'rand-tweights-n50'"):
        transform(auto_augment="rand-tweights-n50")  # 50 of its 11 operations, each once


def test_only_the_global_generators_decide() -> None:
    random.seed(5)
    one = TrainTransform((16, 16), ClassAugmentation(erasing=1))
    with seeded_globals(1):
        first = one(NOISE)
    random.seed(6)
    with seeded_globals(1):
        assert torch.equal(first, one(NOISE))
