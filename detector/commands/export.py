"""``python -m detector export CKPT --format onnx``: write a detector for another runtime."""

import argparse
from pathlib import Path

from detector.commands.options import add_checkpoint, add_image_size, parse_image_size
from detector.export import ExportSettings, export
from detector.export.formats import PACKAGES, SUFFIXES
from detector.extras import check_installed
from detector.files import check_output
from detector.network.head import BRANCHES
from detector.predict import load_detector


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add description, usage and options of the command ``export``."""
    parser.description = "Write a detector as ONNX, OpenVINO, TorchScript or torch.export file; see docs/export.md."
    parser.usage = "%(prog)s CKPT [--OPTION VALUE ...]"
    add_checkpoint(parser)
    parser.add_argument("--format", choices=SUFFIXES, default="onnx", help="(%(default)s)")
    parser.add_argument("--out", type=Path, help="file to write; default: the checkpoint's name with the format's suffix")
    parser.add_argument(
        "--output", choices=("end2end", "raw"), default="end2end", help="detections, or boxes and scores of all anchors"
    )
    parser.add_argument("--branch", choices=BRANCHES, default="one2one", help="one2many needs --output raw")
    add_image_size(parser)
    parser.add_argument("--batch_size", type=int, default=1, help="of the graph (%(default)s)")
    parser.add_argument("--dynamic", nargs="+", choices=("batch", "size"), default=[], help="take any batch, or input, size")
    parser.add_argument("--half", action="store_true", help="float16 weights; input and output stay float32")
    parser.add_argument("--dynamic_form", choices=("mix", "experts"), help="of dynamic layers; mix is for batch 1 only")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(run=run_export)


def run_export(options: argparse.Namespace) -> None:
    """Write the exported file and print its metadata."""
    check_installed(f"--format {options.format}", *PACKAGES[options.format])
    out = options.out or options.checkpoint.with_suffix(SUFFIXES[options.format])
    paths = (out, out.with_suffix(".bin")) if options.format == "openvino" else (out,)
    for path in paths:
        check_output(path, options.overwrite)
    if "batch" in options.dynamic and options.batch_size != 1:
        raise ValueError("--dynamic batch takes any batch size; leave out --batch_size")
    batch_size, dynamic_size = None if "batch" in options.dynamic else options.batch_size, "size" in options.dynamic
    settings = ExportSettings(options.output, batch_size, dynamic_size, options.half, options.dynamic_form)
    predictor = load_detector(options.checkpoint, options.branch, parse_image_size(options.image_size))
    metadata = export(predictor, out, options.format, settings)
    print(f"{out}: {metadata['version']}, {sum(path.stat().st_size for path in paths) / 1e6:.1f} MB")
    for name, value in metadata.items():
        if name not in ("version", "provenance"):
            print(f"  {name}: {value}")
    if "best_f1_threshold" not in metadata:
        print(f"  best_f1_threshold (not in the file): {predictor.info.describe_best_f1(predictor.branch)}")
