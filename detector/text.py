"""Words of messages."""


def plural(number: int, one: str, many: str | None = None) -> str:
    """Return "1 image" or "2 images"; ``many`` is given where it is not ``one`` with an s: "2 boxes"."""
    return f"{number} {one if number == 1 else many or one + 's'}"
