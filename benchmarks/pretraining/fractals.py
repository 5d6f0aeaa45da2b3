"""Images of fractals by iterated function systems, for pre-training without photographs (arXiv:2101.08515).

A class is a system: 2 to 8 random affine maps of the plane, taken if its points fill enough of an image. Its images differ
by one kind of parameter, scaled by 0.8 to 1.2, by the 3x3 patch that stands for a point, and by flips, as in the paper. The
colors are ours: one for the points and one for the background (images of the paper are gray on black). Every image is a
function of (seed, label, split, index), drawn anew each time it is asked for.
"""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

SPLITS = ("train", "val")
NUM_MAPS = (2, 8)  # least, most
FILLING_RATE = 0.2  # least share of pixels that the points of a class touch
SCALES = (0.8, 0.9, 1.1, 1.2)  # of one kind of parameter
SIDE = 96  # of an image, in px
FINE = 2  # points and patches are set on a grid this many times finer, as if the image were larger, and then averaged
PARTICLES, UNSEEN_STEPS, STEPS = 2048, 12, 12  # points that move together; PARTICLES * STEPS of their positions are drawn
TRIMMED = 0.005  # share of the points beyond each edge of the image: far outliers must not shrink the rest
MIN_CONTRAST = 80.0  # between the two colors, of 0..441
SYSTEM_STREAM, IMAGE_STREAM = 0, 1  # set the random streams of systems and images apart


class System(NamedTuple):
    """An iterated function system: map n takes the point x to matrices[n] @ x + shifts[n]."""

    matrices: np.ndarray  # (N, 2, 2) float32
    shifts: np.ndarray  # (N, 2) float32


@lru_cache(maxsize=4096)
def find_system(seed: int, label: int) -> System:
    """Return the system of a class: the first random one whose points fill FILLING_RATE of an image."""
    rng = np.random.default_rng((SYSTEM_STREAM, seed, label))
    while True:
        system = random_system(rng)
        if filling_rate(system, rng) >= FILLING_RATE:
            return system


def random_system(rng: Generator) -> System:
    """Draw a system with parameters in -1..1. Maps that do not contract are drawn again: the points stay together."""
    number = int(rng.integers(NUM_MAPS[0], NUM_MAPS[1] + 1))
    matrices = np.empty((0, 2, 2))
    while len(matrices) < number:
        drawn = rng.uniform(-1, 1, (4 * number, 2, 2))
        matrices = np.concatenate([matrices, drawn[np.linalg.norm(drawn, ord=2, axis=(1, 2)) < 1]])
    return System(matrices[:number].astype(np.float32), rng.uniform(-1, 1, (number, 2)).astype(np.float32))


def filling_rate(system: System, rng: Generator) -> float:
    """Return the share of the pixels of a fine image that points of the system touch."""
    side = SIDE * FINE
    return np.count_nonzero(point_mask(play(system, rng), side)) / side**2


def scaled(system: System, rng: Generator) -> System:
    """Return the system with one of the six parameters of all maps scaled, or as it is: 25 variants, equally frequent."""
    variant = int(rng.integers(1 + 6 * len(SCALES)))
    if variant == 0:
        return system
    parameter, scale = divmod(variant - 1, len(SCALES))
    values = np.concatenate([system.matrices.reshape(-1, 4), system.shifts], axis=1)
    values[:, parameter] *= SCALES[scale]
    return System(values[:, :4].reshape(-1, 2, 2), values[:, 4:])


