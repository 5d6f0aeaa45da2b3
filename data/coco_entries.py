"""Values of the entries of a COCO annotation file as arrays, with faults for wrong ones."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.faults import Faults
from detector.text import decode_name, encode_name, plural

FLOAT_LIMIT = 2**53  # larger whole numbers with .0 or an exponent were rounded when they were read


@dataclass(frozen=True)
class Entries:
    """The entries of one list of the file, e.g. "images", whose entries are called "image". Adds faults of their values."""

    kind: str
    list_name: str
    entries: list[Any]
    faults: Faults

    def values(self, key: str) -> list[Any]:
        return [getattr(entry, key) for entry in self.entries]

    def name(self, index: int) -> str:
        """Return the name of an entry for messages: its kind and id, or its position if it has no id."""
        id_ = self.entries[index].id
        return f"{self.kind} {id_}" if id_ is not None else f"entry {index} of {self.list_name!r}"

    def add_fault(self, faulty: Sequence[int] | np.ndarray, describe: Callable[[int], str]) -> None:
        """Add a fault if there are ``faulty`` entries; ``describe`` returns the fault of an entry in words."""
        if len(faulty):
            first = int(faulty[0])
            self.faults.add(f"{self.name(first)} {describe(first)}", len(faulty))

    def whole_numbers(self, key: str, fallback: int = 0) -> np.ndarray:
        """Return the values of ``key`` as int64. A value that is not a whole number becomes ``fallback`` and is a fault."""
        values = self.values(key)
        if set(map(type, values)) <= {int} and max(map(abs, values), default=0) < 2**63:  # bool is another type
            return np.array(values, np.int64)
        faulty = [n for n, value in enumerate(values) if not is_whole_number(value)]
        self.add_fault(faulty, lambda n: f"has {key} {values[n]!r}; expected {_expectation(values[n])}")
        return np.array([int(value) if is_whole_number(value) else fallback for value in values], np.int64)

    def ids(self, key: str = "id") -> np.ndarray:
        """Return the values of ``key`` as int64, or as bytes (UTF-8) if all are text. A mixture is a fault."""
        values = self.values(key)
        texts = [n for n, value in enumerate(values) if isinstance(value, str) and value]
        if not values or len(texts) < len(values):
            return self.whole_numbers(key)
        return np.array([encode_name(value) for value in values])

    def check_unique(self, ids: np.ndarray) -> None:
        """Add a fault if one of the ``ids`` is used twice. Ids that are faults already do not count."""
        usable = [n for n, value in enumerate(self.values("id")) if ids.dtype.kind == "S" or is_whole_number(value)]
        values, counts = np.unique(ids[usable], return_counts=True)
        if twice := values[counts > 1].tolist():
            text = plural(len(twice), f"{self.kind} id is", f"{self.kind} ids are")
            shown = [decode_name(id_) if isinstance(id_, bytes) else id_ for id_ in twice[:3]]
            self.faults.add(f"{text} used twice, e.g. {shown}; make them unique")


def is_number(value: Any) -> bool:
    """Return True for a finite number that fits into float64."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_whole_number(value: Any) -> bool:
    """Return True for a whole number of at most 63 bits, also written as 3.0 unless it may have been rounded."""
    if isinstance(value, float):
        return value.is_integer() and abs(value) <= FLOAT_LIMIT
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _expectation(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return "a whole number without a decimal point or exponent: above 2**53 such numbers are rounded when read"
    return "a whole number of at most 63 bits"
