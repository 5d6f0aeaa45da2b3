"""The schedule of a training, worked out from its description (YOLO26, arXiv:2606.03748), without code of the detector."""

import math


def branch_share(epoch: int, epochs: int) -> float:
    """Return the weight of the one-to-many branch in the loss of ``epoch`` (0-based), of ``epochs``."""
    return 0.1 + 0.7 * max(1 - epoch / max(epochs - 1, 1), 0)


def warmed_up(start: float, end: float, done: float, epochs: int, warmup_epochs: float = 3.0) -> float:
    """Return the value between ``start`` and ``end`` after ``done`` epochs; the warm-up ends before the last epoch."""
    length = min(warmup_epochs, epochs - 1)
    return end if done >= length else start + (end - start) * done / length


def learning_rate(
    epoch: int,
    done: float,
    epochs: int,
    lr: float = 0.01,
    final_lr_ratio: float = 0.01,
    lr_decay: str = "linear",
    start: float = 0.0,
    warmup_epochs: float = 3.0,
) -> float:
    """Return the learning rate in ``epoch`` (0-based) after ``done`` epochs; ``start`` is that of the first batch."""
    left = 1 - epoch / epochs if lr_decay == "linear" else (1 + math.cos(math.pi * epoch / epochs)) / 2
    return warmed_up(start, lr * (left * (1 - final_lr_ratio) + final_lr_ratio), done, epochs, warmup_epochs)
