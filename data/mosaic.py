"""Mosaic and affine map: one to four pictures straight onto the network's input, boxes included."""

from dataclasses import dataclass
from typing import Any

import albumentations as A
import cv2
import numpy as np

from detector.letterbox import GREY

MIN_SIDE = 2.0  # a box must be wider and taller than this many pixels to stay
MIN_VISIBLE = 0.1  # and keep more than this share of its area inside
MAX_ASPECT = 100.0  # and be less elongated than this


@dataclass(frozen=True)
class Source:
    """A picture that is already scaled to fit the input size, and its objects."""

    image: np.ndarray  # (h, w, 3) uint8
    boxes: np.ndarray  # (N, 5) float32, x1 y1 x2 y2 in pixels of ``image``, then the object's number


@dataclass(frozen=True)
class Place:
    """Where a picture lies on the canvas, in pixels of the canvas."""

    left: int  # of the picture's corner, which may be outside of the canvas
    top: int
    window: tuple[int, int, int, int]  # x1 y1 x2 y2 of the part on the canvas


def place_mosaic(shapes: list[tuple[int, int]], centre: tuple[int, int], size: tuple[int, int]) -> list[Place]:
    """Place four pictures of ``shapes`` (height, width) so that they meet at ``centre`` (x, y) of a canvas twice ``size``.

    They are the top left, top right, bottom left and bottom right one.
    """
    x, y = centre
    places = []
    for number, (height, width) in enumerate(shapes):
        left = x if number % 2 else x - width
        top = y if number >= 2 else y - height
        window = max(left, 0), max(top, 0), min(left + width, 2 * size[1]), min(top + height, 2 * size[0])
        places.append(Place(left, top, window))
    return places


def place_letterbox(shape: tuple[int, int], size: tuple[int, int]) -> Place:
    """Place one picture of ``shape`` (height, width) centred on a canvas of ``size``, as ``detector.letterbox`` does."""
    left, top = (size[1] - shape[1]) // 2, (size[0] - shape[0]) // 2
    return Place(left, top, (left, top, left + shape[1], top + shape[0]))


def affine_matrix(
    canvas: tuple[int, int], centre: tuple[float, float], scale: float, degrees: float, shear: tuple[float, float]
) -> np.ndarray:
    """Return the (2, 3) map that scales, turns and shears about the middle of ``canvas`` (height, width).

    The middle goes to ``centre`` (x, y). Coordinates are continuous: pixel i covers i..i+1. Angles are in degrees.
    """
    angle, (shear_x, shear_y) = np.deg2rad(degrees), np.tan(np.deg2rad(shear))
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = np.array([[1.0, shear_x], [shear_y, 1.0]]) @ rotation
    middle = np.array([canvas[1] / 2, canvas[0] / 2])
    return np.column_stack([linear, np.array(centre) - linear @ middle])


def render(images: list[np.ndarray], places: list[Place], matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Draw the placed pictures through ``matrix`` onto grey, (H, W, 3) uint8 of ``size`` (height, width)."""
    output = np.full((*size, 3), GREY, np.uint8)
    linear, shift = matrix[:, :2], matrix[:, 2]
    for image, place in zip(images, places, strict=True):
        x1, y1, x2, y2 = place.window
        part = image[y1 - place.top : y2 - place.top, x1 - place.left : x2 - place.left]
        _paste(part, linear, linear @ (x1, y1) + shift, output)
    return output


def _paste(part: np.ndarray, linear: np.ndarray, shift: np.ndarray, output: np.ndarray) -> None:
    """Warp ``part`` into ``output`` in place; only the pixels whose centre it covers are worked out."""
    height, width = part.shape[:2]
    corners = linear @ np.array([[0, width, 0, width], [0, 0, height, height]], dtype=float) + shift[:, None]
    low = np.maximum(np.ceil(corners.min(axis=1) - 0.5), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=1) - 0.5), (output.shape[1], output.shape[0])).astype(int)
    if (high <= low).any():
        return
    region = output[low[1] : high[1], low[0] : high[0]]
    border = cv2.BORDER_REPLICATE
    if linear[0, 1] or linear[1, 0]:
        # The region is larger than a slanted picture, and what lies around it must stay. OpenCV then leaves out the
        # outer half pixel of the picture as well, which shows as grey seams: hence one pixel more on every side.
        border = cv2.BORDER_TRANSPARENT
        part = cv2.copyMakeBorder(part, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        shift = shift - linear.sum(axis=1)
    # OpenCV counts from the centre of the first pixel, we from its corner.
    shift = shift + linear.sum(axis=1) / 2 - 0.5 - low
    matrix = np.column_stack([linear, shift])
    cv2.warpAffine(part, matrix, region.shape[1::-1], dst=region, flags=cv2.INTER_LINEAR, borderMode=border)


def map_boxes(
    boxes: np.ndarray, place: Place, matrix: np.ndarray, scale: float, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Take ``boxes`` (N, 4) from pixels of a placed picture to pixels of the output, and tell which of them stay, (N,).

    They are clipped to the part of the picture on the canvas, and to the output of ``size`` (height, width). Those which
    are too small, too elongated, or mostly outside then, do not stay.
    """
    x1, y1, x2, y2 = place.window
    on_canvas = boxes + np.array([place.left, place.top] * 2)
    on_canvas = on_canvas.clip([x1, y1, x1, y1], [x2, y2, x2, y2])
    corners = on_canvas[:, [[0, 1], [2, 1], [0, 3], [2, 3]]] @ matrix[:, :2].T + matrix[:, 2]  # (N, 4 corners, 2)
    mapped = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    mapped = mapped.clip(0, [size[1], size[0], size[1], size[0]])
    return mapped, _stays(mapped, scale**2 * np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))


