"""``python -m detector``: its commands, and how mistakes end."""

import argparse
import subprocess
import sys

import pytest

from detector.__main__ import build_parser, main


def test_the_help_lists_the_commands() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "detector", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "detector.network.model" in done.stderr
    assert "timm" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}  # as it starts slowly
    for command in ("predict", "export", "report", "weights"):
        assert f"\n    {command} " in done.stdout


def test_mistakes_exit_with_status_and_message(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*lost\.ckpt"):
        main(["weights", "lost.ckpt", "out.safetensors"])
    with pytest.raises(SystemExit) as usage:
        main(["weights"])
    assert usage.value.code == 2
    assert "usage: python -m detector weights" in capsys.readouterr().err


def test_every_command_says_what_to_run() -> None:
    parser = build_parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    assert {name: callable(command.get_default("run")) for name, command in commands.choices.items()} == dict.fromkeys(
        ("predict", "export", "report", "weights"), True
    )
