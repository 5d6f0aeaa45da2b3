"""The names of a run's files, which older runs and users' scripts have too, and the folder of a new run."""

import ast
from pathlib import Path
from typing import Any

import pytest

from detector.runs import folder
from detector.runs.folder import (
    CONFIG,
    RECORD,
    evaluation_file,
    evaluation_folder,
    ground_truth_file,
    metrics_files,
    metrics_folder,
    numbered,
    numbered_files,
    predictions_file,
    sheet_file,
    training_folder,
)


def test_no_other_file_spells_the_names() -> None:
    """Except for predictions.json of the predict command, the template report.html, and the figures of the docs."""
    root = Path(__file__).parents[3]
    constants = {value for name, value in vars(folder).items() if name.isupper()}
    names = {*constants, *(name(split) for name in (predictions_file, ground_truth_file) for split in ("val", "test"))}
    others = {root / "detector/runs/folder.py", root / "detector/predict/folder.py", root / "detector/report/content.py"}
    others.add(root / "benchmarks/figure_files.py")
    for path in {*root.glob("*.py"), *root.glob("detector/**/*.py"), *root.glob("benchmarks/*.py")} - others:
        strings = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not strings & names, path


def test_names_of_the_files_of_an_evaluation() -> None:
    assert predictions_file("val") == "predictions.json"
    assert predictions_file("val", "one2many") == "predictions_one2many.json"
    assert predictions_file("test") == "predictions_test.json"
    assert predictions_file("test", "one2many") == "predictions_test_one2many.json"
    assert [ground_truth_file(split) for split in ("val", "test")] == ["ground_truth.json", "ground_truth_test.json"]
    assert [evaluation_file(split) for split in ("val", "test")] == ["evaluation.yaml", "evaluation_test.yaml"]
    assert [sheet_file(split) for split in ("val", "test")] == ["val_predictions.jpg", "test_predictions.jpg"]


def test_every_start_has_files_of_its_own_and_they_are_read_in_order(tmp_path: Path) -> None:
    assert [numbered(name, start) for name in (CONFIG, RECORD) for start in (1, 2)] == [
        "config.yaml",
        "config-2.yaml",
        "run.json",
        "run-2.json",
    ]
    names = [numbered(CONFIG, start) for start in (1, 2, 10)]
    for name in [*reversed(names), "config-old.yaml", "configs.yaml", "config-2.yaml.bak"]:
        (tmp_path / name).touch()
    assert [path.name for path in numbered_files(tmp_path, CONFIG)] == names
    assert numbered_files(tmp_path, RECORD) == []


def test_metrics_are_read_in_the_order_of_the_starts(tmp_path: Path) -> None:
    assert [metrics_folder(start) for start in (1, 2)] == ["", "resumed-2"]
    paths = [tmp_path / metrics_folder(start) / "metrics.csv" for start in (1, 2, 10)]
    for path in reversed(paths):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert metrics_files(tmp_path) == paths
    paths[0].unlink()
    assert metrics_files(tmp_path) == paths[1:]


def settings(**changes: Any) -> dict[str, Any]:
    """The settings that decide on the folder of a training."""
    return {
        "ckpt_path": None,
        "run_dir": None,
        "trainer": {"default_root_dir": None},
        "model": {"variant": "dyn_n"},
    } | changes


def test_a_training_gets_the_folder_that_it_asks_for_or_the_next_free_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert training_folder(settings()) == Path("runs/dyn_n")
    assert training_folder(settings(), "pretrain_") == Path("runs/pretrain_dyn_n")
    assert training_folder(settings(run_dir="mine"), "pretrain_") == Path("mine")
    assert training_folder(settings(trainer={"default_root_dir": "elsewhere"})) == Path("elsewhere")
    for name in ("mine", "mine-2"):
        Path(name).mkdir()
        assert training_folder(settings(run_dir=name)) == Path(name)  # an empty folder is free
        Path(name, "last.ckpt").touch()
    assert training_folder(settings(run_dir="mine")) == Path("mine-3")
    assert training_folder(settings(ckpt_path="mine/last.ckpt")) == Path("mine")
    assert training_folder(settings(ckpt_path="mine-2/last.ckpt", run_dir="mine")) == Path("mine-2")


def test_an_evaluation_never_gets_the_folder_of_a_training(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    for training in (run, other):
        training.mkdir()
        (training / RECORD).touch()
    best = run / "best.ckpt"
    assert evaluation_folder(best, "val", None) == run / "eval_val"
    assert evaluation_folder(best, "test", str(run)) == run / "eval_test"
    assert evaluation_folder(best, "val", str(other)) == run / "eval_val"
    assert evaluation_folder(best, "val", str(tmp_path / "new")) == tmp_path / "new"
    assert evaluation_folder(run / "official.pt", "val", None) == run / "eval_val_official"


def test_a_folder_that_cannot_be_written_to_is_refused_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for run_dir in ("file", "file/run"):
        with pytest.raises(ValueError, match=r"--run_dir .*file is a file; give a folder"):
            training_folder(settings(run_dir=str(tmp_path / run_dir)))
    with pytest.raises(ValueError, match="file is a file"):
        evaluation_folder(tmp_path / "best.ckpt", "val", str(tmp_path / "file"))
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # tests may run as root, who may write anywhere
    with pytest.raises(ValueError, match=r"no permission to write into .*; give another folder"):
        training_folder(settings(run_dir=str(tmp_path / "new/run")))
