"""The classes of a data.yaml: labels are numbers, whatever the order in which the file names them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data import CocoDataModule
from data.yolo import read_yolo

MAPPINGS = {
    "in order": "{0: red, 1: green, 2: blue}",
    "out of order": "{2: blue, 0: red, 1: green}",
    "descending": "{2: blue, 1: green, 0: red}",
    "quoted": "{'1': green, '2': blue, '0': red}",
    "a list": "[red, green, blue]",
}


def write_set(root: Path, names: str) -> Path:
    """Write a set with one image for each label, whose color is that of its class; return its data.yaml."""
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for label, color in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        Image.new("RGB", (32, 32), color).save(root / f"images/{label}.png")
        (root / f"labels/{label}.txt").write_text(f"{label} 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text(f"{{train: images, val: images, names: {names}}}")
    return root / "data.yaml"


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_labels_are_the_numbers_of_the_names(tmp_path: Path, mapping: str) -> None:
    data = CocoDataModule(str(write_set(tmp_path, MAPPINGS[mapping])), image_size=32, batch_size=3, num_workers=0)
    assert (data.class_names, data.category_ids) == (["red", "green", "blue"], [0, 1, 2])
    assert data.ground_truth("val")["categories"] == [{"id": n, "name": data.class_names[n]} for n in range(3)]
    (batch,) = data.val_dataloader()
    for image, target in zip(batch["images"], batch["targets"], strict=True):
        assert target["labels"].tolist() == [int(image[:, 16, 16].argmax())]


def test_twelve_classes_are_not_sorted_as_text(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).permutation(12).tolist()
    path = write_set(tmp_path, "{" + ", ".join(f"{n}: class {n}" for n in numbers) + "}")
    assert read_yolo(path)["train"].class_names == [f"class {n}" for n in range(12)]


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        ("{0: red, 2: blue}", r"\[0, 2\]; expected 0 to 1, each once .*not used need a name"),
        ("{1: red, 2: green, 3: blue}", r"\[1, 2, 3\]; expected 0 to 2, each once \(labels count the classes from 0"),
        ("{-1: red, 0: green, 1: blue}", r"\[-1, 0, 1\]"),
        ("{0: red, '0': green, 1: blue}", r"\[0, '0', 1\]; expected 0 to 2, each once"),
        ("{no: red, yes: green}", r"\[False, True\]"),  # which Python takes for 0 and 1
        ("{0.0: red, 1.0: green}", r"\[0\.0, 1\.0\]"),
        ("{red: 0, green: 1, blue: 2}", r"\['red', 'green', 'blue'\]"),
    ],
)
def test_other_keys_are_refused(tmp_path: Path, names: str, keys: Any) -> None:
    with pytest.raises(ValueError, match=f"names has the keys {keys}"):
        read_yolo(write_set(tmp_path, names))
