"""Signs that boxes are not in the format of their file: shares, corners, centers, or pixels of another image size."""

from collections.abc import Callable

import numpy as np

from data.remarks import Level, Remark
from detector.batch import xywh_to_xyxy
from detector.text import plural

XYWH, CXCYWH = "x y width height", "center x, center y, width, height"
SLACK = 0.02  # a box is inside its image if it sticks out by less than this share of the image's side
FEW = 10  # of fewer boxes, most must be wrong for a warning, and none is an error
SURE_SHARE = 0.25  # of boxes outside of their images: an error, if another format puts all inside
MIN_SHARE = 0.05  # of boxes outside: a warning
FITTING_SHARE = 0.99  # of boxes that another format must put inside
MANY, USED_SIDE = 20, 0.65  # of so many boxes, one should reach beyond this share of its image's width or height

Corners = Callable[[np.ndarray], np.ndarray]
FORMATS: dict[str, Corners] = {  # four numbers -> x1 y1 x2 y2
    XYWH: xywh_to_xyxy,
    "x1 y1 x2 y2": lambda values: values,
    CXCYWH: lambda values: np.concatenate([values[:, :2] - values[:, 2:] / 2, values[:, :2] + values[:, 2:] / 2], axis=1),
    "y1 x1 y2 x2": lambda values: values[:, [1, 0, 3, 2]],
}


def box_format_remarks(values: np.ndarray, sizes: np.ndarray, read_as: str, describe: Callable[[int], str]) -> list[Remark]:
    """Return an error or a warning if the boxes look like those of another format than ``read_as``.

    ``values`` (N, 4) are the numbers of the file, in pixels of the images, ``sizes`` (N, 2) height and width of each box's
    image. ``describe`` returns the name of a box for messages. A few odd boxes give no remark.
    """
    usable = np.flatnonzero((values[:, 2:] > 0).all(axis=1))  # boxes without area have their own warning
    if not len(usable):
        return []
    values, sizes, name = values[usable], sizes[usable], lambda n: describe(int(usable[n]))
    shares = _shares(values, sizes, name) if read_as == XYWH else None  # YOLO labels are shares
    remark = shares or _subpixel(values, name) or _outside(values, sizes, read_as, name)
    remark = remark or _unused_side(FORMATS[read_as](values), sizes, name)
    return [remark] if remark else []


def area_remarks(bboxes: np.ndarray, areas: np.ndarray, describe: Callable[[int], str]) -> list[Remark]:
    """Return a remark if the ``areas`` (N,) of the file do not belong to the ``bboxes`` (N, 4), x y width height.

    ``areas`` of objects without one are NaN. The area of an object is at most that of its box.
    """
    usable = (bboxes[:, 2:] > 0).all(axis=1)
    zero, known = usable & (areas == 0), usable & np.isfinite(areas) & (areas > 0)
    if zero.sum() > MIN_SHARE * usable.sum():
        subject = plural(int(zero.sum()), "annotation has", "annotations have")
        example = describe(int(np.flatnonzero(zero)[0]))
        text = f"{subject} the area 0, e.g. {example}; they all count as small in AP_small: remove 'area', or correct it"
        return [Remark("warning", text)]
    if not known.any():
        return []
    boxes, areas = bboxes[known], areas[known]
    first, ratios = describe(int(np.flatnonzero(known)[0])), areas / boxes[:, 2:].prod(axis=1)
    by_corners = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)
    if (np.abs(by_corners / areas - 1) < 0.01).mean() >= FITTING_SHARE and (np.abs(ratios - 1) > 0.01).mean() >= 0.5:
        text = (
            f"the areas are those of boxes x1 y1 x2 y2, e.g. of {first}; expected {XYWH}: write [x1, y1, x2 - x1, y2 - y1]"
        )
        return [Remark("error" if len(areas) >= 3 else "warning", text)]
    if (ratios > 1.5).mean() >= 0.95 and np.median(ratios) > 2:
        text = (
            f"areas are larger than width x height, {np.median(ratios):.3g} times in the middle, e.g. of {first}; look "
            "whether the boxes are in pixels of these images (areas decide what is AP_small, AP_medium and AP_large)"
        )
        return [Remark("warning", text)]
    return []


