"""Tiles cover the image, overlap enough, and wrong values are refused with the remedy."""

from typing import Any

import numpy as np
import pytest

from detector.batch import Tile
from detector.imaging.tiles import as_tiling, cut


@pytest.mark.parametrize("image_size", [(640, 640), (641, 2000), (100, 1500), (1279, 1281)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.9])
def test_every_short_object_is_whole_in_a_tile(image_size: tuple[int, int], overlap: float) -> None:
    tiles = as_tiling((320, 640), overlap).tiles(image_size)
    covered = np.zeros(image_size, dtype=bool)
    for tile in tiles:
        part = cut(covered, tile)
        assert part.shape == (min(320, image_size[0]), min(640, image_size[1]))
        part[:] = True
    assert covered.all()
    columns = sorted({tile.x for tile in tiles})
    steps = np.diff(columns)
    assert (steps <= 640 * (1 - overlap) + 1).all()  # each stretch of the overlap's length lies in one tile
    assert np.ptp(steps) <= 1 if len(steps) else True


def test_the_whole_image_is_added_unless_it_is_one_tile() -> None:
    tiling = as_tiling(64, 0.25)
    assert tiling.parts((64, 50)) == [Tile(0, 0, 50, 64, 64, 50)]
    *tiles, whole = tiling.parts((64, 100))
    assert [(tile.x, tile.is_whole) for tile in tiles] == [(0, False), (36, False)]
    assert whole == Tile(0, 0, 100, 64, 64, 100, 16.0)
    assert whole.is_whole


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (0, 0.2, "tile is 0; expected one side, or height and width"),
        (-640, 0.2, "tile is .*expected one side"),
        (640.0, 0.2, "tile is .*expected one side"),
        (16, 0.2, "tile is 16; expected 32 pixels or more; the input size"),
        ((640, 8), 0.2, "expected 32 pixels or more"),
        (640, 1.0, r"overlap is 1.0; expected a share of the tile, a number from 0 to 0.9; 0.2 is usual.*128 pixels"),
        (640, -0.1, "overlap is -0.1; expected a share of the tile, a number from 0 to 0.9"),
        (640, 20, "overlap is 20; expected a share of the tile, a number from 0 to 0.9"),
        (640, "0.2", "overlap is '0.2'"),
    ],
)
def test_wrong_values_are_refused(tile: Any, overlap: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_tiling(tile, overlap)
