"""Mosaic, affine map and flip: one to four images straight onto the network's input, boxes included."""

import math
from dataclasses import dataclass
from typing import Any

import albumentations as A
import cv2
import numpy as np

from detector.imaging.letterbox import GRAY

MIN_SIDE = 2.0  # a box must be wider and taller than this many pixels to stay
MIN_VISIBLE = 0.1  # and keep more than this share of its area inside
MAX_ASPECT = 100.0  # and be less elongated than this


@dataclass(frozen=True)
class Source:
    """An image that is already scaled to fit the input size, and its objects."""

    image: np.ndarray  # (h, w, 3) uint8
    boxes: np.ndarray  # (N, 5) float32, x1 y1 x2 y2 in pixels of ``image``, then the object's number


@dataclass(frozen=True)
class Place:
    """Where an image lies on the canvas, in pixels of the canvas."""

    left: int  # of the image's corner, which may be outside of the canvas
    top: int
    window: tuple[int, int, int, int]  # x1 y1 x2 y2 of the part on the canvas


@dataclass(frozen=True)
class Layout:
    """Where the images lie on a canvas, and how the canvas is mapped to the output."""

    places: list[Place]
    matrix: np.ndarray  # (2, 3), pixels of the canvas to pixels of the output; continuous, pixel i covers i..i+1
    size: tuple[int, int]  # of the output, height and width
    area: float  # of a canvas pixel in the output, in pixels
    corner: tuple[int, int] | None = None  # x y of the canvas pixel whose corner is the output's, if nothing is slanted
    flip: bool = False  # whether the output is to be mirrored in the end; ``matrix`` does not contain it


def place_mosaic(shapes: list[tuple[int, int]], center: tuple[int, int], size: tuple[int, int]) -> list[Place]:
    """Place four images of ``shapes`` (height, width) so that they meet at ``center`` (x, y) of a canvas twice ``size``.

    They are the top left, top right, bottom left and bottom right one.
    """
    x, y = center
    places = []
    for number, (height, width) in enumerate(shapes):
        left = x if number % 2 else x - width
        top = y if number >= 2 else y - height
        window = max(left, 0), max(top, 0), min(left + width, 2 * size[1]), min(top + height, 2 * size[0])
        places.append(Place(left, top, window))
    return places


def place_letterbox(shape: tuple[int, int], size: tuple[int, int]) -> Place:
    """Place one image of ``shape`` (height, width) centered on a canvas of ``size``, as ``letterbox`` does."""
    left, top = (size[1] - shape[1]) // 2, (size[0] - shape[0]) // 2
    return Place(left, top, (left, top, left + shape[1], top + shape[0]))


