"""Transforms of one's own, large JPEG images, and the command ``python -m data`` on the tiny set."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from data.__main__ import main
from data.coco import read_coco
from data.reader import ImageReader
from tests.conftest import write_coco


@pytest.fixture
def own_transforms() -> list[dict[str, Any]]:
    """The entries of a configuration that name ``Draws``, a transform of one's own, inside of containers."""
    draws = {"OneOf": {"transforms": [{"tests.data.own_transforms.Draws": {"p": 1}}], "p": 1}}
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


@pytest.fixture
def tiny_yolo(tiny_coco: Path) -> Path:
    """The data.yaml of a set with the labels of the tiny COCO set."""
    for split in ("train", "val"):
        content = json.loads((tiny_coco / f"annotations/{split}.json").read_text())
        (tiny_coco / "labels" / split).mkdir(parents=True)
        for image in content["images"]:
            lines = []
            for annotation in content["annotations"]:
                if annotation["image_id"] == image["id"] and not annotation["iscrowd"]:
                    x, y, w, h = annotation["bbox"]
                    label = [7, 22, 90].index(annotation["category_id"])
                    shares = ((x + w / 2) / image["width"], (y + h / 2) / image["height"])
                    lines.append(" ".join(map(repr, (label, *shares, w / image["width"], h / image["height"]))))
            if lines:  # images without objects have no file, as is common
                name = Path(image["file_name"]).with_suffix(".txt")
                (tiny_coco / "labels" / split / name).write_text("\n".join(lines) + "\n")
    path = tiny_coco / "data.yaml"
    names = {0: "red", 1: "green", 2: "blue"}
    path.write_text(yaml.safe_dump({"path": ".", "train": "images/train", "val": "images/val", "names": names, "nc": 3}))
    return path


@pytest.fixture
def edit_yaml(tiny_yolo: Path) -> Callable[..., Path]:
    def edit(**changes: Any) -> Path:
        content = yaml.safe_load(tiny_yolo.read_text()) | changes
        tiny_yolo.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
        return tiny_yolo

    return edit
