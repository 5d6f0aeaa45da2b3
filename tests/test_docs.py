"""Every command and example of the documentation works."""

import importlib.util
import io
import re
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import pytest
import torch
import torchvision

import train
from data import CocoDataModule
from data.shapes.draw import CLASSES
from data.shapes.write import draw_shapes, draw_singles
from detector import DetectorModule, Predictor, load_detector
from detector.export.formats import export
from detector.predict.stream_sources import PipeSource
from detector.weights.info import WeightsInfo
from tests.docs_commands import PAGES, check, examples, main
from tests.file_logger import FileLogger
from tests.resuming import TINY

EXTRAS = ("nncf", "openvino", "supervision")  # not in the test environment: an example that needs one runs up to its import

EXAMPLES = [(page, kind, example) for page in PAGES for kind, example in examples(page)]
PYTHON = [(page.name, example) for page, kind, example in EXAMPLES if kind == "python" and page.name != "python.md"]
PROGRAMS = [example for page, kind, example in EXAMPLES if kind == "python" and page.name == "python.md"]
# Settings of the programs, and what a test has in their place.
SMALLER = {
    r"\b160\b": "32",
    r'(\bbatch_size"?[=:] ?)16\b': r"\g<1>4",
    r'(num_workers"?[=:] ?)2\b': r"\g<1>0",
    r"max_epochs=20\b": "max_epochs=1",
}


def test_every_example_is_accepted(capsys: pytest.CaptureFixture) -> None:
    assert main() == 0, capsys.readouterr().out
    assert len(EXAMPLES) > 30
    assert {kind for _, kind, _ in EXAMPLES} == {"sh", "python", "yaml"}


@pytest.fixture
def names(example: str, tiny_arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the variables that examples use, and write the files that they use into the working directory.

    The export takes seconds, so only an ``example`` that names its file gets it.
    """
    monkeypatch.chdir(tmp_path)
    module = DetectorModule("dyn_n", ["car", "bus", "cat", "raccoon"], [1, 2, 3, 4], TINY)
    for tower in module.model.head.one2one.cls:
        torch.nn.init.constant_(tower[-1].bias, 1.0)  # examples have objects to show
    quick = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = L.Trainer(**quick)
    trainer.strategy.connect(module)
    module.trainer = trainer
    runs, images = (Path("runs/dyn_n"), Path("runs/yolo26_n")), Path("datasets/mine/train")
    for folder in (*runs, images):
        folder.mkdir(parents=True)
    for run in runs:
        trainer.save_checkpoint(run / "best.ckpt")
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for path in ("image.jpg", "a.jpg", *(images / f"{number}.jpg" for number in range(3))):
        cv2.imwrite(str(path), image)
    if "best.xml" in example and importlib.util.find_spec("openvino"):
        export(Predictor(module.model, WeightsInfo("dyn_n")), "best.xml", "openvino")
    data = CocoDataModule(**tiny_arguments | {"batch_size": 2})
    data.setup("fit")
    # Examples train for two batches only.
    short = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1, "default_root_dir": tmp_path}
    monkeypatch.setattr(L, "Trainer", lambda trainer=L.Trainer, **arguments: trainer(**arguments | quick | short))
    return {
        "array": image,
        "tensor": torch.from_numpy(image).movedim(2, 0),
        "any_network": torchvision.models.resnet18(),
        "model": module.model,
        "dataloader": data.val_dataloader(),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("page", "example"), PYTHON, ids=[f"{page}-{n}" for n, (page, _) in enumerate(PYTHON)])
def test_python_examples_run(page: str, example: str, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if "open_stream" in example:  # in place of a camera, a pipe with one image
        png = cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
        monkeypatch.setattr("detector.predict.stream_sources.find_source", lambda *_: PipeSource(io.BytesIO(png)))
    if "single_shapes" in example:
        draw_singles(Path("datasets/single_shapes"), num_train=16, num_val=8)
    try:
        exec(compile(example, page, "exec"), names)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        pytest.skip(f"{error.name} is not installed: {error}")
    except ValueError as error:
        if not re.search(r"needs (nncf|supervision), not installed|camera 0 cannot be opened", str(error)):
            raise
        pytest.skip(str(error))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("program", PROGRAMS, ids=["CocoDataModule", "own dataloader"])
def test_the_programs_that_train_are_complete(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Each runs by itself: it has only the images of the page's command, here fewer and smaller ones."""
    monkeypatch.chdir(tmp_path)
    draw_shapes(Path("datasets/few_shapes"), num_train=4, num_val=2)
    for setting, smaller in SMALLER.items():
        program, found = re.subn(setting, smaller, program)
        assert found, setting
    exec(compile(program, "python.md", "exec"), {"__name__": "__main__"})
    assert re.search(r"AP \d\.\d{3}", capsys.readouterr().out)
    (checkpoint,) = Path("runs/python").glob("*.ckpt")
    assert load_detector(checkpoint).class_names == list(CLASSES)


@pytest.mark.parametrize(
    ("kind", "example"),
    [
        ("sh", "python train.py --config configs/dyn_n.yaml --data.image_sise 640"),
        ("sh", "python train.py --config configs/lost.yaml"),
        ("sh", "python train.py --config configs/dyn_n.yaml --eval runs/dyn_n/best.ckpt"),
        ("sh", "python evaluate.py --config configs/dyn_n.yaml"),
        ("sh", "python -m detector weights only-one-file"),
        ("sh", "python -m detector weigths a b"),
        ("sh", "python -m data chekc"),
        ("sh", "python -m benchmarks.compare --armm x"),
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
def test_a_wrong_example_is_refused(kind: str, example: str) -> None:
    with pytest.raises((ValueError, SystemExit, SyntaxError)):
        check(kind, example)


def test_commands_in_blocks_and_in_lines_are_found(tmp_path: Path) -> None:
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
    assert (tmp_path / "runs" / "yolo26_n" / "metrics.csv").is_file()  # the loggers of every run are there, too
    assert FileLogger(str(tmp_path / "other.txt")).name == "file"
