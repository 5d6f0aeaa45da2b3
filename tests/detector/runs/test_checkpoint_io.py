"""Checkpoints stay complete when writing fails."""

from pathlib import Path
from typing import Any

import pytest
import torch

from detector.runs.checkpoint_io import AtomicCheckpointIO


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def full(content: Any, file: Any) -> None:
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    monkeypatch.undo()
    assert AtomicCheckpointIO().load_checkpoint(path, weights_only=True) == {"epoch": 1}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_half_written_checkpoint_has_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed while it writes leaves the old file complete."""
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)
    checkpoints = []
    save = torch.save

    def look(content: Any, file: Any) -> None:
        save(content, file)
        checkpoints.append(torch.load(path, weights_only=True))

    monkeypatch.setattr(torch, "save", look)
    AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    assert checkpoints == [{"epoch": 1}]
    assert torch.load(path, weights_only=True) == {"epoch": 2}
