"""Writing checkpoints so that there is always a whole one."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from detector.files import atomic_write


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the file and renames: whenever the process is killed, the file is the old or the new one, whole.

    Lightning's own writes into the temporary folder, from where moving is copying if that is another file system, and holds
    the whole file in memory.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save ``checkpoint``; a file at ``path`` is replaced. If that fails, for want of space say, it stays."""
        if "://" in str(path):  # not a local file
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with atomic_write(Path(path)) as unfinished, unfinished.open("wb") as file:
            torch.save(checkpoint, file)