def _shares(values: np.ndarray, sizes: np.ndarray, describe: Callable[[int], str]) -> Remark | None:
    """Return an error if most boxes lie within 0..1, in both directions or in one."""
    within = np.all(((values >= -0.01) & (values <= 1.01)).reshape(-1, 2, 2), axis=1)  # (N, 2): x and width, y and height
    broken = np.any((values % 1 > 0).reshape(-1, 2, 2), axis=1)  # numbers with a fraction
    if (sizes < 8).all():
        return None
    both = np.all(within, axis=1)
    if both.mean() >= 0.5 and broken[both].any():
        subject = "all boxes lie" if both.all() else f"{both.sum()} of {plural(len(both), 'box', 'boxes')} lie"
        text = (
            f"{subject} within 0..1, e.g. {describe(int(np.flatnonzero(both)[0]))}: they look like shares of the image; "
            "multiply x and width by the image's width, y and height by its height"
        )
        return Remark("error", text)
    for axis, names in enumerate((("x", "width"), ("y", "height"))):
        if len(values) >= 3 and within[:, axis].all() and broken[:, axis].any():
            text = f"{names[0]} and {names[1]} of all boxes lie within 0..1, e.g. {describe(0)}; expected pixels"
            return Remark("error", text)
    return None


def _subpixel(values: np.ndarray, describe: Callable[[int], str]) -> Remark | None:
    """Return an error if every box is smaller than a pixel."""
    if (values[:, 2:] >= 1).any():
        return None
    text = f"every box is smaller than a pixel, e.g. {describe(0)}; look whether sides were divided by the image's size"
    return Remark("error", text)


def _outside(values: np.ndarray, sizes: np.ndarray, read_as: str, describe: Callable[[int], str]) -> Remark | None:
    """Return a remark if many boxes leave their image, and name the format that puts all inside, if there is one."""
    outside = ~_inside(FORMATS[read_as](values), sizes)
    share, number = outside.mean(), int(outside.sum())
    if number < 3 or share < (MIN_SHARE if len(values) >= FEW else 0.5):
        return None
    fits = {name: _inside(corners(values), sizes).mean() for name, corners in FORMATS.items() if name != read_as}
    best = max(fits, key=lambda name: fits[name])
    example = describe(int(np.flatnonzero(outside)[0]))
    text = f"as {read_as}, {number} of {len(values)} boxes leave their image, e.g. {example}"
    if fits[best] >= FITTING_SHARE:
        level: Level = "error" if share >= SURE_SHARE and len(values) >= FEW else "warning"
        return Remark(level, f"{text}; as {best}, all lie inside: convert them to {read_as}")
    if share >= 0.1:
        return Remark("warning", f"{text}; look whether they belong to a larger copy of the images")
    return None


def _unused_side(corners: np.ndarray, sizes: np.ndarray, describe: Callable[[int], str]) -> Remark | None:
    """Return a warning if all of many boxes lie in the upper left part of their images."""
    used = (corners[:, 2:] / sizes[:, ::-1]).max(axis=0)
    if len(corners) < MANY or (used > USED_SIDE).any():
        return None
    text = (
        f"no box reaches beyond {used[0]:.0%} of the width and {used[1]:.0%} of the height of its image, e.g. "
        f"{describe(0)}; if they are percent, or pixels of a smaller copy of the images, convert them"
    )
    return Remark("warning", text)


def _inside(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return a mask (N,) of the ``corners`` x1 y1 x2 y2 that are boxes inside of their image, see ``sizes`` above."""
    limits = sizes[:, ::-1]
    low, high = corners[:, :2], corners[:, 2:]
    return np.all((low >= -SLACK * limits) & (high <= (1 + SLACK) * limits) & (high > low), axis=1)
