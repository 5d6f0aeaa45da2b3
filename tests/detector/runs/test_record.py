"""What run.json says. That every run has one, tests/test_train.py sees."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from detector.runs.record import git_state, gpus


def test_code_within_a_repository_that_it_is_not_part_of_has_no_state(tmp_path: Path) -> None:
    """As packages in a project's .venv: that project's commit says nothing about them."""
    (tmp_path / ".gitignore").write_text(".venv/\n")
    (own := tmp_path / "code").mkdir()
    (foreign := tmp_path / ".venv" / "detector").mkdir(parents=True)
    for folder in (own, foreign):
        (folder / "a.py").write_text("")
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], [*name, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    (own / "a.py").write_text("changed")
    state = git_state(own)
    assert state is not None
    assert len(state["commit"]) == 40
    assert state["changed"] == [" M code/a.py"]
    assert git_state(foreign) is None
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
