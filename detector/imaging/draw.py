"""Draw boxes and labels on images, and images side by side on a sheet: pure functions on (H, W, 3) uint8 RGB arrays."""

import colorsys
import unicodedata
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from detector.text import score_text

FONT = cv2.FONT_HERSHEY_SIMPLEX
Color = tuple[int, int, int]
BACKGROUND, INK = 245, (40, 40, 40)  # of sheets
SMALLEST_WITH_NOTE = 128  # pixels of the shorter side


def class_color(label: int) -> Color:
    """Return the RGB color of a class: classes with neighboring labels lie far apart on the color wheel."""
    hue = (0.58 + label * 0.618034) % 1.0  # with steps of the golden ratio no hue repeats
    lightness = (0.52, 0.66, 0.40)[label // 8 % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str] | Mapping[int, str],
    scores: np.ndarray | None = None,
    scale_side: int | None = None,
) -> np.ndarray:
    """Return a copy of ``image`` with ``boxes`` (N, 4) x1 y1 x2 y2 in its pixels, colored and labeled by class.

    ``labels`` (N,) index ``names``; ``scores`` (N,) in 0..1 are written after the name, rounded down. N may be 0. Lines and
    letters grow with the image, or are those of an image with the shorter side ``scale_side``. Labels stay inside it.
    """
    image = np.ascontiguousarray(image).copy()
    scale_side = min(*image.shape[:2], scale_side or max(image.shape[:2]))
    line = max(round(scale_side / 300), 1)
    limit = max(image.shape[:2]) + 1e4  # OpenCV takes no larger numbers
    # Low scores first, so that high scores lie on top; texts last, so that no line crosses them.
    order = range(len(boxes)) if scores is None else np.argsort(scores, kind="stable")
    corners = np.clip(np.nan_to_num(np.asarray(boxes, dtype=np.float64)), -1e4, limit).round().astype(int).reshape(-1, 4)
    for i in order:
        x1, y1, x2, y2 = corners[i].tolist()
        cv2.rectangle(image, (x1, y1), (x2, y2), class_color(int(labels[i])), line)
    for i in order:
        text = _ascii(names[int(labels[i])], int(labels[i])) + ("" if scores is None else f" {score_text(scores[i])}")
        _label(image, text, corners[i, 0].item(), corners[i, 1].item(), class_color(int(labels[i])), scale_side)
    return image


def draw_note(image: np.ndarray, text: str) -> np.ndarray:
    """Return a copy of ``image`` with ``text`` in its lower left corner; none on an image that the text would hide."""
    image = np.ascontiguousarray(image).copy()
    if min(image.shape[:2]) >= SMALLEST_WITH_NOTE:
        _label(image, text, 0, image.shape[0], INK)
    return image


def sheet(
    rows: Sequence[Sequence[np.ndarray]], captions: Sequence[Sequence[str]] | None = None, margin: int = 12
) -> np.ndarray:
    """Return one image with all images, row by row, each under its caption, on a light background.

    Images may differ in size: every cell is as large as the largest image, with ``margin`` pixels between cells.
    Rows may differ in length. Without images the sheet is small and empty.
    """
    sizes = [image.shape[:2] for row in rows for image in row]
    height, width = (max(sides) for sides in zip((0, 0), *sizes))
    strip = 0 if captions is None else max(round(width * 0.055), 22)  # pixels above each image for its caption
    num_columns = max((len(row) for row in rows), default=0)
    size = (len(rows) * (height + strip + margin) + margin, num_columns * (width + margin) + margin, 3)
    canvas = np.full(size, BACKGROUND, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = margin + i * (height + strip + margin), margin + j * (width + margin)
            if captions is not None:
                _caption(canvas[top : top + strip, left : left + width], captions[i][j])
            canvas[top + strip : top + strip + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def draw_title(image: np.ndarray, text: str) -> np.ndarray:
    """Return ``image`` below a strip with ``text``, in as many lines as its width needs."""
    scale, line_height, width = 0.5, 22, image.shape[1]
    lines = [""]
    for word in _ascii(text, None).split():
        longer = f"{lines[-1]} {word}".strip()
        too_long = lines[-1] and cv2.getTextSize(longer, FONT, scale, 1)[0][0] > width - 24
        lines = [*lines, word] if too_long else [*lines[:-1], longer]
    strip = np.full((len(lines) * line_height, width, 3), BACKGROUND, dtype=np.uint8)
    for number, line in enumerate(lines, start=1):
        cv2.putText(strip, line, (12, number * line_height - 5), FONT, scale, INK, 1, cv2.LINE_AA)
    return np.concatenate((strip, image))


def fit_longer_side(image: np.ndarray, boxes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ``image`` with its longer side resized to ``size`` pixels, and ``boxes`` (N, 4) scaled with it."""
    ratio = size / max(image.shape[:2])
    height, width = (max(round(side * ratio), 1) for side in image.shape[:2])
    method = cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC
    scale = np.array([width / image.shape[1], height / image.shape[0]] * 2)
    return cv2.resize(image, (width, height), interpolation=method), np.asarray(boxes).reshape(-1, 4) * scale


def _label(image: np.ndarray, text: str, x: int, y: int, color: Color, scale_side: int | None = None) -> None:
    """Write ``text`` in place on a background of ``color`` above the corner (x, y), or below it if there is no space."""
    height, width = image.shape[:2]
    scale, thickness = _font(scale_side or min(height, width), text, width)
    (text_width, text_height), below = cv2.getTextSize(text, FONT, scale, thickness)
    pad = max(text_height // 4, 1)
    box_width, box_height = text_width + 2 * pad, text_height + below + pad
    left = min(max(x, 0), max(width - box_width, 0))
    top = y - box_height if y >= box_height else y
    top = min(max(top, 0), max(height - box_height, 0))
    cv2.rectangle(image, (left, top), (left + box_width - 1, top + box_height - 1), color, cv2.FILLED)
    bright = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140
    text_color = (0, 0, 0) if bright else (255, 255, 255)
    cv2.putText(image, text, (left + pad, top + pad + text_height), FONT, scale, text_color, thickness, cv2.LINE_AA)


def _font(size: int, text: str, limit: int) -> tuple[float, int]:
    """Return font scale and stroke width for an image with shorter side ``size``, so that ``text`` fits ``limit`` pixels."""
    scale = max(size / 1100, 0.38)
    (width, height), _ = cv2.getTextSize(text, FONT, scale, 1)
    scale *= min(1.0, limit / max(width + height, 1))
    return scale, max(round(scale * 1.4), 1)


def _caption(strip: np.ndarray, text: str) -> None:
    """Write ``text`` in place into ``strip`` (H, W, 3), a view of the sheet."""
    text = _ascii(text, None)
    scale, thickness = _font(round(strip.shape[0] * 24), text, strip.shape[1])
    written = np.ascontiguousarray(strip)
    cv2.putText(written, text, (2, round(strip.shape[0] * 0.72)), FONT, scale, INK, thickness, cv2.LINE_AA)
    strip[:] = written


def _ascii(text: str, label: int | None) -> str:
    """Return ``text`` in ASCII, the letters of OpenCV's font: without accents; names in other scripts become "class 3"."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return letters if letters.strip() or label is None else f"class {label}"
