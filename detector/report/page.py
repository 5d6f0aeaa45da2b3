"""HTML pages that need no other file: jinja2 templates that escape all text, images inside, no scripts."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from detector.imaging.plot_files import inline_svg

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Table:
    """Text in rows; the first cell of a row is its header."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]] = field(default_factory=list)


@dataclass(frozen=True)
class CaptionedImage:
    """An image (H, W, 3) uint8 RGB and its caption; None if it cannot be shown."""

    caption: str
    pixels: np.ndarray | None


def render(template: str, *folders: Path, **content: Any) -> str:
    """Return the page of a template in ``folders`` or in TEMPLATES, filled with ``content``."""
    loader = FileSystemLoader([*folders, TEMPLATES])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"svg": inline_svg, "jpeg": _jpeg, "png": _png}
    return environment.get_template(template).render(content)


def _jpeg(image: np.ndarray) -> str:
    """Return ``image`` (H, W, 3) uint8 RGB as the source of an image element."""
    _, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])  # RGB to BGR
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()


def _png(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
