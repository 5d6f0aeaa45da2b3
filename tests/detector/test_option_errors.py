"""Messages for wrong options: the nearest one, and those that exist; names of other tools are known."""

import pytest

from benchmarks.common import option_parser
from detector.option_errors import OptionParser, option_error, option_names

OPTIONS = [
    *("--config", "--run_dir", "--ckpt_path", "--seed_everything", "--trainer.max_epochs", "--trainer.devices"),
    *("--trainer.accelerator", "--model.lr", "--model.variant", "--model.weights", "--data.root", "--data.image_size"),
    *("--data.batch_size", "--data.augment.mosaic", "--data.augment.mixup", "--evaluation.score_threshold"),
]
PREDICT = ["CKPT", "SOURCE", "--out", "--score_threshold", "--iou_threshold", "--image_size", "--batch_size", "--device"]


@pytest.mark.parametrize(
    ("word", "options", "hint"),
    [
        ("--imgsz", OPTIONS, "--data.image_size"),
        ("--epochs", OPTIONS, "--trainer.max_epochs"),
        ("--lr", OPTIONS, "--model.lr"),
        ("--lr0=0.1", OPTIONS, "--model.lr"),
        ("--batch", OPTIONS, "--data.batch_size"),
        ("--batch-size", OPTIONS, "--data.batch_size"),
        ("--weights", OPTIONS, "--model.weights"),
        ("--data", OPTIONS, "--data.root or --config"),
        ("--resume", OPTIONS, "--ckpt_path"),
        ("--device", OPTIONS, "--trainer.devices or --trainer.accelerator"),
        ("--conf", OPTIONS, "--evaluation.score_threshold"),
        ("--conf", PREDICT, "--score_threshold"),
        ("--iou", PREDICT, "--iou_threshold"),
        ("--imgsz", PREDICT, "--image_size"),
        ("--weights", PREDICT, "CKPT (without --)"),
        ("--source", PREDICT, "SOURCE (without --)"),
        ("--project", PREDICT, "--out"),
        ("--batch_sise", PREDICT, "--batch_size"),
        ("--data.image_sise", OPTIONS, "--data.image_size"),
        ("--data.augment.mosaik", OPTIONS, "--data.augment.mosaic"),
        ("--augment.mosaik", OPTIONS, "--data.augment.mosaic"),
        ("--mosaic", OPTIONS, "--data.augment.mosaic"),
        ("--modle.lr", OPTIONS, "--model.lr"),
        ("--confg", OPTIONS, "--config"),
        ("imgsz=640", OPTIONS, "--data.image_size"),
    ],
)
def test_an_unknown_option_names_the_nearest(word: str, options: list[str], hint: str) -> None:
    name = word.partition("=")[0]
    name = name if name.startswith("-") else f"--{name}"
    message = option_error(f"unrecognized arguments: {word} 3", options)
    assert message.splitlines()[0] == f"unknown option {name}; did you mean {hint}?"


def test_the_options_of_the_group_are_listed() -> None:
    message = option_error("unrecognized arguments: --data.augment.mosaik 1 --data.rot x --foo", OPTIONS)
    assert message.splitlines() == [
        "unknown option --data.augment.mosaik; did you mean --data.augment.mosaic?",
        "unknown option --data.rot; did you mean --data.root?",
        "unknown option --foo",
        "data.augment has mosaic, mixup",
        "data has root, image_size, batch_size, augment.*",
        "there are --config, --run_dir, --ckpt_path, --seed_everything, --trainer.*, --model.*, --data.*, --evaluation.*",
    ]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "Group 'data' does not accept option 'augment.mosaik'",
            "unknown key data.augment.mosaik; did you mean data.augment.",
        ),
        ("Option 'lr' is not accepted", "unknown key lr; did you mean model.lr?"),
        ("unrecognized arguments: val", "unknown argument 'val'; did you mean python evaluate.py"),
        ("unrecognized arguments: a.yaml", "unknown argument 'a.yaml'; a configuration file is given as --config a.yaml"),
        (
            "unrecognized arguments: a/data.yaml",
            "unknown argument 'a/data.yaml'; the data.yaml of YOLO labels is given as --d",
        ),
        ("argument --lr: invalid float value: 'x'", "--lr is 'x'; expected a number"),
        # Python 3.12 and later leave out the quotes of choices.
        ("argument --format: invalid choice: 'onx' (choose from onnx, openvino)", "unknown value of --format: 'onx'; did"),
        (
            "argument --format: invalid choice: 'onx' (choose from 'onnx', 'openvino')",
            "unknown value of --format: 'onx'; did",
        ),
    ],
)
def test_other_messages(message: str, expected: str) -> None:
    assert option_error(message, OPTIONS).startswith(expected)


@pytest.mark.parametrize(
    ("words", "unknown", "start"),
    [
        (
            "a.ckpt --tile 64 96",
            "96",
            "--tile takes one value, and is given 2: 64 96; a list is one value, as --tile '[64, 96]'",
        ),
        ("--tile=64 96 --split val", "96", "--tile takes one value, and is given 2: 64 96; "),
        ("--tile 64 96 a.ckpt", "a.ckpt", "--tile takes one value, and is given 2: 64 96; "),
        (
            "--model.freeze neck head",
            "head",
            "--model.freeze takes one value, and is given 2: neck head; a list is one value, ",
        ),
        ("--data.root my own photos", "own photos", "--data.root takes one value, and is given 3: my own photos; "),
        ("--split val a.ckpt b.ckpt", "b.ckpt", "unknown argument 'b.ckpt'; there are "),
        ("--data.root photos a.yaml", "a.yaml", "unknown argument 'a.yaml'; a configuration file is given as --config"),
    ],
)
def test_several_values_of_one_option(words: str, unknown: str, start: str) -> None:
    message = option_error(f"unrecognized arguments: {unknown}", OPTIONS, words.split())
    assert message.startswith(start)
    assert message.endswith("; quote a value with spaces") == ("takes one value" in start and "64" not in start)


def test_an_arm_without_its_option() -> None:
    assert option_error("unrecognized arguments: b=b.yaml", ["--arm", "--set"]).endswith("is given as --arm b=b.yaml")


@pytest.fixture
def parser() -> OptionParser:
    parser = OptionParser("tool")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--score_threshold", type=float, default=0.5)
    parser.add_argument("--batch_size", type=int)
    return parser


def test_short_forms_of_options_are_refused(parser: OptionParser, capsys: pytest.CaptureFixture) -> None:
    """``--score`` could be another option in the next version."""
    assert option_names(parser) == ["FILE", "--score_threshold", "--batch_size"]
    assert parser.parse_args(["a", "--score_threshold=0.2"]).score_threshold == 0.2
    assert parser.parse_args(["--batch_size", "2", "--", "--a"]).file == "--a"
    for args in (["a", "--score", "0.2"], ["--score=0.2"]):
        with pytest.raises(SystemExit) as stop:
            parser.parse_args(args)
        error = capsys.readouterr().err
        assert stop.value.code == 2
        assert error.startswith("error: unknown option --score; did you mean --score_threshold?\nthere are FILE, ")
        assert "usage" not in error


def test_benchmarks_name_the_nearest_option(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        option_parser("Measure.", seeds=3, jobs=1).parse_args(["--sedes", "1"])
    assert "unknown option --sedes; did you mean --seeds?\nthere are --seeds, --jobs" in capsys.readouterr().err
