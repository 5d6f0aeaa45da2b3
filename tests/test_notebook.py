"""The notebook runs from its first to its last cell, and is stored without outputs."""

import contextlib
import io
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

import train
from benchmarks.compare.trainings import Run, TrainPy
from tests.resuming import TINY

NOTEBOOK = Path(__file__).parents[1] / "docs/your-own-block.ipynb"
SMALL = {"NUM_TRAIN": 4, "NUM_VAL": 2, "IMAGE_SIZE": 32, "BATCH_SIZE": 4, "NUM_WORKERS": 0, "EPOCHS": 1, "SEEDS": [0, 1]}
MODEL = {"variant": "yolo26_n", "overrides": TINY}


def cells(kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def train_here(trainer: TrainPy, run: Run, program: str, arguments: list[str]) -> None:
    """Train the first seed in this process, which has imported everything, and copy its run for the other seed."""
    assert program == "train.py"
    first, *_ = SMALL["SEEDS"]
    if run.seed == first:
        train.main(arguments)
    else:
        trained = replace(run, name=f"{run.arm}_s{first}")
        shutil.copytree(trainer.folder(trained), trainer.folder(run))


def run_cells(**parameters: Any) -> str:
    """Run the cells of code in one namespace, with ``parameters`` in place of their own, and return what they print."""
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for cell in cells("code"):
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
    printed = run_cells(**SMALL, MODEL=MODEL, COSTS=False)
    plt.close("all")
    sys.modules.pop("large_kernel")
    row = r"backbone\.stage_p2\.blocks\.0\.conv1\.conv +Conv2d +LargeKernel +8x8x8 +1,152 -> 1,952 "
    assert re.search(row, printed)
    equal, number, new = re.search(r"(\d+) of (\d+) tensors .*; (\d+) are new", printed).groups()
    assert equal == number
    assert int(new) == 2 * 12  # weight and bias of a convolution in 12 places
    assert re.search(r"^mine: .* pairs?\)\.|^mine: no difference to plain shown", printed, flags=re.M)
    assert re.search(r"^mine - plain: \S+ AP, between \S+ and \S+, from 2 pairs$", printed, flags=re.M)


def test_the_notebook_has_no_outputs_and_its_links_exist() -> None:
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells("code"))
    links = [link for cell in cells("markdown") for link in re.findall(r"\]\(([^)]+)\)", "".join(cell["source"]))]
    assert len(links) >= 2
    assert all((NOTEBOOK.parent / link).exists() for link in links)