def affine_matrix(
    canvas: tuple[int, int], center: tuple[float, float], scale: float, degrees: float, shear: tuple[float, float]
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
    """Move a map that neither turns nor shears by at most half a canvas pixel, so that a canvas pixel's corner becomes
    the output's. Return it and that pixel's x y."""
    zoom = matrix[:, :2].diagonal()
    corner = np.rint(-matrix[:, 2] / zoom).astype(int)
    return np.column_stack([matrix[:, :2], -corner * zoom]), tuple(corner.tolist())


def render(images: list[np.ndarray], layout: Layout) -> np.ndarray:
    """Draw the placed images onto gray, (H, W, 3) uint8 of the layout's size."""
    draw = _render_slanted if layout.corner is None else _render_upright
    output = draw(images, layout)
    return cv2.flip(output, 1) if layout.flip else output


def _render_upright(images: list[np.ndarray], layout: Layout) -> np.ndarray:
    """Copy what is to be seen of the canvas, at its own scale, and resize that: three times faster than warping.

    ``fx`` and ``fy`` make OpenCV keep the exact scale, with corners on corners, whatever the rounded size of its output.
    """
    (height, width), (left, top) = layout.size, layout.corner
    zoom_x, zoom_y = layout.matrix[:, :2].diagonal().tolist()
    # One pixel more than is seen, since resizing looks at neighbors and rounds its output's size.
    view = np.full((math.ceil((height + 1) / zoom_y), math.ceil((width + 1) / zoom_x), 3), GRAY, np.uint8)
    for image, place in zip(images, layout.places, strict=True):
        x1, y1, x2, y2 = place.window
        x1, y1 = max(x1, left), max(y1, top)
        x2, y2 = min(x2, left + view.shape[1]), min(y2, top + view.shape[0])
        if x1 < x2 and y1 < y2:
            part = image[y1 - place.top : y2 - place.top, x1 - place.left : x2 - place.left]
            view[y1 - top : y2 - top, x1 - left : x2 - left] = part
    if (round(view.shape[0] * zoom_y), round(view.shape[1] * zoom_x)) == view.shape[:2]:
        # Where the rounded size stays what it was, resize takes the scale for 1 and copies.
        centered = np.array([[zoom_x, 0, (zoom_x - 1) / 2], [0, zoom_y, (zoom_y - 1) / 2]])
        return cv2.warpAffine(view, centered, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    resized = cv2.resize(view, None, fx=zoom_x, fy=zoom_y, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized[:height, :width])


def _render_slanted(images: list[np.ndarray], layout: Layout) -> np.ndarray:
    output = np.full((*layout.size, 3), GRAY, np.uint8)
    linear, shift = layout.matrix[:, :2], layout.matrix[:, 2]
    for image, place in zip(images, layout.places, strict=True):
        x1, y1, x2, y2 = place.window
        part = image[y1 - place.top : y2 - place.top, x1 - place.left : x2 - place.left]
        _paste(part, linear, linear @ (x1, y1) + shift, output)
    return output


def _paste(part: np.ndarray, linear: np.ndarray, shift: np.ndarray, output: np.ndarray) -> None:
    """Warp ``part`` into ``output`` in place; only the pixels whose center it covers are worked out."""
    height, width = part.shape[:2]
    corners = linear @ np.array([[0, width, 0, width], [0, 0, height, height]], dtype=float) + shift[:, None]
    low = np.maximum(np.ceil(corners.min(axis=1) - 0.5), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=1) - 0.5), (output.shape[1], output.shape[0])).astype(int)
    if (high <= low).any():
        return
    region = output[low[1] : high[1], low[0] : high[0]]
    border = cv2.BORDER_REPLICATE
    if linear[0, 1] or linear[1, 0]:
        # The region is larger than a slanted image, and what lies around it must stay. OpenCV then leaves out the
        # outer half pixel of the image as well, which shows as gray seams: hence one pixel more on every side.
        border = cv2.BORDER_TRANSPARENT
        part = cv2.copyMakeBorder(part, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        shift = shift - linear.sum(axis=1)
    # OpenCV counts from the center of the first pixel, we from its corner.
    shift = shift + linear.sum(axis=1) / 2 - 0.5 - low
    matrix = np.column_stack([linear, shift])
    cv2.warpAffine(part, matrix, region.shape[1::-1], dst=region, flags=cv2.INTER_LINEAR, borderMode=border)


def map_boxes(boxes: list[np.ndarray], layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Take the boxes (N, 4) of each image from its pixels to those of the output; tell which of them all stay, (N,).

    They are clipped to the part of their image on the canvas, and to the output. Those which are too small, too
    elongated, or mostly outside then, do not stay.
    """
    counts = [len(own) for own in boxes]
    if not sum(counts):
        return np.zeros((0, 4)), np.zeros(0, bool)
    original = np.concatenate(boxes).astype(np.float64)
    place = np.array([(p.left, p.top, p.left, p.top, *p.window) for p in layout.places], np.float64).repeat(counts, axis=0)
    on_canvas = original + place[:, :4]
    np.maximum(on_canvas, place[:, [4, 5, 4, 5]], out=on_canvas)
    np.minimum(on_canvas, place[:, [6, 7, 6, 7]], out=on_canvas)
    corners = on_canvas[:, [[0, 1], [2, 1], [0, 3], [2, 3]]] @ layout.matrix[:, :2].T + layout.matrix[:, 2]  # (N, 4, 2)
    mapped = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    height, width = layout.size
    np.clip(mapped, 0, [width, height, width, height], out=mapped)
    if layout.flip:
        mapped[:, [0, 2]] = width - mapped[:, [2, 0]]
    return mapped, _stays(mapped, layout.area * (original[:, 2] - original[:, 0]) * (original[:, 3] - original[:, 1]))


def _stays(boxes: np.ndarray, whole_area: np.ndarray) -> np.ndarray:
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    longer, shorter = np.maximum(width, height), np.minimum(width, height)
    return (shorter > MIN_SIDE) & (width * height > MIN_VISIBLE * whole_area) & (longer < MAX_ASPECT * shorter)


class MosaicAffine(A.DualTransform):
    """Random mosaic and affine map (YOLOv4, arXiv:2004.10934) onto an input of ``size`` (height, width), and a flip.

    Beside ``image`` and ``bboxes`` it is called with ``partners``, a list of Source: three make a mosaic, and with none
    the image is letterboxed. Scale, translation (share of the size), rotation and shear (degrees) are drawn uniformly;
    ``fliplr`` is the probability of mirroring left and right.
    """

    def __init__(
        self,
        size: tuple[int, int],
        scale: float = 0.5,
        translate: float = 0.1,
        degrees: float = 0.0,
        shear: float = 0.0,
        fliplr: float = 0.0,
    ) -> None:
        super().__init__(p=1.0)
        self.size, self.scale, self.translate = size, scale, translate
        self.degrees, self.shear, self.fliplr = degrees, shear, fliplr

    def draw_layout(
        self, shapes: list[tuple[int, int]], draw: np.random.Generator, size: tuple[int, int] | None = None
    ) -> Layout:
        """Draw where one or four images of ``shapes`` (height, width) go.

        ``size`` is that of the output if it differs from the one that the images are scaled to fit: everything is
        scaled once more by their ratio.
        """
        assert len(shapes) in (1, 4), f"a mosaic takes 3 partner images, not {len(shapes) - 1}"
        height, width = self.size
        if len(shapes) == 4:
            meeting_x, meeting_y = (int(draw.integers(side // 2, side // 2 + side + 1)) for side in (width, height))
            places, canvas = place_mosaic(shapes, (meeting_x, meeting_y), self.size), (2 * height, 2 * width)
        else:
            places, canvas = [place_letterbox(shapes[0], self.size)], self.size
        scale = draw.uniform(1 - self.scale, 1 + self.scale)
        degrees = draw.uniform(-self.degrees, self.degrees)
        shear = draw.uniform(-self.shear, self.shear, 2)
        x, y = draw.uniform(0.5 - self.translate, 0.5 + self.translate, 2) * (width, height)
        flip = bool(draw.random() < self.fliplr)
        matrix, corner = affine_matrix(canvas, (x, y), scale, degrees, tuple(shear)), None
        size = self.size if size is None else size
        matrix *= np.array([[size[1] / width], [size[0] / height]])
        if not self.degrees and not self.shear:
            matrix, corner = whole_pixels(matrix)
        area = scale**2 * size[0] * size[1] / (height * width)
        return Layout(places, matrix, size, area, corner, flip)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        partners: list[Source] = data["partners"]
        shapes = [data["image"].shape[:2], *(partner.image.shape[:2] for partner in partners)]
        return {"partners": partners, "layout": self.draw_layout(shapes, self.random_generator)}

    def apply(self, img: np.ndarray, partners: list[Source], layout: Layout, **_: Any) -> np.ndarray:
        return render([img, *(partner.image for partner in partners)], layout)

    def apply_to_bboxes(
        self, bboxes: np.ndarray, partners: list[Source], layout: Layout, shape: tuple[int, ...], **_: Any
    ) -> np.ndarray:
        """Map all images' boxes; albumentations' own boxes are shares of the image's width and height."""
        own = np.zeros((0, 5)) if len(bboxes) == 0 else bboxes * np.array([shape[1], shape[0]] * 2 + [1])
        found = map_objects([own, *(partner.boxes for partner in partners)], layout)
        return found / np.array([self.size[1], self.size[0]] * 2 + [1], np.float32)


def map_objects(boxes: list[np.ndarray], layout: Layout) -> np.ndarray:
    """Return the objects that stay, (N, 5) float32, of those of each image, (N, 5): boxes and numbers."""
    mapped, stays = map_boxes([own[:, :4] for own in boxes], layout)
    numbers = np.concatenate([own[:, 4] for own in boxes])
    return np.column_stack([mapped, numbers])[stays].astype(np.float32)
