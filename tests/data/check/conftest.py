"""``python -m data check`` on the tiny set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.__main__ import main


@pytest.fixture
def config(tiny_arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Command line of the tiny set, in a configuration file with sections that do not concern the data."""
    monkeypatch.chdir(tmp_path)
    content = {"trainer": {"max_epochs": 2}, "model": {"variant": "dyn_n"}, "data": tiny_arguments, "seed_everything": 3}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    return ["--config", "tiny.yaml"]


@pytest.fixture
def check(config: list[str], capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str]]:
    def run(*extra: str) -> tuple[int, str]:
        status = main(["check", *config, *extra])
        return status, capsys.readouterr().out

    return run
