"""The page of ``python -m data check``."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.check.findings import Splits
from data.check.report import class_bars
from data.coco import read_coco
from tests.conftest import write_coco
from tests.data.check.test_findings import Edit, faulty_boxes
from tests.detector.imaging.layout import assert_texts_inside


class Tags(HTMLParser):
    """Counts elements, and collects links to other files."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        links = [value or "" for name, value in attrs if name in ("src", "href")]
        self.outside += [link for link in links if not link.startswith(("data:", "#"))]


def test_the_page_is_self_contained_and_shows_plots_and_images(check: Callable, edit_json: Edit) -> None:
    def rename(content: dict[str, Any]) -> None:
        content["categories"][0]["name"] = "<b>red & hot</b>"

    for split in ("train", "val"):
        edit_json(split, rename)
    edit_json("train", faulty_boxes)
    _, report = check("--out", "report")
    assert "look at report/check.html" in report
    assert Path("report/check.txt").read_text().strip() in report
    tags = Tags()
    page = Path("report/check.html").read_text()
    tags.feed(page)
    assert tags.counts["svg"] == 5
    assert tags.counts["img"] >= 8 + 5 + 3
    assert tags.outside == []
    assert "<b>red" not in page
    assert "&lt;b&gt;red &amp; hot" in page


def test_a_set_without_objects_or_splits_has_a_page_too(check: Callable, edit_json: Edit) -> None:
    for split in ("train", "val"):
        edit_json(split, lambda content: content.update(annotations=[]))
    assert check("--quick")[0] == 0
    for split in ("train", "val"):
        edit_json(split, lambda content: content.update(images=[]))
    status, report = check()
    assert status == 1
    assert "lists no images" in report


def splits_of(root: Path, names: list[str], **counts: list[int]) -> Splits:
    """Splits with so many objects of each class."""
    splits = {}
    for split, numbers in counts.items():
        write_coco(root, split, [(64, 64, [])], first_id=1)
        path = root / "annotations" / f"{split}.json"
        content = json.loads(path.read_text())
        labels = np.repeat(np.arange(len(numbers)), numbers).tolist()
        content["categories"] = [{"id": n, "name": name} for n, name in enumerate(names)]
        content["annotations"] = [
            {"id": i, "image_id": 1, "category_id": label, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}
            for i, label in enumerate(labels, start=1)
        ]
        path.write_text(json.dumps(content))
        splits[split] = read_coco(path, root / "images" / split)
    return splits


def test_bars_of_a_single_class_are_as_long_as_their_numbers(tmp_path: Path) -> None:
    plot = class_bars(splits_of(tmp_path, ["cell"], train=[200], val=[50]), ["red", "blue"])
    (axes,) = plot.figure.axes
    assert plot.title == "Objects of the only class"
    assert [bar.get_width() for bar in axes.patches] == [200, 50]
    assert [text.get_text() for text in axes.texts] == ["200", "50"]
    assert not axes.get_xlabel()


def test_bars_have_a_logarithmic_axis_only_where_numbers_differ_a_lot(tmp_path: Path) -> None:
    (linear,) = class_bars(splits_of(tmp_path / "a", ["x", "y", "z"], train=[40, 1, 0]), ["red"]).figure.axes
    assert [bar.get_width() for bar in linear.patches] == [40, 1, 0]
    (axes,) = class_bars(splits_of(tmp_path / "b", ["x", "y", "z"], train=[2000, 2, 0]), ["red"]).figure.axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([np.log10(4000), np.log10(4), 0])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "10", "100", "1,000"]
    assert axes.get_xticks() == pytest.approx(np.log10([2, 20, 200, 2000]))
    assert axes.get_xlabel() == "objects, logarithmic"


@pytest.mark.parametrize("num_classes", [1, 80])
def test_texts_of_class_bars_lie_in_the_figure(tmp_path: Path, num_classes: int) -> None:
    names = [f"猫 and a long name of a class, number {n}" for n in range(num_classes)]
    assert_texts_inside(class_bars(splits_of(tmp_path, names, train=[3] * num_classes), ["red"]).figure)
