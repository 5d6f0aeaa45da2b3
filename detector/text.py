"""Text for messages, tables and records: plurals, scores, nearest names, flat settings, versions of packages."""

import io
import math
import re
import sys
from collections.abc import Iterable
from decimal import ROUND_DOWN, Decimal
from difflib import SequenceMatcher
from importlib.metadata import PackageNotFoundError, version
from typing import Any

MIN_SIMILARITY = 0.6  # 0..1, of names that are proposed
MAX_LISTED = 60  # names in a message; of longer lists only the nearest are shown


def print_any_name() -> None:
    """Let ``print`` take the names of all files: what is not UTF-8 in them becomes an escape, and no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def encode_name(name: str) -> bytes:
    """Return the bytes of a file's name, in UTF-8; bytes of the name that are not UTF-8 stay as they are."""
    return name.encode("utf-8", "surrogateescape")


def decode_name(name: bytes) -> str:
    """Return the text of a file's name, see ``encode_name``."""
    return name.decode("utf-8", "surrogateescape")


def plural(number: int, one: str, many: str | None = None) -> str:
    """Return "1 image" or "2 images"; give ``many`` if it is not ``one`` with an s: "2 boxes"."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def without_secrets(address: str) -> str:
    """Return ``address`` for messages: ``***`` in place of name and password, and of a query, which may have a key.

    Passwords are hidden, too, if they have a sign that should be escaped, as ``#``, or stand in the path, as some cameras
    want it.
    """
    address = re.sub(r"//([^/]*|[^/:]*:(?!\d*/).*)@", "//***@", address)  # digits behind a colon are a port
    return re.sub(r"\?.*", "?***", re.sub(r"(?i)(password|passwd|pwd)=[^/?]*", r"\1=***", address))


def score_text(score: float) -> str:
    """Return a score in 0..1 with three significant digits, rounded down: a filter from that value on keeps it."""
    return str(round_down(score, 3))


def round_down(value: float, digits: int) -> float:
    """Return ``value``, 0 or more, with ``digits`` significant digits; the others are cut off."""
    if not value or not math.isfinite(value):
        return float(value)
    number = Decimal(str(value))  # the text, because 0.57 in binary is a little less than 0.57
    return float(number.quantize(Decimal(1).scaleb(number.adjusted() - digits + 1), ROUND_DOWN))


def nearest_names(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Return the names in ``known`` that ``name`` may be meant for, the nearest first.

    Capitals and punctuation do not count: ``ImageSize`` is ``image_size``. Names that are much less similar than the nearest
    one are left out.
    """
    matcher = SequenceMatcher(b=letters(name))
    similarities = {}
    for candidate in known:
        matcher.set_seq1(letters(candidate))
        similarities[candidate] = matcher.ratio() if matcher.quick_ratio() >= MIN_SIMILARITY else 0.0
    least = max(MIN_SIMILARITY, max(similarities.values(), default=0.0) - 0.05)
    near = sorted((c for c, similarity in similarities.items() if similarity >= least), key=lambda c: -similarities[c])
    return near[:limit]


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Return the message for a name that is not in ``known``, with the nearest ones and a list of all.

    For example "unknown variant 'yolo26n'; did you mean yolo26_n? Choose one of yolo26_n, yolo26_s".
    """
    known = list(known)
    near = nearest_names(str(name), known)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    if len(known) <= MAX_LISTED or not near:
        hint += f"Choose one of {', '.join(known[:MAX_LISTED])}{' ...' if len(known) > MAX_LISTED else ''}"
    return f"unknown {kind} {name!r}; {hint[0].lower()}{hint[1:].rstrip()}"


def letters(name: str) -> str:
    """Return the letters and digits of a name in lower case: names that differ in anything else mean the same."""
    return re.sub(r"[\W_]", "", name).lower()


def flatten(settings: dict[str, Any], separator: str = ".") -> dict[str, Any]:
    """Return nested settings on one level, under joined names: ``{"data.augment.mosaic": 0.5}``."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= {f"{name}{separator}{below}": entry for below, entry in flatten(value, separator).items()}
        else:
            flat[str(name)] = value
    return flat


def package_version(name: str) -> str | None:
    """Return the version of an installed package, or None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def short_number(value: float, width: int) -> str:
    """Return a number with at most three significant digits in at most ``width`` characters, 5 or more: "0.166", "1.2e9"."""
    texts = [f"{value:.0f}"] if 999.5 <= abs(value) < 10**width else []
    texts += [f"{value:.{digits}g}" for digits in (3, 2, 1)] + [f"{value:.1e}", f"{value:.0e}"]
    texts = [re.sub(r"e([+-])0*(\d)", lambda m: f"e{m[1].strip('+')}{m[2]}", text) for text in texts]
    return next((text for text in texts if len(text) <= width), texts[-1])


def short_duration(seconds: float) -> str:
    """Return a duration in at most four characters: "45s", "90m", "3.2h", "40h", "12d"."""
    for unit, length, limit in (("s", 1, 100), ("m", 60, 100), ("h", 3600, 100), ("d", 86400, 1000)):
        amount = seconds / length
        if amount < limit - 0.5:
            return f"{amount:.1f}{unit}" if unit in "hd" and amount < 9.95 else f"{amount:.0f}{unit}"
    return f"{min(seconds / (365 * 86400), 999):.0f}y"
