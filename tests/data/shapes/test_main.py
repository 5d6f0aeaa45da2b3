"""``python -m data.shapes``."""

from pathlib import Path

import pytest

from data.shapes.__main__ import main


@pytest.mark.parametrize(("num_train", "num_val"), [("--num_train", "--num_val"), ("--num-train", "--num-val")])
def test_command_line(num_train: str, num_val: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also with the old spelling of the options."""
    main(["--root", str(tmp_path / "set"), num_train, "2", num_val, "1", "--seed", "3"])
    assert capsys.readouterr().out.strip() == str(tmp_path / "set")
    assert [len(list((tmp_path / "set" / split).iterdir())) for split in ("train", "val")] == [2, 1]


def test_the_help_shows_no_old_spellings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "--num_train" in text
    assert "--num-train" not in text