def _stays(boxes: np.ndarray, whole_area: np.ndarray) -> np.ndarray:
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    longer, shorter = np.maximum(width, height), np.minimum(width, height)
    return (shorter > MIN_SIDE) & (width * height > MIN_VISIBLE * whole_area) & (longer < MAX_ASPECT * shorter)


class MosaicAffine(A.DualTransform):
    """Random mosaic and affine map (YOLOv4, arXiv:2004.10934) onto an input of ``size`` (height, width).

    Beside ``image`` and ``bboxes`` it is called with ``partners``, a list of Source: three make a mosaic, and with none
    the image is letterboxed. Scale, translation (share of the size), rotation and shear (degrees) are drawn uniformly.
    """

    def __init__(
        self, size: tuple[int, int], scale: float = 0.5, translate: float = 0.1, degrees: float = 0.0, shear: float = 0.0
    ) -> None:
        super().__init__(p=1.0)
        self.size, self.scale, self.translate, self.degrees, self.shear = size, scale, translate, degrees, shear

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        partners: list[Source] = data["partners"]
        assert len(partners) in (0, 3), f"a mosaic takes 3 partner pictures, not {len(partners)}"
        shapes = [data["image"].shape[:2], *(partner.image.shape[:2] for partner in partners)]
        height, width = self.size
        draw = self.random_generator
        if partners:
            meeting_x, meeting_y = (int(draw.integers(side // 2, side // 2 + side + 1)) for side in (width, height))
            places, canvas = place_mosaic(shapes, (meeting_x, meeting_y), self.size), (2 * height, 2 * width)
        else:
            places, canvas = [place_letterbox(shapes[0], self.size)], self.size
        scale = draw.uniform(1 - self.scale, 1 + self.scale)
        degrees = draw.uniform(-self.degrees, self.degrees)
        shear = draw.uniform(-self.shear, self.shear, 2)
        x, y = draw.uniform(0.5 - self.translate, 0.5 + self.translate, 2) * (width, height)
        matrix = affine_matrix(canvas, (x, y), scale, degrees, tuple(shear))
        return {"partners": partners, "places": places, "matrix": matrix, "zoom": scale}

    def apply(
        self, img: np.ndarray, partners: list[Source], places: list[Place], matrix: np.ndarray, **_: Any
    ) -> np.ndarray:
        return render([img, *(partner.image for partner in partners)], places, matrix, self.size)

    def apply_to_bboxes(
        self,
        bboxes: np.ndarray,
        partners: list[Source],
        places: list[Place],
        matrix: np.ndarray,
        zoom: float,
        shape: tuple[int, ...],
        **_: Any,
    ) -> np.ndarray:
        """Map all pictures' boxes; albumentations' own boxes are shares of the image's width and height."""
        own = np.zeros((0, 5)) if len(bboxes) == 0 else bboxes * np.array([shape[1], shape[0]] * 2 + [1])
        kept = []
        for boxes, place in zip([own, *(partner.boxes for partner in partners)], places, strict=True):
            mapped, stays = map_boxes(boxes[:, :4].astype(float), place, matrix, zoom, self.size)
            kept.append(np.column_stack([mapped, boxes[:, 4]])[stays])
        return (np.concatenate(kept) / np.array([self.size[1], self.size[0]] * 2 + [1])).astype(np.float32)
