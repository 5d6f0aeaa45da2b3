"""Loss, top-1 and top-5 of a validation, exact over all processes."""

import numpy as np
import torch
from torch import Tensor

from detector.evaluation.classification import TOP, ranks


class TopClasses:
    """Collects loss and rank of the right class for each image, over all batches of this process."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []  # (B, 3) float64: number of the image, loss, rank

    def clear(self) -> None:
        """Forget all images."""
        self._rows = []

    def add(self, indices: Tensor, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: numbers of the images (B,), losses (B,), logits (B, C), and right classes (B,)."""
        columns = (indices, losses.detach(), ranks(logits.detach(), labels))
        self._rows.append(torch.stack([column.cpu().double() for column in columns], dim=1))

    def metrics(self, prefix: str) -> dict[str, float]:
        """Return loss, top1 and top5 over all images of all processes, under names with ``prefix``.

        An image that was evaluated twice counts once. All processes must call this. Empty if there are no images.
        """
        rows = torch.cat([torch.zeros(0, 3, dtype=torch.float64), *_of_all_processes(self._rows)])
        if not len(rows):
            return {}
        _, first = np.unique(rows[:, 0].numpy(), return_index=True)
        _, losses, places = rows[torch.from_numpy(first)].unbind(dim=1)
        top = {"loss": losses, "top1": places < 1, f"top{TOP}": places < TOP}
        return {f"{prefix}/{name}": values.double().mean().item() for name, values in top.items()}


def _of_all_processes(rows: list[Tensor]) -> list[Tensor]:
    if not torch.distributed.is_initialized():
        return rows
    of_ranks: list[list[Tensor]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(of_ranks, rows)
    return [batch for rows_of_rank in of_ranks for batch in rows_of_rank]
