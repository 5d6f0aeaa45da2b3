"""The names of a run's files: older runs, and users' scripts, go by them."""

from pathlib import Path

from detector.runs.folder import (
    CONFIG,
    RECORD,
    evaluation_file,
    ground_truth_file,
    metrics_files,
    metrics_folder,
    numbered,
    numbered_files,
    predictions_file,
    sheet_file,
)


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
