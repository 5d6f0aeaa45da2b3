"""Mixup and cutmix of two images."""

import numpy as np
import pytest
import torch

from data.classification.augmentation import ClassAugmentation
from data.classification.mixing import Mix, draw_mix, mix_images
from data.user_transforms import seeded_globals

WHITE, BLACK = torch.full((3, 20, 30), 255, dtype=torch.uint8), torch.zeros((3, 20, 30), dtype=torch.uint8)


def test_mixup_blends_by_the_share() -> None:
    mixed, share = mix_images(WHITE, BLACK, Mix(0, 0.3, is_cutmix=False))
    assert share == 0.3
    assert torch.unique(mixed).tolist() == [76]  # 0.3 x 255 = 76.5, rounded to the even number
    assert mixed.dtype == torch.uint8


@pytest.mark.parametrize("seed", range(4))
def test_the_share_of_cutmix_is_that_of_the_pixels(seed: int) -> None:
    """Also if the rectangle sticks out of the image, so that it is smaller than drawn."""
    with seeded_globals(seed):
        mixed, share = mix_images(WHITE, BLACK, Mix(0, 0.6, is_cutmix=True))
    assert share == pytest.approx((mixed == 255).double().mean().item())
    assert share >= 0.6
    assert (WHITE == 255).all()
    rows, columns = torch.nonzero(mixed[0] == 0).unbind(1)
    area = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
    assert area == len(rows)  # a rectangle


def test_settings_decide_how_images_are_mixed() -> None:
    def draws(**settings: float) -> list[Mix | None]:
        return [draw_mix(ClassAugmentation(**settings), 50, np.random.default_rng(n)) for n in range(200)]

    assert set(draws()) == {None}
    assert {mix.is_cutmix for mix in draws(mixup=0.2)} == {False}
    assert {mix.is_cutmix for mix in draws(cutmix=1.0)} == {True}
    both = draws(mixup=0.8, cutmix=1.0, switch_prob=0.25, mix_prob=0.5)
    assert 70 <= sum(mix is None for mix in both) <= 130
    assert 12 <= sum(mix.is_cutmix for mix in both if mix) <= 38
    assert len({mix.partner for mix in draws(mixup=0.2)} & set(range(50))) > 40
    shares = np.array([mix.share for mix in draws(mixup=0.2)])
    assert shares.std() == pytest.approx(0.5 / np.sqrt(1.4), abs=0.04)  # of Beta(0.2, 0.2)
