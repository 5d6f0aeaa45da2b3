"""Write checkpoints atomically."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from detector.files import atomic_write


class AtomicCheckpointIO(TorchCheckpointIO):
    """Saves a checkpoint beside its path and renames it: a process that is killed leaves the old or the new file, whole.

    Lightning's own plugin writes into the temporary folder, and moves the file. If that is another file system, moving is
    copying. It also holds the whole file in memory.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save ``checkpoint`` in place of the file at ``path``; the old file stays if that fails, as on a full disk."""
        if "://" in str(path):  # not a local file
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with atomic_write(Path(path)) as unfinished, unfinished.open("wb") as file:
            torch.save(checkpoint, file)
