"""Options: old spellings work, and sizes are one side or height and width."""

import pytest

from detector.__main__ import build_parser
from detector.commands.options import parse_image_size

OLD_SPELLINGS = [
    ("predict a.ckpt b.png", "--no_images", "--no_pictures", ""),
    ("report run", "--ground_truth", "--ground-truth", "a.json"),
    ("report run", "--score_threshold", "--threshold", "0.5"),
    ("report run", "--no_speed", "--no-speed", ""),
    ("weights a.ckpt b.safetensors", "--license", "--licence", "MIT"),
]


@pytest.mark.parametrize(("command", "option", "old", "value"), OLD_SPELLINGS)
def test_old_spellings_work_and_are_not_in_the_help(
    command: str, option: str, old: str, value: str, capsys: pytest.CaptureFixture
) -> None:
    parse = build_parser().parse_args
    default, new = parse(command.split()), parse(f"{command} {option} {value}".split())
    alias = parse(f"{command} {old} {value}".split())
    assert vars(alias) == vars(new)
    assert vars(default).keys() == vars(new).keys()
    assert default != new
    with pytest.raises(SystemExit):
        build_parser().parse_args([command.split()[0], "--help"])
    shown = capsys.readouterr().out.replace(",", " ").replace("[", " ").replace("]", " ").split()
    assert option in shown
    assert old not in shown


def test_options_are_spelled_with_underscores(capsys: pytest.CaptureFixture) -> None:
    for command in ("predict", "export", "report", "weights"):
        with pytest.raises(SystemExit):
            build_parser().parse_args([command, "--help"])
        options = [word for word in capsys.readouterr().out.split() if word.startswith(("--", "[--"))]
        assert options
        assert not [option for option in options if "-" in option.strip("[-],")]


def test_image_size_is_one_side_or_height_and_width() -> None:
    assert parse_image_size(None) is None
    assert parse_image_size([64]) == (64, 64)
    assert parse_image_size([64, 96]) == (64, 96)
    with pytest.raises(ValueError, match=r"--image_size is \[64, 64, 3\]; expected one side, or height and width"):
        parse_image_size([64, 64, 3])
