"""What the documentation says can be typed, can be typed."""

from pathlib import Path
from typing import Any

import pytest

import train
from tests.docs_commands import PAGES, check, examples, main
from tests.file_logger import FileLogger

FOUND = [(page, kind, example) for page in PAGES for kind, example in examples(page)]


def test_every_example_is_accepted(capsys: pytest.CaptureFixture) -> None:
    assert main() == 0, capsys.readouterr().out
    assert len(FOUND) > 30
    assert {kind for _, kind, _ in FOUND} == {"sh", "python", "yaml"}


@pytest.mark.parametrize(
    ("kind", "example"),
    [
        ("sh", "python train.py --config configs/dyn_n.yaml --data.image_sise 640"),
        ("sh", "python train.py --config configs/lost.yaml"),
        ("sh", "python -m detector weights only-one-file"),
        ("sh", "python -m detector weigths a b"),
        ("sh", "python -m data chekc"),
        ("sh", "python -m benchmarks.bccd --rooot x"),
        ("sh", "python -m benchmarks.lost"),
        ("sh", "make dmeo"),
        ("sh", "pip install .[hubb]"),
        ("sh", "torchrun --nproc-per-node 2 train.py --config configs/lost.yaml"),
        ("sh", "srun python train.py --config configs/dyn_n.yaml --trainer.devises 4"),
        ("sh", "curl example.org"),
        ("python", "from detector import load_detectr"),
        ("python", "from detector.lost import x"),
        ("yaml", "model: {varient: dyn_n}"),
        ("yaml", "trainer: {logger: {class_path: lightning.pytorch.loggers.WandbLogger, init_args: {projct: x}}}"),
    ],
)
def test_a_mistake_is_found(kind: str, example: str) -> None:
    with pytest.raises((ValueError, SystemExit, SyntaxError)):
        check(kind, example)


def test_commands_are_found_in_blocks_and_lines(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Use `make demo`, not `makedemo`.\n\n```sh\npython train.py \\\n    --a b  # why\nmake test\n```\n")
    assert list(examples(page)) == [("sh", "python train.py --a b"), ("sh", "make test"), ("sh", "make demo")]


def test_three_lines_of_configuration_add_a_logger(
    tiny_arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logger.yaml").write_text(
        "trainer:\n  logger:\n    class_path: tests.file_logger.FileLogger\n    init_args: {path: elsewhere.txt}\n"
    )
    data = [f"--data.{name}={value}" for name, value in tiny_arguments.items()]
    quick = ["--trainer.max_epochs=1", "--trainer.limit_val_batches=0", "--trainer.limit_train_batches=1"]
    train.main(["--config", "logger.yaml", "--model.variant=yolo26_n", "--trainer.accelerator=cpu", *quick, *data])
    logged = (tmp_path / "elsewhere.txt").read_text()
    assert "variant yolo26_n" in logged
    assert "train/lr" in logged
    assert (tmp_path / "runs" / "yolo26_n" / "metrics.csv").is_file()  # ours are there all the same
    assert FileLogger(str(tmp_path / "other.txt")).name == "file"
