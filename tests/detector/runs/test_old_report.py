"""A report of earlier results is renamed, and never replaced."""

from pathlib import Path

from detector.runs.old_report import set_aside_message, set_aside_report


def test_report_and_figures_are_renamed_together(tmp_path: Path) -> None:
    assert set_aside_report(tmp_path) == {}
    for content in ("first", "second", "third"):
        (tmp_path / "report.html").write_text(content)
        (tmp_path / "figures").mkdir()
        (tmp_path / "figures" / "ap.png").write_text(content)
        (tmp_path / "suspect_labels.json").write_text(content)
        renamed = set_aside_report(tmp_path)
    assert [path.name for path in renamed.values()] == ["report-old-3.html", "figures-old-3", "suspect_labels-old-3.json"]
    assert not (tmp_path / "suspect_labels.json").exists()
    assert sorted(path.name for path in tmp_path.glob("report*")) == [
        "report-old-2.html",
        "report-old-3.html",
        "report-old.html",
    ]
    assert (tmp_path / "report-old-2.html").read_text() == (tmp_path / "figures-old-2" / "ap.png").read_text() == "second"
    message = set_aside_message(renamed)
    assert "report.html is now report-old-3.html, figures is now figures-old-3" in message
    assert f"python -m detector report {tmp_path}" in message


def test_numbers_of_the_routing_are_renamed_with_a_report_and_without(tmp_path: Path) -> None:
    for names in (["routing.json"], ["report.html", "routing.json"]):
        for name in names:
            (tmp_path / name).touch()
        renamed = set_aside_report(tmp_path)
        assert [path.name for path in renamed] == names
    assert (tmp_path / "routing-old-2.json").exists()
    message = set_aside_message(renamed)
    assert f"python -m benchmarks.routing {tmp_path / 'best.ckpt'}, then python -m detector report {tmp_path}" in message


def test_other_figures_stay(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "report.pdf").touch()
    assert set_aside_report(tmp_path) == {}
    assert (tmp_path / "figures").exists()
