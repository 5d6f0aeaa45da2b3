"""Random numbers: a sample depends on its image, epoch and seed alone, not on the process or on what ran before."""

import random
import re
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from data import Augmentation, CocoDataModule
from data.dataset import Sample
from data.mosaic import MosaicTile
from data.sampler import SampleKey
from data.transforms import TrainPipeline
from tests.data.own_transforms import SOURCES

STILL = Augmentation(mosaic=0, scale=0, translate=0, fliplr=0, hsv=(0, 0, 0))
SIZE = (64, 64)


def drawn(sample: Sample) -> list[int]:
    return sample.image[0, : len(SOURCES), 0].tolist()


def test_every_generator_of_a_transform_depends_on_the_sample_alone(
    tiny_arguments: dict[str, Any], own_transforms: list
) -> None:
    arguments = tiny_arguments | {"augment": STILL, "transforms": own_transforms}
    keys = [SampleKey(index, epoch, SIZE) for epoch in range(3) for index in range(8)]
    runs = []
    for start, order in ((0, keys), (1, keys[::-1])):  # two processes with other global generators and other samples before
        for seed_generator in (random.seed, np.random.seed, torch.manual_seed, cv2.setRNGSeed):
            seed_generator(start)
        dataset = CocoDataModule(**arguments).train_dataloader().dataset
        numbers = {key: drawn(dataset[key]) for key in order}
        runs.append([numbers[key] for key in keys])
    assert runs[0] == runs[1]
    other_seed = CocoDataModule(**arguments, seed=1).train_dataloader().dataset
    for source, values, others in zip(SOURCES, zip(*runs[0]), zip(*(drawn(other_seed[key]) for key in keys)), strict=True):
        assert len(set(values)) > 15, f"{source} gives few different numbers"
        assert sum(map(int.__eq__, values, others)) < 5, f"{source} does not depend on the seed"


def test_the_global_generators_stay_as_they_are(tiny_arguments: dict[str, Any], own_transforms: list) -> None:
    dataset = CocoDataModule(**tiny_arguments | {"augment": STILL, "transforms": own_transforms}).train_dataloader().dataset

    def states() -> list[Any]:
        return [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]  # noqa: NPY002

    before = states()
    dataset[SampleKey(0, 0, SIZE)]
    assert states() == before


NOISE = [
    {"GaussNoise": {"std_range": [0.1, 0.4], "p": 0.9}},
    {"OneOf": {"transforms": [{"HorizontalFlip": {"p": 1}}, {"RandomBrightnessContrast": {"p": 1}}], "p": 0.7}},
    {
        "SomeOf": {
            "transforms": [{"CoarseDropout": {"p": 1}}, {"ISONoise": {"p": 1}}, {"Affine": {"p": 1}}],
            "n": 2,
            "p": 0.9,
        }
    },
    {"Compose": {"transforms": [{"Sequential": {"transforms": [{"RandomGamma": {"p": 0.9}}], "p": 0.9}}], "p": 1}},
    {"RandomOrder": {"transforms": [{"RandomShadow": {"p": 1}}, {"PixelDropout": {"p": 1}}], "n": 2, "p": 1}},
]


@pytest.mark.parametrize("entry", NOISE, ids=lambda entry: next(iter(entry)))
def test_transforms_of_albumentations_draw_from_the_generator_they_get(entry: dict[str, Any]) -> None:
    """Also inside of containers, and whatever the transforms drew before."""
    pipelines = [TrainPipeline(SIZE, STILL, [entry]) for _ in range(2)]
    tile = MosaicTile(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8), np.array([[9, 9, 40, 44, 0]], "f"))
    images: list[list[bytes]] = [[], []]
    for pipeline, seeds, sums in zip(pipelines, (range(8), range(7, -1, -1)), images):
        for seed in seeds:
            sums.append(pipeline([[tile]], np.random.default_rng(seed))[0].tobytes())
    assert images[0] == images[1][::-1]
    assert len(set(images[0])) > 4


def plan(arguments: dict[str, Any], seed: int) -> dict[str, list[Any]]:
    """Return what is drawn for the images of two epochs, by name: order, partners, input sizes, and pixels."""
    augment = Augmentation(mosaic=0.5, mixup=0.5, multi_scale=0.5, pool=4)
    data = CocoDataModule(**arguments | {"image_size": 128, "batch_size": 2, "seed": seed, "augment": augment})
    loader = data.train_dataloader()
    keys = [key for _ in range(2) for key in loader.sampler]
    by_image = sorted(SampleKey(key.index, key.epoch, (128, 128)) for key in keys)
    return {
        "order": [key.index for key in keys],
        "partners": [loader.dataset.dataset.describe(key) for key in by_image],
        "sizes": [key.size for key in keys[::2]],
        "pixels": [loader.dataset[key].image.sum() for key in by_image],
    }


def test_the_seed_reaches_order_partners_sizes_and_pixels(tiny_arguments: dict[str, Any]) -> None:
    first, again, other = (plan(tiny_arguments, seed) for seed in (0, 0, 1))
    assert first == again
    for name, values in first.items():
        same = [a == b for a, b in zip(values, other[name], strict=True)]
        assert sum(same) < 0.75 * len(same), f"another seed gives the same {name}"


def test_the_random_numbers_stay_those_of_earlier_versions(tiny_arguments: dict[str, Any]) -> None:
    """Order, partners and input sizes of the first epoch with the seed 0: a run can be repeated with a later version."""
    augment = Augmentation(mosaic=0.5, mixup=0.5, multi_scale=0.5, pool=4)
    data = CocoDataModule(**tiny_arguments | {"image_size": 128, "batch_size": 2, "augment": augment})
    loader = data.train_dataloader()
    keys = list(loader.sampler)
    assert [key.index for key in keys] == [2, 4, 5, 0, 3, 6, 1, 7]
    assert [key.size[0] for key in keys[::2]] == [128, 192, 192, 128]
    mixed = ["".join(re.findall(r"image_(\d)\.png", loader.dataset.dataset.describe(key))) for key in keys]
    assert mixed == ["2333", "4666", "5717", "0055", "3446", "6", "15075", "75171"]
