"""Draws images of shapes on a textured background: those of the embedded data set, and simpler ones.

Every image has its own random stream, seeded with (seed, split, index). So it does not depend on the order of drawing, on
the number of images, or on global state. All kinds of shape share the same paints and textures. Every class has a favorite
hue, which is only a hint: many of its shapes, and all decoys, have another hue. Images are BGR, as OpenCV writes them.
"""

import colorsys
import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

CLASSES = ("circle", "square", "triangle", "star", "cross", "ring")
DECOYS = ("bar", "ellipse", "half_disc", "crescent", "arrow", "blob")  # drawn like objects, but not annotated
SPLITS = ("train", "val")

EMPTY_SHARE = 0.04  # of images: no objects
SMALL_SIZES = (15.0, 31.0)  # longer side of the box of a small object, in px
MIN_VISIBLE, MIN_VISIBLE_LOOSE = 0.97, 0.3  # share of a shape that must be visible, else it is not drawn
SUPERSAMPLING = 4  # outlines are filled on a grid this many times finer: edges are smooth, boxes exact to 1/4 px

Range = tuple[float, float]  # least, most


@dataclass(frozen=True)
class Style:
    """How difficult the images of a set are. The defaults are those of the embedded set."""

    sides: tuple[int, int] = (192, 288)  # range of an image's height and width, in px
    count_weights: tuple[int, ...] = (3, 5, 6, 5, 3, 2, 1)  # relative frequency of images with 1, 2, ... objects
    small_share: float = 0.31  # of objects; turned and clipped ones included, a third is small for COCO (< 32 x 32 px)
    sizes: Range = (33.0, 110.0)  # longer side of the box of other objects, in px
    loose_share: float = 0.45  # of shapes: may be partly hidden, or cut off by the image border
    max_decoys: int = 2  # in an image
    favorite_share: float = 0.7  # of objects: painted in the favorite hue of their class


EMBEDDED = Style()
# Few large objects, wholly visible and in the hue of their class: a detector learns them in a minute on a CPU
SIMPLE = Style((128, 176), (3, 4, 3), small_share=0.0, sizes=(40.0, 88.0), loose_share=0.0, max_decoys=0, favorite_share=1.0)


