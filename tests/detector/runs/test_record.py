"""The content of run.json. tests/test_train.py checks that every run has one."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from detector.runs.record import git_state, gpus


def test_code_that_git_ignores_has_no_state(tmp_path: Path) -> None:
    """A package in a project's .venv is not part of the project's commit."""
    (tmp_path / ".gitignore").write_text(".venv/\n")
    (tracked := tmp_path / "code").mkdir()
    (ignored := tmp_path / ".venv" / "detector").mkdir(parents=True)
    for folder in (tracked, ignored):
        (folder / "a.py").write_text("")
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], [*name, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    (tracked / "a.py").write_text("changed")
    state = git_state(tracked)
    assert state is not None
    assert len(state["commit"]) == 40
    assert state["changed"] == [" M code/a.py"]
    assert git_state(ignored) is None
    assert git_state(Path("/")) is None


def test_gpus_are_named_without_starting_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpus() == []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    listed = "GPU 0: NVIDIA A100 (UUID: GPU-1)\nGPU 1: NVIDIA A100 (UUID: GPU-2)\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=listed))
    assert gpus() == ["GPU 0: NVIDIA A100", "GPU 1: NVIDIA A100"]

    def no_program(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", no_program)
    assert gpus() == ["unknown", "unknown"]
