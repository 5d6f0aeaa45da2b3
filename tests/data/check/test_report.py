"""The page of ``python -m data check``."""

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tests.data.check.test_findings import Edit, faulty_boxes


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
