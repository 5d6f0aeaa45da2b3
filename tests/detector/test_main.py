"""``python -m detector``: its commands, and how mistakes end."""

import argparse
import subprocess
import sys
from unittest import mock

import pytest

import detector
import detector.__main__ as program
from detector.__main__ import build_parser, main

COMMANDS = ("train", "pretrain", "evaluate", "predict", "export", "report", "weights", "summary")


def test_the_help_lists_the_commands_and_imports_none_of_them() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "detector", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "detector.commands.clone" in imported
    assert not imported & {"torch", "numpy", "lightning", "timm", "matplotlib", "detector.commands.predict"}  # start slowly
    for command in COMMANDS:
        assert f"\n    {command} " in done.stdout


@pytest.mark.parametrize(
    ("path", "name"), [("/venv/bin/detector", "detector"), ("/a/detector/__main__.py", "python -m detector")]
)
def test_messages_name_the_program_as_it_was_started(
    path: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", [path])
    with pytest.raises(SystemExit):
        main(["weights"])
    assert f"usage: {name} weights CKPT OUT" in capsys.readouterr().err


def test_ctrl_c_ends_a_command_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(program, "main", mock.Mock(side_effect=KeyboardInterrupt))
    monkeypatch.setattr(program.gc, "freeze", lambda: None)
    assert program.console() == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"lightning-dyn-detector {detector.__version__}\n"


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
    assert list(commands.choices) == list(COMMANDS)
    for name, command in commands.choices.items():
        assert callable(command.get_default("run")) != (name in ("train", "pretrain", "evaluate")), name


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["fit"],
            "unknown command 'fit'; did you mean python train.py --config configs/backbone.yaml? Commands: ",
        ),
        (["flops"], "unknown command 'flops'; did you mean python -m detector summary VARIANT"),
        (["val"], "unknown command 'val'; did you mean python evaluate.py CKPT"),
        (["detect"], "unknown command 'detect'; did you mean python -m detector predict CKPT SOURCE?"),
        (
            ["predct", "a", "b"],
            "unknown command 'predct'; did you mean predict? Choose one of train, pretrain, evaluate, predict, export",
        ),
        (
            ["predict", "a", "b", "--conf", "0.3"],
            "unknown option --conf; did you mean --score_threshold?\nthere are CKPT, SOURCE",
        ),
        (["predict", "--weights", "a"], "unknown option --weights; did you mean CKPT (without --)?"),
        (["predict", "a", "b", "--score", "0.3"], "unknown option --score; did you mean --score_threshold?"),
        (["export", "a", "--format", "onx"], "unknown value of --format: 'onx'; did you mean onnx? Choose one of onnx, "),
        (["export", "a", "--branch", "one2mny"], "unknown value of --branch: 'one2mny'; did you mean one2many"),
    ],
)
def test_misspelled_commands_options_and_values(args: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(args)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith(f"error: {message}")
    assert "usage" not in error
