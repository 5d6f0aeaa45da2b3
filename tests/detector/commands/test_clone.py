"""``detector train``: the programs of a clone as commands."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from detector.__main__ import main
from detector.commands import clone
from detector.commands.clone import NEEDED, PROGRAMS, find_clone, interpreter_options, no_clone_message

TRAIN = PROGRAMS[0]
ROOT = Path(__file__).parents[3]


def make_clone(folder: Path, program: str = "") -> Path:
    """Write the files of a clone, with ``program`` as train.py."""
    for name in NEEDED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "train.py").write_text(program)
    return folder


@pytest.fixture
def no_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory outside of any clone, with a package that is not part of one."""
    monkeypatch.setattr(clone, "__file__", str(tmp_path / "site-packages" / "detector" / "commands" / "clone.py"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_every_program_is_a_file_of_the_repository() -> None:
    assert [program.file for program in PROGRAMS if find_clone(program) != ROOT] == []
    assert all((ROOT / program.file).is_file() for program in PROGRAMS)


def test_a_clone_is_found_from_its_folders_and_by_its_package(no_clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_clone(TRAIN) is None
    (no_clone / "train.py").touch()  # a program of the user's own
    assert find_clone(TRAIN) is None
    installed = make_clone(no_clone.parent / "editable")
    monkeypatch.setattr(clone, "__file__", str(installed / "detector" / "commands" / "clone.py"))
    assert find_clone(TRAIN) == installed
    near = make_clone(no_clone / "near")
    (near / "runs").mkdir()
    monkeypatch.chdir(near / "runs")
    assert find_clone(TRAIN) == near


def test_without_a_clone_the_command_says_how_to_get_one(no_clone: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--config", "a.yaml"])
    message = str(stop.value)
    assert message.startswith("error: detector train runs train.py of a clone, and there is none around ")
    for part in ("git clone ", "pip install -e .\n", "    detector train --config a.yaml\n", "docs/python.md"):
        assert part in message
    assert main(["train", "--help"]) == 0
    assert capsys.readouterr().out.strip() == no_clone_message(TRAIN, [])


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("import sys; print(*sys.argv); sys.exit(3)", 3),
        ("import os, signal, sys; print(*sys.argv, flush=True); os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    ],
)
def test_the_program_has_the_arguments_and_its_end_is_that_of_the_command(
    program: str, status: int, no_clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clone(no_clone, program)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-u", "-m", "detector", "train", "--a", "b c"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (status, "train.py --a b c\n"), done.stderr


@pytest.mark.parametrize(
    ("started_with", "arguments", "options"),
    [
        (["python", "-u", "-m", "detector", "train"], 2, ["-u"]),
        (["python", "-W", "ignore", "-m", "detector", "train", "--a", "b"], 4, ["-W", "ignore"]),
        (["python", "-u", "-c", "main()"], 1, ["-u"]),
        (["python", "/bin/detector", "train"], 2, []),
    ],
)
def test_options_of_the_interpreter_are_kept(
    started_with: list[str], arguments: int, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", started_with)
    monkeypatch.setattr(sys, "argv", started_with[-arguments:])
    assert interpreter_options() == options
