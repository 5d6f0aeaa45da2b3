"""Fractals: the same every time, of systems that fill their images, varied as in the paper."""

import hashlib

import numpy as np
import pytest

from benchmarks.pretraining import fractals
from benchmarks.pretraining.fractals import Fractals, System, draw_fractal, find_system, map_table, play, point_mask, scaled

TRIANGLE = System(np.stack([np.eye(2, dtype=np.float32) / 2] * 3), np.float32([(0, 0), (1, 0), (0.5, 1)]))


def test_an_image_depends_only_on_its_arguments() -> None:
    first = draw_fractal(0, 3, "train", 5, 32)
    find_system.cache_clear()
    np.random.seed(7)  # noqa: NPY002  the global state must not matter
    draw_fractal(0, 4, "train", 5, 32)
    np.testing.assert_array_equal(draw_fractal(0, 3, "train", 5, 32), first)
    others = [(0, 3, "train", 5), (1, 3, "train", 5), (0, 4, "train", 5), (0, 3, "val", 5), (0, 3, "train", 6)]
    assert len({hashlib.sha256(draw_fractal(*other, 32).tobytes()).hexdigest() for other in others}) == len(others)


def test_the_systems_of_classes_contract_and_fill_an_image() -> None:
    systems = [find_system(0, label) for label in range(6)]
    assert {2 <= len(system.shifts) <= 8 for system in systems} == {True}
    for system in systems:
        assert (np.linalg.norm(system.matrices, ord=2, axis=(1, 2)) < 1).all()
        assert fractals.filling_rate(system, np.random.default_rng(1)) > 0.9 * fractals.FILLING_RATE


def test_the_search_goes_on_until_a_system_fills_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter((0.1, 0.19, 0.2))
    monkeypatch.setattr(fractals, "filling_rate", lambda system, rng: next(rates))
    find_system.cache_clear()
    find_system(0, 0)
    find_system.cache_clear()
    assert list(rates) == []


def test_the_chaos_game_stays_on_the_attractor() -> None:
    points = play(TRIANGLE, np.random.default_rng(0))  # x + y / 2 <= 2: a Sierpinski triangle with these three corners
    assert points.shape == (2048 * 12, 2)
    corners = np.array([(0, 0), (2, 0), (1, 2)])
    assert (points.min(axis=0) > -0.01).all()
    assert (points.max(axis=0) < 2.01).all()
    for corner in corners:
        assert np.abs(points - corner).max(axis=1).min() < 0.05
    hole = np.abs(points - (1, 2 / 3)).max(axis=1)  # the open triangle in the middle
    assert hole.min() > 0.1


def test_maps_are_chosen_by_their_area() -> None:
    sides = np.array([1, 3, 0.001])  # areas 1, 9 and almost 0, of 253 entries, and one more for each
    table = map_table(np.eye(2)[None] * sides[:, None, None])
    assert np.bincount(table).tolist() == [26, 229, 1]


def test_one_kind_of_parameter_is_scaled() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(400):
        varied = scaled(TRIANGLE, rng)
        before = np.concatenate([TRIANGLE.matrices.reshape(3, 4), TRIANGLE.shifts], axis=1)
        after = np.concatenate([varied.matrices.reshape(3, 4), varied.shifts], axis=1)
        changed = np.flatnonzero((before != after).any(axis=0))
        assert len(changed) <= 1
        seen |= {(int(n), round(float(after[:, n].sum() / before[:, n].sum()), 3)) for n in changed}
    assert seen == {(n, scale) for n in (0, 3, 4, 5) for scale in (0.8, 0.9, 1.1, 1.2)}  # parameters 1 and 2 are 0 here


def test_points_fill_the_image_and_outliers_are_left_out() -> None:
    points = np.concatenate([np.mgrid[0:50, 0:50].reshape(2, -1).T, [(1e6, 1e6)]]).astype(np.float32)
    mask = point_mask(points, 50)
    assert mask.sum() > 0.98 * 50**2


def test_a_data_set_is_made_on_the_fly_in_rgb() -> None:
    images = Fractals(num_classes=2, num_per_class=3, seed=1, split="val", side=32)
    assert len(images) == 6
    assert [images[n][1] for n in range(6)] == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(images[4][0], draw_fractal(1, 1, "val", 1, 32)[:, :, ::-1])
    with pytest.raises(IndexError):
        images[6]
