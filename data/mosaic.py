"""Mosaic, affine map and flip in one step: one to four images, with their boxes, drawn straight onto the network input.

The partners of a mosaic are chosen in dataset.py.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from detector.batch import Size
from detector.imaging.letterbox import GRAY

MIN_SIDE = 2.0  # a box stays if both sides are longer than this many pixels,
MIN_VISIBLE = 0.1  # if more than this share of its area is inside,
MAX_ASPECT = 100.0  # and if its longer side is less than this many times the shorter one


@dataclass(frozen=True)
class MosaicTile:
    """An image scaled to fit the input size, and its objects."""

    image: np.ndarray  # (h, w, 3) uint8
    objects: np.ndarray  # (N, 5) float32, x1 y1 x2 y2 in pixels of ``image``, then the object's number


@dataclass(frozen=True)
class Placement:
    """The position of an image on the canvas, in pixels of the canvas."""

    left: int  # of the image's corner, which may be outside of the canvas
    top: int
    window: tuple[int, int, int, int]  # x1 y1 x2 y2 of the part on the canvas


@dataclass(frozen=True)
class Layout:
    """The positions of the images on a canvas, and the map from the canvas to the output."""

    placements: list[Placement]
    matrix: np.ndarray  # (2, 3), from pixels of the canvas to pixels of the output; continuous, pixel i covers i..i+1
    size: Size  # of the output
    area_scale: float  # area of a canvas pixel in the output, in pixels
    corner: tuple[int, int] | None = None  # x y of the canvas pixel at the output's corner; None: the map turns or shears
    flip: bool = False  # mirror the output in the end; not part of ``matrix``


@dataclass(frozen=True)
class MosaicAffine:
    """Random mosaic and affine map (YOLOv4, arXiv:2004.10934) onto an input of ``size``, and a random flip."""

    size: Size
    scale: float = 0.5  # zoom is uniform in 1 - scale .. 1 + scale
    translate: float = 0.1  # shift, uniform up to this share of the size, either way
    degrees: float = 0.0  # rotation, uniform up to this angle, either way
    shear: float = 0.0  # degrees, uniform up to this angle, either way, for each axis
    fliplr: float = 0.0  # probability of mirroring left and right

    def draw_layout(self, shapes: list[Size], rng: np.random.Generator, size: Size | None = None) -> Layout:
        """Draw the layout of one image, which is letterboxed, or of the four images of a mosaic.

        ``shapes`` are their heights and widths. If ``size`` differs from ``self.size``, to which the images are scaled, the
        output has ``size``, and everything is scaled once more by the ratio of both.
        """
        size = self.size if size is None else size
        placements, canvas = self._draw_placements(shapes, rng)
        scale = rng.uniform(1 - self.scale, 1 + self.scale)
        degrees = rng.uniform(-self.degrees, self.degrees)
        shear = rng.uniform(-self.shear, self.shear, 2)
        height, width = self.size
        x, y = rng.uniform(0.5 - self.translate, 0.5 + self.translate, 2) * (width, height)
        flip = bool(rng.random() < self.fliplr)
        matrix, corner = affine_matrix(canvas, (x, y), scale, degrees, tuple(shear)), None
        matrix *= np.array([[size[1] / width], [size[0] / height]])
        if not self.degrees and not self.shear:
            matrix, corner = whole_pixels(matrix)
        area_scale = scale**2 * size[0] * size[1] / (height * width)
        return Layout(placements, matrix, size, area_scale, corner, flip)

    def _draw_placements(self, shapes: list[Size], rng: np.random.Generator) -> tuple[list[Placement], Size]:
        """Return the positions of the images on a canvas, and the size of the canvas."""
        assert len(shapes) in (1, 4), f"a mosaic takes 3 partner images, not {len(shapes) - 1}"
        if len(shapes) == 1:
            return [place_letterbox(shapes[0], self.size)], self.size
        height, width = self.size
        center_x, center_y = (int(rng.integers(side // 2, side // 2 + side + 1)) for side in (width, height))
        return place_mosaic(shapes, (center_x, center_y), self.size), (2 * height, 2 * width)


def place_mosaic(shapes: list[Size], center: tuple[int, int], size: Size) -> list[Placement]:
    """Place four images so that they meet at ``center`` (x, y) of a canvas twice as large as ``size``.

    ``shapes`` are their heights and widths: top left, top right, bottom left, bottom right.
    """
    x, y = center
    placements = []
    for number, (height, width) in enumerate(shapes):
        left = x if number % 2 else x - width
        top = y if number >= 2 else y - height
        window = max(left, 0), max(top, 0), min(left + width, 2 * size[1]), min(top + height, 2 * size[0])
        placements.append(Placement(left, top, window))
    return placements


def place_letterbox(shape: Size, size: Size) -> Placement:
    """Place one image of ``shape`` in the center of a canvas of ``size``, as ``letterbox`` does."""
    left, top = (size[1] - shape[1]) // 2, (size[0] - shape[0]) // 2
    return Placement(left, top, (left, top, left + shape[1], top + shape[0]))


def affine_matrix(
    canvas: Size, center: tuple[float, float], scale: float, degrees: float, shear: tuple[float, float]
) -> np.ndarray:
    """Return the (2, 3) map that scales, turns and shears about the middle of ``canvas`` (height, width).

    The middle goes to ``center`` (x, y). Coordinates are continuous: pixel i covers i..i+1. Angles are in degrees.
    """
    angle, (shear_x, shear_y) = np.deg2rad(degrees), np.tan(np.deg2rad(shear))
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = np.array([[1.0, shear_x], [shear_y, 1.0]]) @ rotation
    middle = np.array([canvas[1] / 2, canvas[0] / 2])
    return np.column_stack([linear, np.array(center) - linear @ middle])


def whole_pixels(matrix: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Shift a map without rotation and shear so that the output's corner is the corner of a canvas pixel.

    The shift is half a canvas pixel at most. Returns the map and x y of that pixel.
    """
    zoom = matrix[:, :2].diagonal()
    corner = np.rint(-matrix[:, 2] / zoom).astype(int)
    return np.column_stack([matrix[:, :2], -corner * zoom]), tuple(corner.tolist())


