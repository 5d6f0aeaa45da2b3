"""Global random generators, kept from what blocks of the user draw."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.random import mtrand


@contextmanager
def isolated_generators() -> Iterator[None]:
    """Restore the global random generators of Python, NumPy and torch (CPU and CUDA) at the end."""
    python_state, numpy_generator = random.getstate(), mtrand.get_bit_generator()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            mtrand.set_bit_generator(np.random.MT19937(torch.initial_seed() % 2**32))
            yield
    finally:
        random.setstate(python_state)
        mtrand.set_bit_generator(numpy_generator)
