"""Writes sets with XML files of Pascal VOC."""

from pathlib import Path

import cv2
import numpy as np

Box = tuple[str, float, float, float, float]  # class, xmin, ymin, xmax, ymax


def write_image(path: Path, width: int = 40, height: int = 30, shade: int = 0) -> None:
    """Write an image of one color, another one for each ``shade``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), shade, np.uint8))


def voc_xml(*boxes: Box, width: int | None = 40, height: int | None = 30, difficult: int = 0, name: str = "") -> str:
    """Return the text of an XML file; line 1 is the root, line 2 the size, and each object has one more line."""
    size = "" if width is None else f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    lines = [f"<annotation><filename>{name}</filename>", size]
    for label, *corners in boxes:
        box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners))
        part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
        lines.append(f"<object><name>{label}</name>{part}<difficult>{difficult}</difficult><bndbox>{box}</bndbox></object>")
    return "\n".join([*lines, "</annotation>"])


def write_voc(root: Path, number: int = 4, first: int = 0, folders: tuple[str, str] = ("Annotations", "JPEGImages")) -> Path:
    """Write images ``0.png``, ``1.png``, ... from ``first`` on, each with an object of the class cat; return ``root``."""
    for n in range(first, first + number):
        write_image(root / folders[1] / f"{n}.png", shade=10 * n)
        path = root / folders[0] / f"{n}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(voc_xml(("cat", 1, 2, 10 + n, 20)))
    return root


def write_lists(root: Path, **lists: str) -> None:
    """Write lists of images: ``write_lists(root, train="0 1", val="2")``."""
    folder = root / "ImageSets/Main"
    folder.mkdir(parents=True, exist_ok=True)
    for name, names in lists.items():
        (folder / f"{name}.txt").write_text("".join(f"{one}\n" for one in names.split()))