class Stamp(NamedTuple):
    """A shape at its position in the image."""

    kind: str
    box: tuple[float, float, float, float]  # x1 y1 x2 y2 in px, of the part within the image, hidden or not
    coverage: np.ndarray  # (h, w) float32 in 0..1: share of each pixel that the shape covers, within the image
    x: int  # of coverage[0, 0] in the image
    y: int
    area: float  # in px, of the whole shape, with the part outside of the image

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns of the image that ``coverage`` belongs to."""
        height, width = self.coverage.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)


class Drawing(NamedTuple):
    """A finished image and its objects."""

    image: np.ndarray  # (H, W, 3) uint8, BGR
    boxes: np.ndarray  # (N, 4) float64, x1 y1 x2 y2 in px
    labels: list[int]  # N indices into CLASSES


def polar(radii: np.ndarray, spread: float = 2 * math.pi) -> np.ndarray:
    """Return a contour (N, 2) with points at the distances ``radii`` (N,) from the origin, at equal angles."""
    angles = np.arange(len(radii)) * (spread / len(radii))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]


def outline(kind: str, rng: Generator) -> list[np.ndarray]:
    """Return the contours (N, 2) of a shape around the origin, of random proportions. A second contour is a hole."""
    disc, half_disc = polar(np.ones(64)), polar(np.ones(33), spread=math.pi * 33 / 32)
    if kind == "circle":
        return [disc]
    if kind == "square":
        return [polar(np.ones(4))]
    if kind == "triangle":
        return [polar(np.ones(3))]
    if kind == "star":
        return [polar(np.tile([1, rng.uniform(0.38, 0.48)], 5))]
    if kind == "cross":
        a = rng.uniform(0.26, 0.4)
        arm, quarter_turn = np.array([(a, a), (a, 1), (-a, 1)]), np.array([(0, 1), (-1, 0)])
        return [np.concatenate([arm @ np.linalg.matrix_power(quarter_turn, k) for k in range(4)])]
    if kind == "ring":
        return [disc, disc * rng.uniform(0.5, 0.7)]
    if kind == "bar":
        return [np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (1, rng.uniform(0.15, 0.4))]
    if kind == "ellipse":
        return [disc * (1, rng.uniform(0.3, 0.5))]
    if kind == "half_disc":
        return [half_disc]
    if kind == "crescent":
        return [np.concatenate([half_disc, half_disc[::-1] * (1, rng.uniform(0.35, 0.6))])]
    if kind == "arrow":
        a, b = rng.uniform(0.12, 0.22), rng.uniform(-0.1, 0.3)
        return [np.array([(-1, -a), (b, -a), (b, -0.6), (1, 0), (b, 0.6), (b, a), (-1, a)])]
    assert kind == "blob", kind
    phases = np.linspace(0, 2 * math.pi, 64, endpoint=False) + rng.uniform(0, 2 * math.pi, (3, 1))
    return [polar(1 + rng.uniform(0.12, 0.24, 3) @ np.cos(phases * [[2], [3], [5]]))]


def pose(contours: list[np.ndarray], size: float, rng: Generator) -> list[np.ndarray]:
    """Squeeze and turn the contours at random. The longer side of their box is then ``size`` px, its center the origin."""
    squeeze, angle = rng.uniform(0.85, 1), rng.uniform(0, 2 * math.pi)
    turn = np.array([(math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))])
    contours = [contour * (1, squeeze) @ turn for contour in contours]
    low, high = contours[0].min(axis=0), contours[0].max(axis=0)
    return [(contour - (low + high) / 2) * (size / (high - low).max()) for contour in contours]


def stamp(kind: str, contours: list[np.ndarray], height: int, width: int) -> Stamp:
    """Fill the contours, in px of an image of ``height`` x ``width``. Their center must lie within the image."""
    low = np.floor(contours[0].min(axis=0)).astype(int)
    high = np.ceil(contours[0].max(axis=0)).astype(int)
    fine = np.zeros((high - low)[::-1] * SUPERSAMPLING, dtype=np.uint8)
    # OpenCV counts from the center of the first pixel, we count from its corner.
    points = [np.round((contour - low) * SUPERSAMPLING - 0.5).astype(np.int32) for contour in contours]
    cv2.fillPoly(fine, points, 255)
    area = np.count_nonzero(fine) / SUPERSAMPLING**2

    x1, y1 = (int(value) for value in np.maximum(low, 0))
    x2, y2 = (int(value) for value in np.minimum(high, (width, height)))
    top, left = (y1 - low[1]) * SUPERSAMPLING, (x1 - low[0]) * SUPERSAMPLING
    fine = fine[top : top + (y2 - y1) * SUPERSAMPLING, left : left + (x2 - x1) * SUPERSAMPLING]
    coverage = cv2.resize(fine, (x2 - x1, y2 - y1), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    x, y, w, h = (value / SUPERSAMPLING for value in cv2.boundingRect(fine))
    return Stamp(kind, (x1 + x, y1 + y, x1 + x + w, y1 + y + h), coverage, x1, y1, area)


def random_size(rng: Generator, style: Style) -> float:
    """Draw the longer side of a shape's box, in px. Large sizes are spread evenly on a logarithmic scale."""
    if rng.random() < style.small_share:
        return rng.uniform(*SMALL_SIZES)
    return math.exp(rng.uniform(*np.log(style.sizes)))


def random_kinds(rng: Generator, style: Style) -> list[str]:
    """Draw the kinds of the objects and decoys of one image, in random order."""
    shares = np.array(style.count_weights) / sum(style.count_weights)
    num_objects = 0 if rng.random() < EMPTY_SHARE else 1 + rng.choice(len(shares), p=shares)
    kinds = [*rng.choice(CLASSES, num_objects), *rng.choice(DECOYS, rng.integers(0, style.max_decoys + 1))]
    return [str(kind) for kind in rng.permutation(kinds)]


def random_center(placed: list[Stamp], loose: bool, height: int, width: int, rng: Generator) -> np.ndarray:
    """Draw the center (x, y) of a shape: anywhere, but half of the loose shapes close to a shape placed before."""
    if loose and placed and rng.random() < 0.5:
        x1, y1, x2, y2 = placed[rng.integers(len(placed))].box
        return np.clip(rng.uniform((x1 - 8, y1 - 8), (x2 + 8, y2 + 8)), 0, (width, height))
    return rng.uniform((0, 0), (width, height))


def arrange(height: int, width: int, rng: Generator, style: Style = EMBEDDED) -> list[Stamp]:
    """Place the shapes of an image; return them from front to back.

    A shape is left out if enough of it is visible at none of 20 random positions.
    """
    free = np.ones((height, width), dtype=np.float32)  # share of each pixel that no shape covers yet
    placed: list[Stamp] = []
    for kind in random_kinds(rng, style):
        contours = pose(outline(kind, rng), random_size(rng, style), rng)
        loose = rng.random() < style.loose_share
        for _ in range(20):
            center = random_center(placed, loose, height, width, rng)
            shape = stamp(kind, [contour + center for contour in contours], height, width)
            visible = float((shape.coverage * free[shape.window]).sum()) / shape.area
            if visible >= (MIN_VISIBLE_LOOSE if loose else MIN_VISIBLE):
                free[shape.window] *= 1 - shape.coverage
                placed.append(shape)
                break
    return placed