def play(system: System, rng: Generator) -> np.ndarray:
    """Play the chaos game with many points at once: return positions (PARTICLES * STEPS, 2) float32.

    A map is chosen with a probability proportional to the area that it keeps, as in the paper, in steps of 1 / 256.
    """
    table = map_table(system.matrices)
    a, b, c, d = system.matrices.reshape(-1, 4).T
    e, f = system.shifts.T
    choices = table[rng.integers(0, 256, (UNSEEN_STEPS + STEPS, PARTICLES), dtype=np.uint8)]
    x, y = rng.uniform(-1, 1, (2, PARTICLES)).astype(np.float32)
    seen = np.empty((STEPS, PARTICLES, 2), np.float32)
    for step, n in enumerate(choices):
        x, y = a[n] * x + b[n] * y + e[n], c[n] * x + d[n] * y + f[n]
        if step >= UNSEEN_STEPS:
            seen[step - UNSEEN_STEPS] = np.stack([x, y], axis=1)
    return seen.reshape(-1, 2)


def map_table(matrices: np.ndarray) -> np.ndarray:
    """Return a table (256,) of the numbers of the maps: a map stands in it as often as its area asks for, at least once."""
    areas = np.abs(np.linalg.det(matrices.astype(np.float64)))
    ends = np.round(np.cumsum(areas / areas.sum()) * (256 - len(areas))).astype(int) + np.arange(1, len(areas) + 1)
    return np.repeat(np.arange(len(areas)), np.diff(ends, prepend=0))


def point_mask(points: np.ndarray, side: int) -> np.ndarray:
    """Return an image (side, side) uint8: 1 at every pixel that has a point (N, 2). The points fill the image."""
    low, high = np.quantile(points, (TRIMMED, 1 - TRIMMED), axis=0)
    pixels = ((points - low) * ((side - 1) / np.maximum(high - low, 1e-6))).round().astype(np.int64)
    pixels = pixels[((pixels >= 0) & (pixels < side)).all(axis=1)]
    mask = np.zeros((side, side), np.uint8)
    mask[pixels[:, 1], pixels[:, 0]] = 1
    return mask


def draw_fractal(seed: int, label: int, split: str, index: int, side: int = SIDE) -> np.ndarray:
    """Draw one image (side, side, 3) uint8, BGR, of the class ``label``."""
    rng = np.random.default_rng((IMAGE_STREAM, seed, label, SPLITS.index(split), index))
    points = play(scaled(find_system(seed, label), rng), rng)
    patch = random_patch(rng)
    mask = cv2.dilate(point_mask(points, side * FINE), patch)
    if rng.random() < 0.5:
        mask = mask[:, ::-1]
    if rng.random() < 0.5:
        mask = mask[::-1]
    share = cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)[..., None]
    background, color = random_colors(rng)
    return (background + share * (color - background)).round().astype(np.uint8)


def random_patch(rng: Generator) -> np.ndarray:
    """Draw the 3x3 patch (uint8, 0 or 1, not empty) that stands for each point."""
    number = int(rng.integers(1, 512))
    return np.array([number >> bit & 1 for bit in range(9)], np.uint8).reshape(3, 3)


def random_colors(rng: Generator) -> np.ndarray:
    """Draw the colors of the background and of the points: (2, 3) float32 in 0..255, at least MIN_CONTRAST apart."""
    while True:
        colors = rng.uniform(0, 255, (2, 3)).astype(np.float32)
        if np.linalg.norm(colors[0] - colors[1]) >= MIN_CONTRAST:
            return colors


class Fractals:
    """A map-style data set of fractals made on the fly: (image (side, side, 3) uint8 RGB, label), ordered by class."""

    def __init__(self, num_classes: int, num_per_class: int, seed: int = 0, split: str = "train", side: int = SIDE) -> None:
        self.num_classes, self.num_per_class = num_classes, num_per_class
        self.seed, self.split, self.side = seed, split, side

    def __len__(self) -> int:
        return self.num_classes * self.num_per_class

    def __getitem__(self, n: int) -> tuple[np.ndarray, int]:
        if not 0 <= n < len(self):
            raise IndexError(n)
        label, index = divmod(n, self.num_per_class)
        image = draw_fractal(self.seed, label, self.split, index, self.side)
        return np.ascontiguousarray(image[:, :, ::-1]), label
