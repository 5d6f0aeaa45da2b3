"""The temperature of experts' weights: high at the start of a training, so that all experts learn (DyConv, CVPR 2020)."""

import math
from dataclasses import dataclass

from torch import nn

from detector.dynamic.conv2d import dynamic_layers

SHARE = 0.1  # of all steps, in which the temperature falls to 1


@dataclass(frozen=True)
class FallingTemperature:
    """A temperature that falls linearly from ``start`` to 1 in the first tenth of ``num_steps`` optimizer steps.

    It depends on the step only, so a resumed training continues it. Raises ValueError for an endless training.
    """

    start: float
    num_steps: float

    def __post_init__(self) -> None:
        if math.isinf(self.num_steps):
            raise ValueError(
                f"dynamic.temperature is {self.start:g} and falls to 1 in the first tenth of the training, but this "
                "one has no end; give trainer.max_epochs, or leave out the temperature"
            )

    def at(self, step: int) -> float:
        """Return the temperature in optimizer step ``step`` (0-based)."""
        return 1 + (self.start - 1) * max(0.0, 1 - step / (SHARE * self.num_steps))

    def __str__(self) -> str:
        first = math.ceil(SHARE * self.num_steps)
        return f"temperature of the experts' weights: {self.start:g} at first, 1 after {first} of {self.num_steps} steps"


def set_temperature(network: nn.Module, temperature: float) -> None:
    """Set the temperature of the experts' weights in all dynamic layers of ``network``; gates keep theirs."""
    for layer in dynamic_layers(network).values():
        layer.router.temperature = temperature
