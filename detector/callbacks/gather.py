"""Collect what every process has on rank 0."""

from typing import Any, TypeVar

import lightning as L
import torch

Value = TypeVar("Value")


def gather(value: Value, trainer: L.Trainer) -> list[Value]:
    """Return the ``value`` of every rank, in the order of the ranks, on rank 0; an empty list on the others.

    All ranks must call it.
    """
    if trainer.world_size == 1:
        return [value]
    values: list[Any] | None = [None] * trainer.world_size if trainer.is_global_zero else None
    torch.distributed.gather_object(value, values, dst=0)
    return values or []
