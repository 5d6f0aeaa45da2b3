"""The set of trees: its tiles have every tree where it is seen, and each tile is in one split."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.get_trees import SCENES, convert

VOC = """<annotation><object><name>Tree</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>
</object></annotation>"""


def test_a_tree_is_in_the_tiles_that_show_enough_of_it(tmp_path: Path) -> None:
    """Of 450 x 224 px there are two tiles, cut at 225. The tree of each scene is cut there, too."""
    spans = [(1, 20), (206, 235), (216, 235), (220, 255)]  # both last columns are part of the tree
    pixels = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "wheel.whl", "w") as archive:
        for name, (left, right) in zip(SCENES, spans, strict=True):
            file = io.BytesIO()
            Image.fromarray(pixels.integers(0, 256, (224, 450, 3), np.uint8)).save(file, "png")
            archive.writestr(f"deepforest/data/{name}.png", file.getvalue())
            archive.writestr(f"deepforest/data/{name}.xml", VOC.format(left, 11, right, 30))
    convert(tmp_path / "wheel.whl", tmp_path / "trees")
    found: dict[str, list[float]] = {}
    for split in ("train", "val"):
        content = json.loads((tmp_path / "trees/annotations" / f"instances_{split}.json").read_text())
        files = {image["id"]: image["file_name"] for image in content["images"]}
        assert {*files.values()} == {path.name for path in (tmp_path / "trees" / split).iterdir()}
        found |= {files[one["image_id"]]: one["bbox"] for one in content["annotations"]}
    boxes = {
        (number, int(file.split("_")[-2])): box
        for file, box in found.items()
        for number, scene in enumerate(SCENES)
        if scene in file
    }
    assert boxes == {
        (0, 0): [0, 10, 20, 20],
        (1, 0): [205, 10, 20, 20],  # two thirds of it; the other tile has one
        (2, 0): [215, 10, 10, 20],  # half of it in each
        (2, 225): [0, 10, 10, 20],
        (3, 225): [0, 10, 30, 20],
    }
