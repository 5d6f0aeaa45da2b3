"""The study files of the project: they are read, their arms are accepted by train.py, and pages have their tables."""

import csv
import sys
from pathlib import Path

import pytest

from benchmarks.compare.networks import arguments_of
from benchmarks.compare.pipeline import show_results
from benchmarks.compare.study import Study, read_study
from benchmarks.compare.tables import make_tables, markdown
from benchmarks.compare.trainings import call_hook
from tests.docs_commands import ParsedTraining

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "benchmarks/studies").glob("*.yaml"))


def tables(name: str) -> list[str]:
    study = read_study(ROOT / f"benchmarks/studies/{name}.yaml")
    results = show_results(study, ROOT / f"benchmarks/results/{name}.json")
    return [markdown(titled.table) for titled in make_tables(results)]


def test_the_tables_of_the_pages_come_from_studies() -> None:
    dynamic, results = ((ROOT / "docs" / page).read_text() for page in ("dynamic-conv.md", "results.md"))
    assert all(table in dynamic for table in tables("placement"))
    assert tables("placement_reasons")[0] in dynamic
    assert tables("bccd")[0] in results


def test_the_published_differences_are_those_of_the_old_script() -> None:
    """The table of 2026-11-24, by a script with a table of quantiles, with all seeds and without seed 0."""
    _, differences, chosen = tables("placement")
    assert "| all, softmax | 5 | +0.013 ± 0.014 | +0.017 ± 0.016 * | +0.011 ± 0.008 * | +0.014 ± 0.007 * |" in differences
    assert "| pointwise, sigmoid | 4 | +0.016 ± 0.052 | +0.025 ± 0.045 | +0.014 ± 0.016 | +0.016 ± 0.031 |" in chosen


@pytest.mark.parametrize("study", map(read_study, STUDIES), ids=[path.stem for path in STUDIES])
def test_train_py_accepts_one_arm_of_every_study(study: Study) -> None:
    arm = list(study.arms)[-1]
    config = ParsedTraining(arguments_of(study.part(arm, next(iter(study.data))))).config
    assert config["model"]["variant"] in ("yolo26_n", "dyn_n")


def test_the_hook_of_a_study_reads_the_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    columns = ["epoch", "routing/a/variation", "routing/b/variation", "routing/b/entropy"]
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, [0, 0.5, 0.5, 1], [1, 0.1, 0.3, 1], [1, "", "", ""]])
    numbers = call_hook("routing_variation:mean_variation", ROOT / "benchmarks/studies", tmp_path / "last.ckpt", tmp_path)
    assert numbers == {"routing varies by": pytest.approx(0.2)}
