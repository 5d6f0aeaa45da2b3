"""Remarks of the readers on a split: for the log, and for the report of a data check."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Remark:
    """A finding of a reader. An error stops the reading; a warning is doubtful or left out; a note informs."""

    level: Level
    text: str
    examples: tuple[str, ...] = ()

    def line(self) -> str:
        """Return the remark as one line of text, with up to three examples."""
        shown = "; ".join(self.examples[:3]) + ("; ..." if len(self.examples) > 3 else "")
        return self.text + (f" ({shown})" if shown else "")


def log_remarks(name: str, remarks: Sequence[Remark]) -> None:
    """Log the warnings and notes on the file ``name``."""
    for one in remarks:
        text = f"{name}: {one.line()}"
        if one.level == "warning":
            rank_zero_warn(text)
        else:
            rank_zero_info(text)
