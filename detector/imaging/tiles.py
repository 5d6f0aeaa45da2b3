"""Cut large images into overlapping tiles of one size, which a detector sees at their own resolution."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from detector.arguments import as_number, shown
from detector.batch import Size, Tile, as_size

SMALLEST_TILE = 32  # pixels a side
DEFAULT_OVERLAP = 0.2  # of a tile
MAX_OVERLAP = 0.9  # of a tile; with more there are over a hundred tiles where one would do
LEAST_SHARE_OF_WHOLE = 0.1  # of a tile's side: shorter objects are never taken from the whole image


class Tiling(NamedTuple):
    """The size of tiles, and how far neighbors overlap: what is not longer than the overlap is whole in one tile."""

    size: Size  # (height, width) in pixels of the image
    overlap: float  # at least this share of a tile's side

    def tiles(self, image_size: Size) -> list[Tile]:
        """Return the tiles of an image of ``image_size`` (height, width), row by row.

        They have one size and lie at even distances, the last ones at the edges. A tile is never larger than the image.
        """
        rows, columns = (_starts(*sides, self.overlap) for sides in zip(image_size, self.size, strict=True))
        height, width = (min(sides) for sides in zip(image_size, self.size, strict=True))
        return [Tile(x, y, width, height, *image_size) for y in rows for x in columns]

    def parts(self, image_size: Size) -> list[Tile]:
        """Return the ``tiles``, and behind them the whole image as one tile, for objects longer than the overlap."""
        tiles = self.tiles(image_size)
        if len(tiles) == 1:
            return tiles
        longer_than = max(self.overlap, LEAST_SHARE_OF_WHOLE) * min(self.size)
        return [*tiles, Tile(0, 0, image_size[1], image_size[0], *image_size, longer_than)]


def as_optional_tiling(tile: int | Sequence[int] | None, overlap: float | None, option: str = "") -> Tiling | None:
    """Return ``as_tiling``; None without tiles. Raises ValueError for an overlap without tiles; ``option`` is "--" or ""."""
    if tile is not None:
        try:
            return as_tiling(tile, overlap)
        except ValueError as error:
            raise ValueError(f"{option}{error}") from None
    if overlap is not None:
        size = f"{option}tile 640" if option else "tile=640"
        raise ValueError(
            f"{option}overlap is {shown(overlap)}, but there are no tiles; give their size, as {size}, or leave it out"
        )
    return None


def as_tiling(tile: int | Sequence[int], overlap: float | None = None) -> Tiling:
    """Return the tiling with tiles of ``tile`` pixels (a side, or height and width). Raises ValueError for wrong values.

    ``overlap`` None means DEFAULT_OVERLAP.
    """
    overlap = DEFAULT_OVERLAP if overlap is None else overlap
    size = as_size(tile, "tile")
    if min(size) < SMALLEST_TILE:
        raise ValueError(
            f"tile is {tile!r}; expected {SMALLEST_TILE} pixels or more; the input size of the training is usual"
        )
    try:
        as_number(overlap, "overlap", high=MAX_OVERLAP)
    except ValueError:
        raise ValueError(
            f"overlap is {shown(overlap)}; expected a share of the tile, a number from 0 to {MAX_OVERLAP}; 0.2 is usual, "
            f"and enough if no small object is longer than {round(0.2 * min(size))} pixels"
        ) from None
    return Tiling(size, float(overlap))


def cut(image: np.ndarray, tile: Tile) -> np.ndarray:
    """Return the part of ``image`` (H, W, 3) that is the ``tile``, as a view."""
    return image[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    """Return the first pixels of tiles of ``side`` pixels along ``length`` pixels."""
    if length <= side:
        return [0]
    number = math.ceil((length - side) / max(side * (1 - overlap), 1)) + 1
    return np.linspace(0, length - side, number).round().astype(int).tolist()
