"""Ids of images and categories: exact in files, and numbers that float64 holds exactly in rows of detections."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

Id = int | str  # as in the annotation file

ID_LIMIT = 2**63  # ids are whole numbers of at most 63 bits, or text
FLOAT_LIMIT = 2**53  # float64 holds all whole numbers up to here


class Ids:
    """The ids of the images, or of the categories, of an annotation file, and their numbers in rows of detections.

    The number of an id is the id itself, if float64 holds all of the file's ids exactly. Else, with larger ids or with text,
    the ids are numbered from 1 in the order of ``ids``. ``kind`` is "image" or "category", for messages.
    """

    def __init__(self, kind: str, ids: Sequence[Id] = ()) -> None:
        self.kind, self.are_text = kind, bool(ids) and isinstance(ids[0], str)
        exact = all(isinstance(id_, int) and abs(id_) <= FLOAT_LIMIT for id_ in ids)
        self._ids: dict[int, Id] = {} if exact else dict(enumerate(ids, start=1))
        self._numbers = {id_: number for number, id_ in self._ids.items()}

    def number(self, id_: Id) -> int:
        """Return the number of an id. An id that the file lacks gets a number that no other id has.

        Raises ValueError if ``id_`` is text and those of the file are numbers, or the reverse.
        """
        if isinstance(id_, str) != self.are_text:
            kinds = ("text", "numbers") if isinstance(id_, str) else ("a number", "text")
            raise ValueError(f"the {self.kind} id {id_!r} is {kinds[0]}, but those of the ground truth are {kinds[1]}")
        if self._ids:
            number = self._numbers.setdefault(id_, len(self._ids) + 1)
            self._ids[number] = id_
            return number
        number = cast(int, id_)  # ids that are text have an entry above
        if abs(number) > FLOAT_LIMIT:
            raise ValueError(f"the {self.kind} id {id_} is not in the ground truth, and too large to be a number in float64")
        return number

    def id(self, number: int) -> Id:
        """Return the id that has ``number``."""
        return self._ids.get(number, number)


def checked_ids(values: Iterable[Any], kind: str, name: str) -> list[Id]:
    """Return the ids of a list of entries of the file ``name``; ``kind`` is "image" or "category".

    Raises ValueError if one is no id, if some are text and some numbers, or if one is used twice.
    """
    ids = [checked_id(value, f"{name}: {kind}") for value in values]
    if len(set(map(type, ids))) > 1:
        raise ValueError(f"{name}: the {kind} ids are both text and numbers, e.g. {ids[:3]}; make them of one kind")
    if len(set(ids)) < len(ids):
        repeated = next(id_ for id_ in ids if ids.count(id_) > 1)
        raise ValueError(f"{name}: the {kind} id {repeated!r} is used twice; make the ids unique")
    return ids


def checked_id(value: Any, owner: str) -> Id:
    """Return an id as it is, or as a whole number if it is one: 2.0 is 2. Raises ValueError, with ``owner``, for others."""
    if type(value) is int and abs(value) < ID_LIMIT:
        return value
    if isinstance(value, str) and value:
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < FLOAT_LIMIT:
        return int(value)
    raise ValueError(
        f"{owner} has the id {value!r}; expected a whole number of at most 63 bits (without .0 above 2**53), or text"
    )
