"""The notebooks run from their first to their last cell, and are stored without outputs."""

import contextlib
import io
import json
import re
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

import train
from benchmarks.compare.trainings import Run, TrainPy
from detector import load_detector
from tests.resuming import TINY

DOCS = Path(__file__).parents[1] / "docs"
OWN_BLOCK, TOUR = DOCS / "your-own-block.ipynb", DOCS / "tour.ipynb"
SMALL = {"NUM_TRAIN": 4, "NUM_VAL": 2, "IMAGE_SIZE": 32, "BATCH_SIZE": 4, "NUM_WORKERS": 0, "EPOCHS": 1, "SEEDS": [0, 1]}
MODEL = {"variant": "yolo26_n", "overrides": TINY}


def cells(notebook: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == kind]


def train_here(trainer: TrainPy, run: Run, program: str, arguments: list[str]) -> None:
    """Train the first seed in this process, which has imported everything, and copy its run for the other seed."""
    assert program == "train.py"
    first, *_ = SMALL["SEEDS"]
    if run.seed == first:
        train.main(arguments)
    else:
        trained = replace(run, name=f"{run.arm}_s{first}")
        shutil.copytree(trainer.folder(trained), trainer.folder(run))


def run_cells(notebook: Path, **parameters: Any) -> str:
    """Run the cells of code in one namespace, with ``parameters`` in place of their own, and return what they print."""
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for cell in cells(notebook, "code"):
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
            if "parameters" in cell["metadata"].get("tags", ()):
                assert parameters.keys() <= names.keys()
                names |= parameters
    return printed.getvalue()


@pytest.mark.filterwarnings("ignore")
def test_the_notebook_compares_an_own_block_and_reads_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(TrainPy, "_call", train_here)
    printed = run_cells(OWN_BLOCK, **SMALL, MODEL=MODEL, COSTS=False)
    plt.close("all")
    sys.modules.pop("large_kernel")
    row = r"backbone\.stage_p2\.blocks\.0\.conv1\.conv +Conv2d +LargeKernel +8x8x8 +1,152 -> 1,952 "
    assert re.search(row, printed)
    equal, number, new = re.search(r"(\d+) of (\d+) tensors .*; (\d+) are new", printed).groups()
    assert equal == number
    assert int(new) == 2 * 12  # weight and bias of a convolution in 12 places
    assert re.search(r"^mine: .* pairs?\)\.|^mine: no difference to plain shown", printed, flags=re.M)
    assert re.search(r"^mine - plain: \S+ AP, between \S+ and \S+, from 2 pairs$", printed, flags=re.M)


@pytest.mark.filterwarnings("ignore")
def test_the_tour_shows_what_its_text_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sizes = {"IMAGE_SIZE": 64, "BATCH_SIZE": 4, "NUM_TRAIN": 8, "NUM_VAL": 4, "EPOCHS": 1}
    printed = run_cells(TOUR, FOLDER=tmp_path, OVERRIDES=TINY, **sizes)
    plt.close("all")
    assert "anchors: 84 = 8 x 8 + 4 x 4 + 2 x 2" in printed
    assert "equal at the start: True" in printed
    positives = {name: json.loads(counts) for name, counts in re.findall(r"(\w+): positive anchors .*: (\[.*\])", printed)}
    assert set(positives["one2one"]) == {1}
    assert max(positives["one2many"]) > 1
    assert "one2one: gradient in the backbone: False\none2many: gradient in the backbone: True" in printed
    assert "equal to a convolution for each image: True" in printed
    first, trained = re.findall(r"the kernels of two images differ by (\d+\.\d+)%", printed)
    assert float(first) > 0
    assert float(trained) > 0
    assert len(re.findall(r"^one2\w+: \d+ of \d+ objects found; boxes of an object: ", printed, flags=re.M)) == 2
    assert load_detector(tmp_path / "tour.ckpt").class_names == ["square", "disc", "triangle"]


def test_the_tour_is_made_from_its_script() -> None:
    made = runpy.run_path(str(DOCS / "notebook.py"))
    text = made["as_text"](made["notebook"]((DOCS / "tour.py").read_text()))
    assert TOUR.read_text() == text, "run python docs/notebook.py"


@pytest.mark.parametrize("notebook", [OWN_BLOCK, TOUR], ids=lambda path: path.name)
def test_a_notebook_has_no_outputs_and_its_links_exist(notebook: Path) -> None:
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells(notebook, "code"))
    text = "\n".join("".join(cell["source"]) for cell in cells(notebook, "markdown"))
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("https:")]
    assert len(links) >= 2
    assert all((DOCS / link.partition("#")[0]).exists() for link in links)
