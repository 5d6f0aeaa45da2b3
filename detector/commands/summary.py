"""``python -m detector summary VARIANT|CKPT``: print what each stage of a network costs."""

import argparse
from pathlib import Path
from typing import Any

import torch

from detector.arguments import as_whole_number
from detector.batch import Size
from detector.commands.options import add_image_size, add_option, parse_image_size
from detector.config_files import read_config
from detector.imaging.plot_files import save_plot
from detector.network.config import VARIANTS
from detector.network.head import BRANCHES
from detector.network.model import Detector
from detector.network.replace.block_files import add_import_folders
from detector.predict import load_detector
from detector.report.page import Table
from detector.report.stages import summarize
from detector.runs.folder import FIGURES
from detector.text import unknown_name
from detector.training.module import DetectorModule

MODEL_SETTINGS = ("variant", "overrides", "backbone", "replace")  # of a configuration, those that make the network
DEFAULT_SIZE, DEFAULT_CLASSES = (640, 640), 80


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add description, usage and options of the command ``summary``."""
    parser.description = (
        "Print parameters, multiply-adds, activation memory and time of each stage of a network, and draw them."
    )
    parser.usage = "%(prog)s VARIANT|CKPT|CONFIG [--OPTION VALUE ...]"
    network = "a variant, a checkpoint or weights file, or a configuration (.yaml) whose section model makes the network"
    parser.add_argument("network", metavar="VARIANT|CKPT|CONFIG", help=network)
    add_image_size(parser)
    classes = f"classes of a variant or configuration ({DEFAULT_CLASSES})"
    add_option(parser, "--num_classes", "--num-classes", type=int, help=classes)
    parser.add_argument("--branch", choices=BRANCHES, default="one2one", help="branch of the deployed network (%(default)s)")
    parser.add_argument("--out", type=Path, help="folder of the figure; by default figures/ beside CKPT, else runs/summary")
    parser.set_defaults(run=run_summary)


def run_summary(options: argparse.Namespace) -> None:
    """Print the table and write the figure."""
    size = parse_image_size(options.image_size)
    if options.num_classes is not None:
        as_whole_number(options.num_classes, "--num_classes")
    path = Path(options.network)
    is_checkpoint = path.suffix not in (".yaml", ".yml") and options.network not in VARIANTS
    if is_checkpoint:
        model, trained_size = read_checkpoint(path, options.num_classes)
    else:
        model, trained_size = build_network(options.network, options.num_classes or DEFAULT_CLASSES), DEFAULT_SIZE
    size = size or trained_size
    largest = model.strides[-1]
    if any(side % largest for side in size):
        raise ValueError(f"--image_size is {list(size)}; both sides must be multiples of {largest}, the largest stride")
    summary = summarize(model, size, options.branch)
    folder = options.out or (path.parent / FIGURES if is_checkpoint else Path("runs") / "summary")
    plot = summary.plot(f"summary_{path.stem}", f"{options.network}: shares of the stages")
    save_plot(plot, folder)
    print_columns(summary.table())
    print(f"\n{summary.conditions}\nfigure: {folder / plot.name}.png")


def read_checkpoint(path: Path, num_classes: int | None) -> tuple[Detector, Size]:
    """Return the network of a file and the image size of its training. Raises ValueError for a name that is no file."""
    if not path.is_file():
        if path.suffix or len(path.parts) > 1:
            raise ValueError(f"{path}: no such file; give a checkpoint, a configuration, or one of {', '.join(VARIANTS)}")
        raise ValueError(unknown_name("variant", str(path), VARIANTS))
    if num_classes is not None:
        raise ValueError(f"--num_classes is for variants and configurations; {path} has its own classes")
    predictor = load_detector(path)
    return predictor.model, predictor.image_size


def build_network(name: str, num_classes: int) -> Detector:
    """Return an untrained network of a variant, or of the section ``model`` of a configuration file."""
    settings: dict[str, Any] = {"variant": name}
    if name not in VARIANTS:
        add_import_folders([Path(name).resolve().parent])  # own blocks may lie beside the configuration
        section = read_config(Path(name)).get("model") or {}
        if not isinstance(section, dict):
            raise ValueError(f"{name}: model is {section!r}; expected a mapping with {', '.join(MODEL_SETTINGS)}")
        settings = {key: section[key] for key in MODEL_SETTINGS if section.get(key) is not None}
    torch.manual_seed(0)
    return DetectorModule(class_names=[str(n) for n in range(num_classes)], **settings).model.eval()


def print_columns(table: Table) -> None:
    """Print a table: the first column to the left, the others to the right."""
    rows = [list(table.head), *map(list, table.rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for first, *cells in rows:
        print("".join([first.ljust(widths[0]), *(cell.rjust(width + 3) for cell, width in zip(cells, widths[1:]))]))