def random_color(rng: Generator, saturation: Range, value: Range, hue: float | None = None) -> np.ndarray:
    """Draw a color (3,) float32 BGR of any hue, or of a hue close to ``hue`` in 0..1."""
    hue = rng.random() if hue is None else hue + rng.uniform(-0.05, 0.05)
    rgb = colorsys.hsv_to_rgb(hue % 1, rng.uniform(*saturation), rng.uniform(*value))
    return np.array(rgb[::-1], dtype=np.float32) * 255


def favorite_hue(kind: str, rng: Generator, style: Style) -> float | None:
    """Return the favorite hue of a class for a random ``favorite_share`` of objects, else None. Decoys have none."""
    if kind in CLASSES and rng.random() < style.favorite_share:
        return CLASSES.index(kind) / len(CLASSES)
    return None


def contrasting_color(behind: np.ndarray, hue: float | None, rng: Generator) -> np.ndarray:
    """Draw a color that stands out, sometimes barely, from the color ``behind`` (3,)."""
    min_distance = rng.uniform(75, 180)  # of 0..441
    saturation = (0.15, 0.95) if hue is None else (0.5, 0.95)
    colors = [random_color(rng, saturation, (0.3, 1.0), hue) for _ in range(8)]
    distances = [float(np.linalg.norm(color - behind)) for color in colors]
    return next((c for c, d in zip(colors, distances) if d >= min_distance), colors[int(np.argmax(distances))])


