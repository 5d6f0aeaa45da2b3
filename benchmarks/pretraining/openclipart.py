"""Drawings by topic from Debian's package openclipart-png (public domain), as images for classification.

The package is fetched by its name, unpacked into a folder that git ignores, and never committed. A class is a topic: a
folder with MIN_DRAWINGS drawings or more of its own. Topics that have others below them (food, beside food/fruit) are left
out, because they overlap. So are EXCLUDED. Links are other names of drawings, and not counted.
"""

import hashlib
import re
import subprocess
import tempfile
from pathlib import Path

import cv2
import numpy as np

PACKAGE = "openclipart-png"
DRAWINGS = Path("usr/share/openclipart/png")  # in the unpacked package
LICENSE = "public domain"
MIN_DRAWINGS = 20
EXCLUDED = r"unsorted|recreation/games/cards(/.*)?"  # no topic; playing cards are what one of the detectors' sets shows
STRIP = 256  # rows put on white at a time: the largest drawing has 623 megapixels, which are 15 GB as floats
MARGIN = 0.04  # of the side, around a drawing


def fetch(folder: Path, package: Path | None = None) -> Path:
    """Unpack the package into ``folder`` unless it is there; return the folder of its drawings.

    ``package`` is a file that was downloaded before; by default ``apt-get`` downloads it (131 MB). Raises ValueError if that
    is not possible, as on a system other than Debian.
    """
    drawings = folder / DRAWINGS
    if drawings.is_dir():
        return drawings
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            package = package.resolve() if package else _download(Path(temporary))
            subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(
            f"cannot get {PACKAGE}: {error}. Download the file of this name from a Debian mirror (pool/main/o/openclipart) "
            "and give it as --package, or choose the labeled set single_shapes"
        ) from None
    return drawings


def _download(folder: Path) -> Path:
    subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True)
    return next(folder.glob("*.deb"))


def topics(drawings: Path) -> dict[str, list[Path]]:
    """Return the drawings of each topic, in an order that has nothing to do with their names: by a hash of their paths."""
    own: dict[str, list[Path]] = {}
    for path in drawings.rglob("*.png"):
        if not path.is_symlink():
            own.setdefault(path.parent.relative_to(drawings).as_posix(), []).append(path)
    large = {name: paths for name, paths in own.items() if len(paths) >= MIN_DRAWINGS}
    parents = {name for name in large if any(other.startswith(f"{name}/") for other in large)}
    names = [name for name in sorted(large) if name not in parents and not re.fullmatch(EXCLUDED, name)]
    return {name: sorted(large[name], key=lambda path: _hash(path.relative_to(drawings))) for name in names}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.as_posix().encode()).hexdigest()


def read_drawing(path: Path, side: int) -> np.ndarray:
    """Return a drawing on white, in the middle of a square: (side, side, 3) uint8, BGR."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(f"{path}: cannot be read; remove the folder of the unpacked package, so that it is unpacked anew")
    image = _on_white(image)
    height, width = image.shape[:2]
    factor = side * (1 - 2 * MARGIN) / max(height, width)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    square = np.full((side, side, 3), 255, np.uint8)
    square[top : top + size[1], left : left + size[0]] = image
    return square


def _on_white(image: np.ndarray) -> np.ndarray:
    """Return an image of 8 or 16 bits, gray or colored, with or without alpha, as (H, W, 3) uint8, BGR, on white."""
    if image.dtype == np.uint16:
        image = (image // 257).astype(np.uint8)
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if image.shape[2] == 3:
        return image
    colors = np.empty((*image.shape[:2], 3), np.uint8)
    for top in range(0, len(image), STRIP):
        strip = image[top : top + STRIP]
        alpha = strip[:, :, 3:].astype(np.float32) / 255
        colors[top : top + STRIP] = (strip[:, :, :3] * alpha + 255 * (1 - alpha)).round()
    return colors
