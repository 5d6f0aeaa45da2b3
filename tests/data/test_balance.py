"""Repeat-factor sampling: factors by hand, and an order that is a function of seed, epoch and index alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import CocoDataModule
from data.annotations import Annotations
from data.balance import repeat_factors
from data.sampler import EpochOrder, EpochSampler
from tests.data.test_datamodule import fake_trainer, fingerprint


def annotations(*classes: list[int], crowd: bool = False) -> Annotations:
    """Return a split whose images have objects of these classes; with ``crowd``, the last object is a crowd."""
    count = sum(map(len, classes))
    crowds = np.zeros(count, bool)
    crowds[-1] = crowd
    return Annotations(
        "train", Path(), np.arange(len(classes)), np.ones((len(classes), 2)), np.array([b""] * len(classes)),
        np.cumsum([0, *map(len, classes)]), np.arange(count), np.ones((count, 4)), np.ones(count), crowds,
        np.array([label for row in classes for label in row]), [1, 2, 3], ["often", "rare", "unused"],
    )  # fmt: skip


def test_factors_by_hand(caplog: pytest.LogCaptureFixture) -> None:
    """The class 0 is in 3 of 4 images; the class 1 in 1 of 4, so its factor is sqrt(0.5 / 0.25)."""
    data = annotations([0, 0], [0, 1, 1], [0], [])
    with pytest.warns(UserWarning, match="repeat_threshold: 1 class is in no training image, .* repeated for it: unused"):
        repeat_factors(data, 0.5)
    assert repeat_factors(data, 0.5) == pytest.approx([1, 2**0.5, 1, 1])
    assert "data.repeat_threshold 0.5: an epoch has 5 samples of 4 images; repeated: rare (1 image) x 1.41" in caplog.text
    assert repeat_factors(data, 1.0) == pytest.approx([(4 / 3) ** 0.5, 2, (4 / 3) ** 0.5, 1])
    assert repeat_factors(annotations([0], [0], [0], [1], crowd=True), 0.5).tolist() == [1] * 4
    assert "every class is in more of the images: nothing is repeated" in caplog.text
    with pytest.raises(
        ValueError, match=r"data\.repeat_threshold is 0; leave it out, or set it to null, to repeat no image"
    ):
        repeat_factors(data, 0)
    for wrong in (-0.1, 1.5, "high"):
        with pytest.raises(ValueError, match=r"data\.repeat_threshold is .*; expected a number from 1e-06 to 1"):
            repeat_factors(data, wrong)


def test_counts_of_an_epoch_are_the_factors_rounded_up_or_down() -> None:
    factors = np.array([1, 2.3, 1, 3.6, 1, 1.5])
    order = EpochOrder(6, seed=5, pool=4, repeats=factors)
    counts = np.array([np.bincount(order.images(epoch), minlength=6) for epoch in range(400)])
    assert order.length == 11
    assert (counts.sum(axis=1) == 11).all()
    assert (counts >= np.floor(factors)).all()
    assert (counts <= np.ceil(factors * 11 / factors.sum())).all()
    assert counts.mean(axis=0) == pytest.approx(factors * 11 / factors.sum(), abs=0.1)
    again = EpochOrder(6, seed=5, pool=4, repeats=factors)
    assert np.array_equal(again.images(7), order.images(7))
    assert len({tuple(order.images(epoch)) for epoch in range(20)}) > 1


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_the_samples_of_an_epoch(processes: int) -> None:
    factors = np.array([1, 2.3, 1, 3.6, 1, 2.1])
    samplers = [EpochSampler(EpochOrder(6, 5, 0, factors), 1, [(64, 64)], processes, rank) for rank in range(processes)]
    parts = [[key.index for key in sampler] for sampler in samplers]
    joined = [index for together in zip(*parts) for index in together]
    assert joined[:11] == EpochOrder(6, 5, 0, factors).order(0).tolist()


def test_samples_do_not_depend_on_workers(tiny_arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeats of an image are augmented in different ways; without a threshold nothing changes."""
    epochs = {}
    for workers, threshold in ((0, 1.0), (2, 1.0), (0, None)):
        data = CocoDataModule(**tiny_arguments | {"num_workers": workers}, repeat_threshold=threshold)
        data.trainer = fake_trainer(world_size=1, max_epochs=20)
        loader = data.train_dataloader()
        assert len(loader) == (3 if threshold else 2)
        epochs[workers, threshold] = [row for batch in loader for row in fingerprint(batch)]
    assert epochs[0, 1.0] == epochs[2, 1.0]
    assert len(set(epochs[0, 1.0])) == len(epochs[0, 1.0]) > len(epochs[0, None]) == 8