def render(images: list[np.ndarray], layout: Layout) -> np.ndarray:
    """Draw the images onto gray according to the layout; return (H, W, 3) uint8 of the layout's size."""
    output = _render_slanted(images, layout) if layout.corner is None else _render_upright(images, layout, layout.corner)
    return cv2.flip(output, 1) if layout.flip else output


def _render_upright(images: list[np.ndarray], layout: Layout, corner: tuple[int, int]) -> np.ndarray:
    """Copy the visible part of the canvas at its own scale, and resize it: three times faster than warping.

    ``fx`` and ``fy`` make OpenCV keep the exact scale, with corners on corners, while it rounds the size of its output.
    """
    (height, width), (left, top) = layout.size, corner
    zoom_x, zoom_y = layout.matrix[:, :2].diagonal().tolist()
    # One pixel more than visible: resizing looks at neighbors, and rounds the size of its output.
    view = np.full((math.ceil((height + 1) / zoom_y), math.ceil((width + 1) / zoom_x), 3), GRAY, np.uint8)
    for image, placement in zip(images, layout.placements, strict=True):
        x1, y1, x2, y2 = placement.window
        x1, y1 = max(x1, left), max(y1, top)
        x2, y2 = min(x2, left + view.shape[1]), min(y2, top + view.shape[0])
        if x1 < x2 and y1 < y2:
            view[y1 - top : y2 - top, x1 - left : x2 - left] = _part(image, placement, (x1, y1, x2, y2))
    if (round(view.shape[0] * zoom_y), round(view.shape[1] * zoom_x)) == view.shape[:2]:
        # If the rounded size stays the same, resize takes the scale for 1 and copies.
        centered = np.array([[zoom_x, 0, (zoom_x - 1) / 2], [0, zoom_y, (zoom_y - 1) / 2]])
        return cv2.warpAffine(view, centered, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    resized = cv2.resize(view, None, fx=zoom_x, fy=zoom_y, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized[:height, :width])


def _render_slanted(images: list[np.ndarray], layout: Layout) -> np.ndarray:
    output = np.full((*layout.size, 3), GRAY, np.uint8)
    linear, shift = layout.matrix[:, :2], layout.matrix[:, 2]
    for image, placement in zip(images, layout.placements, strict=True):
        x1, y1 = placement.window[:2]
        _warp_into(output, _part(image, placement, placement.window), linear, linear @ (x1, y1) + shift)
    return output


def _part(image: np.ndarray, placement: Placement, window: tuple[int, int, int, int]) -> np.ndarray:
    """Return the part of ``image`` under ``window``, x1 y1 x2 y2 on the canvas."""
    x1, y1, x2, y2 = window
    return image[y1 - placement.top : y2 - placement.top, x1 - placement.left : x2 - placement.left]


def _warp_into(output: np.ndarray, part: np.ndarray, linear: np.ndarray, shift: np.ndarray) -> None:
    """Warp ``part`` into ``output`` in place. Only pixels whose center it covers are computed."""
    height, width = part.shape[:2]
    corners = linear @ np.array([[0, width, 0, width], [0, 0, height, height]], dtype=float) + shift[:, None]
    low = np.maximum(np.ceil(corners.min(axis=1) - 0.5), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=1) - 0.5), (output.shape[1], output.shape[0])).astype(int)
    if (high <= low).any():
        return
    region = output[low[1] : high[1], low[0] : high[0]]
    border = cv2.BORDER_REPLICATE
    if linear[0, 1] or linear[1, 0]:
        # The region is larger than a slanted image, and the pixels around the image must stay. OpenCV then also leaves
        # out the outer half pixel of the image, which would show as gray seams: so add one pixel on every side.
        border = cv2.BORDER_TRANSPARENT
        part = cv2.copyMakeBorder(part, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        shift = shift - linear.sum(axis=1)
    # OpenCV counts from the center of the first pixel, we count from its corner.
    shift = shift + linear.sum(axis=1) / 2 - 0.5 - low
    matrix = np.column_stack([linear, shift])
    cv2.warpAffine(part, matrix, region.shape[1::-1], dst=region, flags=cv2.INTER_LINEAR, borderMode=border)


def map_objects(objects: list[np.ndarray], layout: Layout) -> np.ndarray:
    """Map the objects of each image, (N, 5) boxes and numbers, to the output; return those that stay, (M, 5) float32."""
    mapped, stays = map_boxes([image_objects[:, :4] for image_objects in objects], layout)
    numbers = np.concatenate([image_objects[:, 4] for image_objects in objects])
    return np.column_stack([mapped, numbers])[stays].astype(np.float32)


def map_boxes(boxes: list[np.ndarray], layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Map the boxes of each image, (N, 4) in its pixels, to pixels of the output.

    Boxes are clipped to the visible part of their image on the canvas, and to the output. Returns all boxes, and a mask of
    those that stay: a box is dropped if it is then too small, too elongated, or mostly outside.
    """
    counts = [len(image_boxes) for image_boxes in boxes]
    if not sum(counts):
        return np.zeros((0, 4)), np.zeros(0, bool)
    original = np.concatenate(boxes).astype(np.float64)
    corners = np.array([(p.left, p.top, p.left, p.top) for p in layout.placements], np.float64).repeat(counts, axis=0)
    windows = np.array([p.window for p in layout.placements], np.float64).repeat(counts, axis=0)
    on_canvas = original + corners
    np.maximum(on_canvas, windows[:, [0, 1, 0, 1]], out=on_canvas)
    np.minimum(on_canvas, windows[:, [2, 3, 2, 3]], out=on_canvas)
    vertices = on_canvas[:, [[0, 1], [2, 1], [0, 3], [2, 3]]] @ layout.matrix[:, :2].T + layout.matrix[:, 2]  # (N, 4, 2)
    mapped = np.concatenate([vertices.min(axis=1), vertices.max(axis=1)], axis=1)
    height, width = layout.size
    np.clip(mapped, 0, [width, height, width, height], out=mapped)
    if layout.flip:
        mapped[:, [0, 2]] = width - mapped[:, [2, 0]]
    original_areas = layout.area_scale * (original[:, 2] - original[:, 0]) * (original[:, 3] - original[:, 1])
    return mapped, _stays(mapped, original_areas)


def _stays(boxes: np.ndarray, original_areas: np.ndarray) -> np.ndarray:
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    longer, shorter = np.maximum(width, height), np.minimum(width, height)
    return (shorter > MIN_SIDE) & (width * height > MIN_VISIBLE * original_areas) & (longer < MAX_ASPECT * shorter)
