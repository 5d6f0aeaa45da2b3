"""A logger of somebody else, as a configuration file may name one."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger


class FileLogger(Logger):
    """Appends what it is given to a text file."""

    name, version = "file", "0"

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = Path(path)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._write(*(f"{name} {value}" for name, value in metrics.items()))

    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        self._write(*(f"{name} {value}" for name, value in params.items()))

    def _write(self, *lines: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
