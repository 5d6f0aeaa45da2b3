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
    for command in ("predict", "export", "report", "weights", "summary"):
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
        ("predict", "export", "report", "weights", "summary"), True
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["train"],
            "unknown command 'train'; did you mean python train.py --config configs/finetune_backbone.yaml? Commands: ",
        ),
        (["flops"], "unknown command 'flops'; did you mean python -m detector summary VARIANT"),
        (["val"], "unknown command 'val'; did you mean python evaluate.py CKPT"),
        (["detect"], "unknown command 'detect'; did you mean python -m detector predict CKPT SOURCE?"),
        (
            ["predct", "a", "b"],
            "unknown command 'predct'; did you mean predict? Choose one of predict, export, report, weights",
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
