"""Transforms of one's own, large JPEG images, and the command ``python -m data`` on the tiny set."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
import yaml

from data.__main__ import main
from data.coco import read_coco
from data.reader import ImageReader
from tests.conftest import write_coco

# All generators that a transform of one's own may draw a number below 256 from.
SOURCES: dict[str, Callable[[A.BasicTransform], Any]] = {
    "self.py_random": lambda transform: transform.py_random.randrange(256),
    "self.random_generator": lambda transform: transform.random_generator.integers(256),
    "random": lambda _: random.randrange(256),
    "np.random": lambda _: np.random.randint(256),  # noqa: NPY002
    "torch": lambda _: torch.randint(256, ()),
    "cv2": lambda _: cv2.randu(np.zeros(1, np.uint8), 0, 256)[0],
}


class Draws(A.ImageOnlyTransform):
    """Writes a number of each generator into the first row of the image."""

    def apply(self, image: np.ndarray, **_: Any) -> np.ndarray:
        image = image.copy()
        image[0, : len(SOURCES)] = np.array([[int(draw(self))] * 3 for draw in SOURCES.values()])
        return image


@pytest.fixture
def own_transforms(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The entries of a configuration that name ``Draws``, inside of containers."""
    monkeypatch.setattr(A, "Draws", Draws, raising=False)
    draws = {"OneOf": {"transforms": [{"Draws": {"p": 1}}], "p": 1}}
    return [{"SomeOf": {"transforms": [{"Sequential": {"transforms": [draws], "p": 1}}], "n": 1, "p": 1}}]


@pytest.fixture
def large_images(tmp_path: Path) -> ImageReader:
    """Images much larger than the input, as JPEG, each with a bright rectangle that has soft edges."""
    sizes = [(257, 385), (256, 384), (511, 300), (130, 131), (64, 64), (1000, 777)]
    images = [(h, w, [(7, round(w * 0.6), round(h * 0.55), round(w * 0.3), round(h * 0.35))]) for h, w in sizes]
    write_coco(tmp_path, "train", images, first_id=1)
    path = tmp_path / "annotations/train.json"
    path.write_text(path.read_text().replace(".png", ".jpg"))
    for number, (h, w, [(_, x, y, bw, bh)]) in enumerate(images):
        image = np.full((h, w, 3), 114, np.float32)
        image[y : y + bh, x : x + bw] = 230
        image = cv2.GaussianBlur(image, (0, 0), max(h, w) / 100)
        cv2.imwrite(
            str(tmp_path / f"images/train/image_{number}.jpg"), image.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 98]
        )
    return ImageReader(read_coco(path, tmp_path / "images/train"), "raise")


@pytest.fixture
def config(tiny_arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments that name a configuration file of the tiny set. The file also has sections that are not about the data."""
    monkeypatch.chdir(tmp_path)
    content = {"trainer": {"max_epochs": 2}, "model": {"variant": "dyn_n"}, "data": tiny_arguments, "seed_everything": 3}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    return ["--config", "tiny.yaml"]


@pytest.fixture
def check(config: list[str], capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str]]:
    """A function that runs ``python -m data check`` on the tiny set; it returns the exit status and the output."""

    def run(*extra: str) -> tuple[int, str]:
        status = main(["check", *config, *extra])
        return status, capsys.readouterr().out

    return run
