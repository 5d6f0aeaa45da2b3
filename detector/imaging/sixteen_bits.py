"""Scale images with 16 bits a sample to 8 bits."""

from typing import Any

import numpy as np

SampleRange = tuple[int, int]  # darkest and brightest value
FULL_RANGE: SampleRange = (0, 65535)


def to_eight_bits(values: np.ndarray, sixteen_bit_range: SampleRange = FULL_RANGE) -> np.ndarray:
    """Scale uint16 ``values`` to uint8: the ``sixteen_bit_range`` becomes 0..255, and values outside of it 0 or 255.

    The full range gives the upper 8 bits, as image decoders do; (0, 4095) the upper 8 of 12 bits.
    """
    if tuple(sixteen_bit_range) == FULL_RANGE:
        return (values >> 8).astype(np.uint8)
    low, high = sixteen_bit_range
    table = (np.arange(65536, dtype=np.int64) - low) * 256 // (high - low + 1)
    return table.clip(0, 255).astype(np.uint8)[values]


def as_sample_range(value: Any, name: str = "sixteen_bit_range") -> SampleRange:
    """Return ``value`` as (darkest, brightest). Raises ValueError, with ``name``, for anything else."""
    if isinstance(value, list | tuple) and [type(limit) for limit in value] == [int, int]:
        low, high = value
        if 0 <= low < high <= 65535:
            return low, high
    raise ValueError(
        f"{name} is {value!r}; expected the darkest and the brightest value of 16-bit images, two whole numbers from 0 to "
        "65535, e.g. [0, 4095] for 12 bits"
    )
