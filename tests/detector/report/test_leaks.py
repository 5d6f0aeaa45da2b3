"""The note on evaluated images that train has, too."""

import json
from pathlib import Path

import pytest

from detector.commands.report import analyze_branches
from detector.report.leaks import leak_notes
from detector.report.run_folder import read_run
from tests.detector.report.cases import rows, truth
from tests.detector.report.runs import write_run

UNTRUE = "so its AP, 0.505, is not that of unseen images"


@pytest.mark.parametrize(("shared", "note"), [
    ([1], f"1 image of 2 in val is also in train (1.png), {UNTRUE}: without them it is 0.000."),
    ([2], f"1 image of 2 in val is also in train (2.png), {UNTRUE}: without them it is 1.000."),
    ([1, 2], f"2 images of 2 in val are also in train (1.png, 2.png), {UNTRUE}."),
    (None, None),
])  # fmt: skip
def test_shared_images_are_named_with_the_ap_of_the_others(tmp_path: Path, shared: list[int] | None, note: str) -> None:
    """The object of image 1 is found, that of image 2 is not: AP is 51 of the 101 recalls of pycocotools."""
    content = truth((1, 1, [0, 0, 20, 20]), (2, 1, [0, 0, 20, 20]))
    run_folder = write_run(tmp_path / "run", content, rows((1, 1, [0, 0, 20, 20], 0.9)), None)
    path = run_folder / "ground_truth.json"
    written = json.loads(path.read_text())
    path.write_text(json.dumps(written | {"info": {} if shared is None else {"also_in_train": shared}}))
    run = read_run(run_folder, None)
    notes = leak_notes(run, analyze_branches(run)[0])
    assert [text.partition(" python -m data")[0] for text in notes] == ([] if note is None else [note])
