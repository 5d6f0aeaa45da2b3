"""What a Trainer has, but Lightning does not declare for type checkers."""

from typing import Any

import lightning as L


def callbacks_of(trainer: L.Trainer) -> list[L.Callback]:
    """Return the callbacks of ``trainer`` in their order."""
    return trainer.callbacks  # type: ignore[attr-defined]  # set by one of Lightning's connectors


def data_module_of(trainer: L.Trainer) -> Any:
    """Return the data module of ``trainer``, or None."""
    return trainer.datamodule  # type: ignore[attr-defined]  # set by one of Lightning's connectors
