"""Words of messages."""


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return "1 picture" or "2 pictures"; ``many`` is given where it is not ``one`` with an s: "2 boxes"."""
    return f"{number} {one if number == 1 else many or one + 's'}"