def smooth_noise(height: int, width: int, cell: float, rng: Generator) -> np.ndarray:
    """Return noise (H, W) float32, about 0..1, smooth over ``cell`` px."""
    grid = rng.random((math.ceil(height / cell) + 2, math.ceil(width / cell) + 2), dtype=np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def waves(height: int, width: int, wavelength: float, rng: Generator) -> np.ndarray:
    """Return parallel waves (H, W) float32, in -1..1, in a random direction."""
    angle = rng.uniform(0, 2 * math.pi)
    x = np.arange(width, dtype=np.float32) * np.float32(math.cos(angle) * 2 * math.pi / wavelength)
    y = np.arange(height, dtype=np.float32) * np.float32(math.sin(angle) * 2 * math.pi / wavelength)
    return np.sin(y[:, None] + x + np.float32(rng.uniform(0, 2 * math.pi)))


def pattern(height: int, width: int, rng: Generator) -> np.ndarray:
    """Return a random texture (H, W) float32, about 0..1."""
    kind = rng.choice(("clouds", "stripes", "checks", "grain", "slope"))
    if kind == "clouds":
        return smooth_noise(height, width, rng.uniform(8, 40), rng)
    if kind == "stripes":
        return np.clip(0.5 + 1.5 * waves(height, width, rng.uniform(8, 40), rng), 0, 1)
    if kind == "checks":
        wavelength = rng.uniform(16, 60)
        return np.clip(0.5 + 3 * waves(height, width, wavelength, rng) * waves(height, width, wavelength, rng), 0, 1)
    if kind == "grain":
        return smooth_noise(height, width, rng.uniform(2, 4), rng)
    return 0.5 + 0.5 * waves(height, width, 2.5 * (height + width), rng)


def paint_background(height: int, width: int, rng: Generator) -> np.ndarray:
    """Return a background (H, W, 3) uint8: two pale colors, mixed by large clouds and a finer texture."""
    first, second = (random_color(rng, (0.05, 0.5), (0.25, 1)) for _ in range(2))
    weight, reach = np.float32(rng.uniform(0.15, 0.5)), np.float32(rng.uniform(0.3, 1))
    mix = reach * ((1 - weight) * smooth_noise(height, width, 96, rng) + weight * pattern(height, width, rng))
    channels = [start + (end - start) * mix for start, end in zip(first, second)]
    return np.clip(cv2.merge(channels), 0, 255).astype(np.uint8)


def scribble(image: np.ndarray, rng: Generator) -> None:
    """Draw distractors onto the uint8 image in place: lines, and rows of strokes that look like writing."""
    height, width = image.shape[:2]

    def stroke(points: np.ndarray, color: np.ndarray, thickness: int) -> None:
        fixed_point = np.round(points * 16).astype(np.int32)  # 4 bits of fraction
        cv2.polylines(image, [fixed_point], False, color.tolist(), thickness, cv2.LINE_AA, 4)

    for _ in range(rng.integers(0, 4)):
        ends = rng.uniform((-20, -20), (width + 20, height + 20), (2, 2))
        stroke(ends, random_color(rng, (0, 0.6), (0, 1)), int(rng.integers(1, 4)))
    for _ in range(rng.integers(0, 4)):
        size, color = rng.uniform(7, 18), random_color(rng, (0, 0.6), (0, 1))
        start = rng.uniform((0, 0), (width * 0.8, height - size))
        for position in range(rng.integers(3, 12)):
            letter = rng.uniform((0, 0), (0.7 * size, size), (rng.integers(3, 6), 2))
            stroke(letter + start + np.array((position * size, 0)), color, 1 + int(size > 12))


def cast_shadows(image: np.ndarray, shapes: list[Stamp], rng: Generator) -> None:
    """Darken the float32 background in place: all shapes cast a shadow to the same side."""
    height, width = image.shape[:2]
    shadow = np.zeros((height, width), dtype=np.float32)
    for shape in shapes:
        np.maximum(shadow[shape.window], shape.coverage, out=shadow[shape.window])
    dx, dy = rng.uniform(-5, 5, 2)
    shifted = cv2.warpAffine(shadow, np.array([(1, 0, dx), (0, 1, dy)], np.float32), (width, height))
    light = 1 - np.float32(rng.uniform(0.25, 0.6)) * cv2.GaussianBlur(shifted, (0, 0), rng.uniform(1.5, 4))
    image *= cv2.merge([light] * 3)


def paint_shape(image: np.ndarray, shape: Stamp, rng: Generator, style: Style = EMBEDDED) -> None:
    """Paint the shape onto the float32 image in place: a color, often a texture, sometimes a darker rim."""
    under = image[shape.window]
    height, width = shape.coverage.shape
    shade = np.ones_like(shape.coverage)
    color = contrasting_color(under.mean(axis=(0, 1)), favorite_hue(shape.kind, rng, style), rng)
    if rng.random() < 0.6:
        shade -= np.float32(rng.uniform(0.1, 0.45)) * pattern(height, width, rng)
    if rng.random() < 0.3:
        radius = max(round(0.04 * math.sqrt(shape.area)), 1)
        inner = cv2.erode(shape.coverage, np.ones((2 * radius + 1, 2 * radius + 1), np.uint8), borderValue=1)
        shade *= 1 - np.float32(rng.uniform(0.3, 0.6)) * (1 - inner)
    under += (np.clip(color * shade[..., None], 0, 255) - under) * shape.coverage[..., None]


def develop(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Make the float32 image look like a photo: uneven light, less contrast, blur, noise. Returns uint8."""
    height, width = image.shape[:2]
    light = 1 - np.float32(rng.uniform(0, 0.35)) * smooth_noise(height, width, 160, rng)
    contrast, gray = np.float32(rng.uniform(0.6, 1)), np.float32(rng.uniform(100, 180))
    shift = np.full_like(light, (1 - contrast) * gray)
    if rng.random() < 0.6:
        shift += np.float32(rng.uniform(1, 8)) * rng.standard_normal((height, width), dtype=np.float32)
    image = image * cv2.merge([contrast * light] * 3)
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.2))
    image += cv2.merge([shift] * 3)
    return np.clip(image, 0, 255, out=image).astype(np.uint8)


def paint_image(shapes: list[Stamp], height: int, width: int, rng: Generator, style: Style = EMBEDDED) -> np.ndarray:
    """Paint the shapes, listed from front to back, onto a random background. Returns (H, W, 3) uint8, BGR."""
    background = paint_background(height, width, rng)
    scribble(background, rng)
    image = background.astype(np.float32)
    if rng.random() < 0.6:
        cast_shadows(image, shapes, rng)
    for shape in reversed(shapes):
        paint_shape(image, shape, rng, style)
    return develop(image, rng)


def draw_image(seed: int, split: str, index: int, style: Style = EMBEDDED) -> Drawing:
    """Draw one image. The boxes of its objects cover their full extent, hidden parts included."""
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    height, width = (int(side) for side in rng.integers(style.sides[0], style.sides[1] + 1, 2))
    shapes = arrange(height, width, rng, style)
    image = paint_image(shapes, height, width, rng, style)
    objects = [shape for shape in shapes if shape.kind in CLASSES]
    boxes = np.array([shape.box for shape in objects]).reshape(-1, 4)
    return Drawing(image, boxes, [CLASSES.index(shape.kind) for shape in objects])
