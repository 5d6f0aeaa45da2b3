"""Faults of an annotation file, collected so that one error names all of them."""


class Faults:
    """Faults of the file ``name``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.texts: list[str] = []

    def add(self, text: str, count: int = 1) -> None:
        """Add a fault; ``text`` describes the first of ``count`` entries that have it."""
        self.texts.append(text + (f" (and {count - 1} more like it)" if count > 1 else ""))

    def raise_if_any(self) -> None:
        """Raise a ValueError with the file and all faults so far, if there are any."""
        if len(self.texts) == 1:
            raise ValueError(f"{self.name}: {self.texts[0]}")
        if self.texts:
            lines = "\n".join(f"    {text}" for text in self.texts)
            raise ValueError(f"{self.name} has {len(self.texts)} faults:\n{lines}")
