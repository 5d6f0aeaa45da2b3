"""A small set of class folders: flat images, whose brightest channel is the number of their class."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

CLASSES = ("blue", "gréen", "red")  # in the order of their labels
CHANNELS = {"blue": 0, "gréen": 1, "red": 2}  # OpenCV's order, so label n is brightest in channel 2 - n of RGB


def write_image(path: str | bytes | Path, color: tuple[int, int, int], side: int = 40, mark: int = 0) -> None:
    """Write a PNG file of one color (BGR); ``mark`` makes its content differ from others of the color."""
    image = np.full((side, side + 8, 3), color, np.uint8)
    image[0, 20:28] = mark  # in the middle of the upper edge
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(os.fsdecode(path)).write_bytes(cv2.imencode(".png", image)[1].tobytes())


def write_class(folder: Path, name: str, num_images: int, first_mark: int = 1) -> None:
    """Write images of a class; every third one is in a folder of its own, two levels deeper."""
    color = [40, 40, 40]
    color[CHANNELS.get(name, 0)] = 220
    for n in range(num_images):
        path = folder / name / ("series/of 2024" if n % 3 == 2 else ".") / f"{n}.png"
        write_image(path, tuple(color), mark=first_mark + n)


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a set with 4 training and 2 validation images of each of 3 classes. Not to be changed."""
    root = tmp_path_factory.mktemp("class_folders")
    for name in CLASSES:
        write_class(root / "train", name, 4)
        write_class(root / "val", name, 2, first_mark=100)
    return root


@pytest.fixture(scope="session")
def class_arguments(class_folders: Path) -> dict[str, Any]:
    """Arguments of ImageFolderDataModule for that set: 32 pixels, batches of 4, no worker processes."""
    return {"root": str(class_folders), "image_size": 32, "batch_size": 4, "num_workers": 0}


@pytest.fixture
def class_copy(tmp_path: Path) -> Path:
    """The root of a set of a test's own: 4 training images of each of 3 classes, and no folder for validation."""
    for name in CLASSES:
        write_class(tmp_path / "train", name, 4)
    return tmp_path
