"""Blocks as users write them, good ones and bad ones, for tests of ``replace``."""

import random
from collections.abc import Callable
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from docs.my_blocks import SqueezeExcitation  # noqa: F401, used by its name


class Fresh(nn.Module):
    """A new convolution of the same shapes, made by ``like``; it has parameters of unusual shapes, and an index."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, size, stride, size // 2)
        self.experts = nn.Parameter(torch.randn(2, 1, out_channels, 1, 1))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.tables = nn.ParameterList([torch.zeros(3, 3)])
        self.cls = nn.Linear(out_channels, out_channels)
        self.register_buffer("index", torch.arange(3))
        self.drawn = random.random(), np.random.rand()  # noqa: NPY002  as in much code of users

    @classmethod
    def like(cls, conv: nn.Conv2d, size: int = 3, mode: Literal["a", "b"] = "a") -> Self:
        return cls(conv.in_channels, conv.out_channels, conv.stride[0], size)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x) * self.scale + self.experts.mean(dim=0) + self.tables[0].sum()
        return y + self.cls(y.mean(dim=(2, 3)))[:, :, None, None]


class WithParts(nn.Module):
    """Takes modules as arguments."""

    def __init__(
        self,
        old: nn.Module,
        act: type[nn.Module] = nn.ReLU,
        inner: nn.Module | None = None,
        function: Callable | None = None,
        call=None,
        **rest,
    ) -> None:
        super().__init__()
        self.old, self.act, self.inner, self.rest = old, act(), inner, rest

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.old(x))


class HalfOfTheChannels(nn.Module):
    """Breaks the contract."""

    def __init__(self, old: nn.Module) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x[:, ::2]


class Fails(nn.Module):
    """Fails in its constructor for ``early=True``, else in its forward."""

    def __init__(self, old: nn.Module, early: bool = False) -> None:
        super().__init__()
        if early:
            raise RuntimeError("too early")

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("too late")


class TakesNothing(nn.Module):
    """Has no argument for the replaced module."""

    def __init__(self) -> None:
        super().__init__()


class NoModule:
    """Is no layer."""
