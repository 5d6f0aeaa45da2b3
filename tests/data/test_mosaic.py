"""Mosaic and affine map against a plain two-step reference, and boxes against painted rectangles."""

import cv2
import numpy as np
import pytest

from data.mosaic import (
    Layout,
    MosaicAffine,
    MosaicTile,
    Placement,
    affine_matrix,
    map_boxes,
    map_objects,
    place_letterbox,
    place_mosaic,
    render,
    whole_pixels,
)
from data.transforms import Augmentation, TrainPipeline
from detector.imaging.letterbox import letterbox

SIZES = [(64, 64), (48, 96)]
MAPS = [
    {"scale": 1.0, "degrees": 0.0, "shear": (0.0, 0.0)},
    {"scale": 0.6, "degrees": 0.0, "shear": (0.0, 0.0)},
    {"scale": 1.4, "degrees": 0.0, "shear": (0.0, 0.0)},
    {"scale": 0.9, "degrees": 25.0, "shear": (0.0, 0.0)},
    {"scale": 1.1, "degrees": -10.0, "shear": (8.0, -5.0)},
]


def smooth_image(height: int, width: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 6), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def warp_slowly(canvas: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Sample ``canvas`` bilinearly where the center of each output pixel comes from; gray outside."""
    ys, xs = np.mgrid[: size[0], : size[1]] + 0.5
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    x, y = (inverse[:2, :2] @ np.stack([xs.ravel(), ys.ravel()])) + inverse[:2, 2:] - 0.5
    padded = np.pad(canvas.astype(float), ((1, 2), (1, 2), (0, 0)), constant_values=114)
    x, y = x.clip(-1, canvas.shape[1]) + 1, y.clip(-1, canvas.shape[0]) + 1
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, low = (x - left)[:, None], (y - top)[:, None]
    upper = padded[top, left] * (1 - right) + padded[top, left + 1] * right
    lower = padded[top + 1, left] * (1 - right) + padded[top + 1, left + 1] * right
    return (upper * (1 - low) + lower * low).reshape(*size, 3)


def away_from_edges(
    placements: list[Placement], canvas: tuple[int, int], matrix: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Return a mask (H, W) of the output pixels more than two pixels away from the borders of the images."""
    levels = np.zeros((*canvas, 1))  # another one for each image
    for number, placement in enumerate(placements):
        x1, y1, x2, y2 = placement.window
        levels[y1:y2, x1:x2] = 50 * (number + 1)
    mapped = warp_slowly(np.repeat(levels, 3, axis=2), matrix, size)[:, :, 0]
    return cv2.morphologyEx(mapped, cv2.MORPH_GRADIENT, np.ones((5, 5))) < 1e-6


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("parameters", MAPS)
@pytest.mark.parametrize("size", SIZES)
def test_mosaic_equals_building_the_doubled_canvas_and_warping_it(
    size: tuple[int, int], parameters: dict, flip: bool
) -> None:
    height, width = size
    images = [smooth_image(height - 9 * (n % 2), width - 7 * (n // 2), n) for n in range(4)]
    center = (width - 11, height + 5)
    placements, canvas = place_mosaic([p.shape[:2] for p in images], center, size), (2 * height, 2 * width)
    matrix, corner = affine_matrix(canvas, (0.55 * width, 0.46 * height), **parameters), None
    if not parameters["degrees"]:
        before = matrix
        matrix, corner = whole_pixels(matrix)
        assert np.abs(matrix - before).max() <= parameters["scale"] / 2 + 1e-9  # half a canvas pixel

    doubled = np.full((*canvas, 3), 114, np.uint8)
    x, y = center
    for n, pixels in enumerate(images):
        h, w = pixels.shape[:2]
        left, top = (x - w, x)[n % 2], (y - h, y)[n // 2]
        rows, columns = slice(max(top, 0), top + h), slice(max(left, 0), left + w)
        part = doubled[rows, columns]
        part[:] = pixels[max(-top, 0) :, max(-left, 0) :][: part.shape[0], : part.shape[1]]

    output = render(images, Layout(placements, matrix, size, 1.0, corner, flip))
    output = output[:, ::-1] if flip else output
    expected = warp_slowly(doubled, matrix, size)
    even = away_from_edges(placements, canvas, matrix, size)
    assert even.mean() > 0.6
    if corner is not None:  # only rounding, seams included; the left and top edges are repeated
        assert np.abs(output - expected)[1:, 1:].max() <= 1
    # OpenCV rounds positions to 1/32 pixel.
    assert np.abs(output - expected)[even].max() < 4
    # At a seam, pixels may come from either image, but never from the gray behind. The smooth images meet with a step, so
    # compare with the range of values around.
    around = np.ones((5, 5))
    low, high = cv2.erode(expected, around), cv2.dilate(expected, around)
    assert (np.maximum(low - output, output - high) < 4).mean() > 0.999


@pytest.mark.parametrize("degrees", [0.0, 15.0])
def test_no_seams_between_the_images(degrees: float) -> None:
    white = np.full((64, 64, 3), 255, np.uint8)
    placements = place_mosaic([(64, 64)] * 4, (64, 64), (64, 64))
    for scale in np.linspace(0.8, 1.5, 15):
        matrix = affine_matrix((128, 128), (31.3, 33.8), scale, degrees, (0.0, 0.0))
        assert render([white] * 4, Layout(placements, matrix, (64, 64), 1.0)).min() == 255


@pytest.mark.parametrize("size", SIZES)
def test_without_partners_and_map_the_result_is_the_letterbox(size: tuple[int, int]) -> None:
    pixels = smooth_image(size[0], size[1] - 13, 0)
    placement = place_letterbox(pixels.shape[:2], size)
    matrix = affine_matrix(size, (size[1] / 2, size[0] / 2), 1.0, 0.0, (0.0, 0.0))
    for corner in (None, (0, 0)):
        output = render([pixels], Layout([placement], matrix, size, 1.0, corner))
        np.testing.assert_array_equal(output, letterbox(pixels, size)[0])


def soft_rectangle(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """A bright rectangle on gray whose edges are blurred, so that its centroid does not depend on pixel rounding."""
    pixels = np.full((height, width, 3), 114, np.float32)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = 230
    return cv2.GaussianBlur(pixels, (0, 0), 1.2).round().astype(np.uint8)


def centroid(image: np.ndarray) -> np.ndarray:
    """Return the center x y, in continuous coordinates, of the pixels brighter than the gray around."""
    weight = image[:, :, 0].astype(float) - 114
    weight[weight < 3] = 0
    ys, xs = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
    return np.array([(weight * xs).sum(), (weight * ys).sum()]) / weight.sum()


def touches_border(image: np.ndarray) -> bool:
    bright = image[:, :, 0] > 117
    return bool(bright[[0, -1]].any() or bright[:, [0, -1]].any())


@pytest.mark.parametrize("turned", [{}, {"degrees": 30.0, "shear": 10.0}])
@pytest.mark.parametrize("number", [None, 0, 3])
@pytest.mark.parametrize("size", SIZES)
def test_a_painted_rectangle_stays_in_its_box(size: tuple[int, int], number: int | None, turned: dict) -> None:
    """``number`` is the rectangle's image in the mosaic; None: no mosaic."""
    height, width = size[0] - 12, size[1]
    box = (12, 8, 30, 26)
    gray = np.full((height, width, 3), 114, np.uint8)
    none, one = np.zeros((0, 5), np.float32), np.array([[*box, 0]], np.float32)
    tiles = [MosaicTile(gray, none) for _ in range(1 if number is None else 4)]
    tiles[number or 0] = MosaicTile(soft_rectangle(height, width, box), one)
    mosaic_affine = MosaicAffine(size, fliplr=0.5, **turned)
    offsets = []
    for seed in range(300):
        layout = mosaic_affine.draw_layout([tile.image.shape[:2] for tile in tiles], np.random.default_rng(seed))
        image = render([tile.image for tile in tiles], layout)
        boxes, stays = map_boxes([tile.objects[:, :4] for tile in tiles], layout)
        if not stays.any():
            continue
        (mapped,) = boxes
        inside = mapped[0] > 3 and mapped[1] > 3 and mapped[2] < size[1] - 3 and mapped[3] < size[0] - 3
        placement = layout.placements[number or 0]
        x1, y1, x2, y2 = placement.window  # the blurred edges must be inside of it, too
        corner = (placement.left, placement.top)
        left, top, right, bottom = np.add(box, [*np.subtract(corner, 4), *np.add(corner, 4)])
        whole = x1 <= left and y1 <= top and right <= x2 and bottom <= y2
        if inside and whole and not touches_border(image):
            offsets.append(centroid(image) - (mapped[:2] + mapped[2:4]) / 2)
    assert len(offsets) > 10
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.03
    assert np.abs(offsets).max() < 0.1


def test_boxes_are_cut_where_their_image_is_cut() -> None:
    """The top left image is cut by the canvas on the left and the top right one at the right."""
    size = (64, 64)
    placements = place_mosaic([(64, 64)] * 4, (40, 90), size)
    assert placements[0].window == (0, 26, 40, 90)
    assert placements[1].window == (40, 26, 104, 90)
    assert placements[2].window == (0, 90, 40, 128)
    assert placements[3].window == (40, 90, 104, 128)
    identity = affine_matrix((128, 128), (64, 64), 1.0, 0.0, (0.0, 0.0))
    boxes = np.array([[0.0, 0, 64, 64], [10, 20, 30, 50], [0, 0, 24, 20]])
    mapped, stays = map_boxes([boxes], Layout(placements[:1], identity, (128, 128), 1.0))
    assert mapped[0].tolist() == [0, 26, 40, 90]
    assert mapped[1].tolist() == [0, 46, 6, 76]
    assert stays.tolist() == [True, True, False]  # the third is wholly on the left of the canvas


@pytest.mark.parametrize(
    ("box", "scale", "stays"),
    [
        ((10, 10, 12, 30), 1.0, False),  # exactly 2 pixels wide
        ((10, 10, 12.1, 30), 1.0, True),
        ((10, 10, 13, 30), 0.6, False),  # 1.8 pixels after scaling
        ((-90, 10, 10, 30), 1.0, False),  # exactly a tenth inside
        ((-85, 10, 10, 30), 1.0, True),
        ((0, 10, 64, 10.7), 4.0, True),  # 2.8 pixels high, aspect 64 / 2.8 after clipping
    ],
)
def test_which_boxes_stay(box: tuple, scale: float, stays: bool) -> None:
    placement = Placement(0, 0, (-200, -200, 264, 264))
    matrix = affine_matrix((64, 64), (32, 32), 1.0, 0.0, (0.0, 0.0))
    matrix[:, :2] *= scale
    matrix[:, 2] = 0
    _, mask = map_boxes([np.array([box], float)], Layout([placement], matrix, (64, 64), scale**2))
    assert mask.tolist() == [stays]


def test_elongated_boxes_are_dropped() -> None:
    placement = Placement(0, 0, (0, 0, 640, 640))
    matrix = affine_matrix((640, 640), (320, 320), 1.0, 0.0, (0.0, 0.0))
    boxes = np.array([[0, 10, 330, 13], [0, 10, 290, 13]], float)
    assert map_boxes([boxes], Layout([placement], matrix, (640, 640), 1.0))[1].tolist() == [False, True]


@pytest.mark.parametrize("transforms", [None, [{"HorizontalFlip": {}}]])
@pytest.mark.parametrize("empty", [(0,), (1, 2, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("first_empty", [True, False])
def test_labels_follow_boxes_with_and_without_objects(
    empty: tuple[int, ...], first_empty: bool, transforms: list | None
) -> None:
    """Also when the very first sample has no objects: albumentations remembers the kind of labels of its first call."""
    size, colors = (64, 64), [20, 80, 160, 240]
    none = np.zeros((0, 5), np.float32)
    pipeline = TrainPipeline(size, Augmentation(scale=0.0, hsv=(0, 0, 0)), transforms)
    if first_empty:
        gray = np.full((64, 64, 3), 114, np.uint8)
        assert pipeline([[MosaicTile(gray, none)]], np.random.default_rng(0))[1].shape == (0, 5)
    tiles = []
    for n, color in enumerate(colors):
        pixels = np.full((64, 64, 3), 114, np.uint8)
        pixels[16:48, 16:48] = color
        objects = none if n in empty else np.array([[16, 16, 48, 48, n]], np.float32)
        tiles.append(MosaicTile(pixels, objects))
    labels = set()
    for seed in range(20):
        image, objects = pipeline([tiles], np.random.default_rng(seed))
        for x1, y1, x2, y2, label in objects:
            assert image[int((y1 + y2) / 2), int((x1 + x2) / 2), 0] == colors[int(label)]
            labels.add(int(label))
    assert labels == {0, 1, 2, 3} - set(empty)


def test_another_output_size_scales_everything() -> None:
    """As in multi-scale training: the same mosaic, larger or smaller, each side by its own ratio."""
    images = [smooth_image(64, 64 - 4 * n, n) for n in range(4)]
    objects = [np.array([[10, 10, 40, 50, n]], np.float32) for n in range(4)]
    mosaic_affine, shapes = MosaicAffine((64, 64), scale=0.3, degrees=5), [image.shape[:2] for image in images]
    layouts = [mosaic_affine.draw_layout(shapes, np.random.default_rng(7), size) for size in ((64, 64), (96, 128))]
    small, large = (render(images, layout) for layout in layouts)
    assert large.shape == (96, 128, 3)
    assert layouts[1].area_scale == pytest.approx(layouts[0].area_scale * 1.5 * 2)  # so the same boxes stay
    assert np.abs(cv2.resize(large, (64, 64), interpolation=cv2.INTER_AREA).astype(int) - small).mean() < 3
    a, b = (map_objects(objects, layout) for layout in layouts)
    np.testing.assert_allclose(a[:, :4] * [2, 1.5, 2, 1.5], b[:, :4], atol=1e-3)


def test_mixup_blends_two_layers_and_keeps_all_objects() -> None:
    box = np.array([[10, 10, 40, 40, 0]], np.float32)
    layers = [
        [MosaicTile(np.full((64, 64, 3), value, np.uint8), box + np.array([0, 0, 0, 0, n], np.float32))]
        for n, value in enumerate((100, 200))
    ]
    augment = Augmentation(scale=0, translate=0, fliplr=0, hsv=(0, 0, 0))
    pipeline, levels = TrainPipeline((64, 64), augment, None), []
    for seed in range(200):
        image, objects = pipeline(layers, np.random.default_rng(seed))
        assert objects[:, 4].tolist() == [0, 1]
        assert (image == image[0, 0]).all()
        levels.append(int(image[0, 0, 0]))
    share = (200 - np.array(levels)) / 100
    assert abs(share.mean() - 0.5) < 0.02
    assert abs(share.std() - (0.25 / 65) ** 0.5) < 0.015  # of Beta(32, 32)


def test_four_images_are_in_a_mosaic() -> None:
    colors = [20, 80, 160, 240]
    images = [np.full((64, 64, 3), color, np.uint8) for color in colors]
    mosaic_affine = MosaicAffine((64, 64), scale=0.0, translate=0.0)
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(20):
        image = render(images, mosaic_affine.draw_layout([(64, 64)] * 4, rng))
        counts.append(len(set(np.unique(image)) & set(colors)))
    assert max(counts) == 4
    assert np.mean(counts) > 3.5
    with pytest.raises(AssertionError, match="3 partner images"):
        mosaic_affine.draw_layout([(64, 64)] * 2, rng)


def test_parameters_stay_in_their_ranges_and_fill_them() -> None:
    mosaic_affine = MosaicAffine((60, 80), scale=0.5, translate=0.1)
    zooms, meetings, centers = [], [], []
    rng = np.random.default_rng(1)
    for _ in range(500):
        layout = mosaic_affine.draw_layout([(60, 80)] * 4, rng)
        zooms.append(layout.area_scale**0.5)
        meetings.append((layout.placements[3].left, layout.placements[3].top))
        centers.append(layout.matrix @ (80, 60, 1))
    np.testing.assert_allclose([min(zooms), max(zooms)], [0.5, 1.5], atol=0.02)
    np.testing.assert_allclose(np.min(meetings, axis=0), (40, 30), atol=1)
    np.testing.assert_allclose(np.max(meetings, axis=0), (120, 90), atol=1)
    np.testing.assert_allclose(np.min(centers, axis=0), (0.4 * 80, 0.4 * 60), atol=0.9)  # whole pixels of the canvas
    np.testing.assert_allclose(np.max(centers, axis=0), (0.6 * 80, 0.6 * 60), atol=0.9)


def test_angles_fill_their_ranges_either_way() -> None:
    rng, turns, shears = np.random.default_rng(2), [], []
    for _ in range(300):
        linear = MosaicAffine((64, 64), degrees=30).draw_layout([(64, 64)], rng).matrix[:, :2]
        turns.append(np.rad2deg(np.arctan2(linear[1, 0], linear[0, 0])))
        linear = MosaicAffine((64, 64), shear=20).draw_layout([(64, 64)], rng).matrix[:, :2]
        shears.append(np.rad2deg(np.arctan([linear[0, 1] / linear[1, 1], linear[1, 0] / linear[0, 0]])))
    np.testing.assert_allclose([min(turns), max(turns)], [-30, 30], atol=1)
    np.testing.assert_allclose(np.min(shears, axis=0), (-20, -20), atol=1)
    np.testing.assert_allclose(np.max(shears, axis=0), (20, 20), atol=1)
    assert abs(np.corrcoef(np.transpose(shears))[0, 1]) < 0.2  # each axis has its own


def test_shear_moves_x_by_y_and_y_by_x() -> None:
    linear = affine_matrix((2, 2), (0, 0), 1.0, 0.0, (45.0, 0.0))[:, :2]
    np.testing.assert_allclose(linear @ (0, 1), (1, 1), atol=1e-12)
    np.testing.assert_allclose(linear @ (1, 0), (1, 0), atol=1e-12)
