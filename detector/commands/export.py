"""``python -m detector export CKPT --format onnx``: write a detector for another runtime, from the command line."""

import argparse
import importlib.util
from pathlib import Path

from detector.commands.predict import size_of
from detector.export.formats import SUFFIXES, export
from detector.export.graph import ExportSettings
from detector.network.head import BRANCHES
from detector.predict.predictor import load_detector

NEEDS = {"onnx": ("onnx",), "openvino": ("onnx", "openvino"), "torchscript": (), "torch-export": ()}


def add_export_command(commands: argparse._SubParsersAction) -> None:
    """Add ``export``."""
    parser = commands.add_parser(
        "export",
        help="write a detector for another runtime",
        description="Write a detector as ONNX, OpenVINO, TorchScript or torch.export file; see docs/export.md.",
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint of ours, a .safetensors, or a .pt of the reference")
    parser.add_argument("--format", choices=SUFFIXES, default="onnx", help="(%(default)s)")
    parser.add_argument("--out", type=Path, help="file to write; default: the checkpoint's name with the format's suffix")
    parser.add_argument(
        "--output", choices=("end2end", "raw"), default="end2end", help="detections (B, 300, 6), or boxes and scores of all"
    )
    parser.add_argument("--branch", choices=BRANCHES, default=BRANCHES[0], help="one2many needs --output raw")
    parser.add_argument("--image_size", type=int, nargs="+", help="one side, or height and width (those of training)")
    parser.add_argument("--batch_size", type=int, default=1, help="of the graph (%(default)s)")
    parser.add_argument("--dynamic", nargs="+", choices=("batch", "size"), default=[], help="take any batch, or input, size")
    parser.add_argument("--half", action="store_true", help="float16 weights; input and output stay float32")
    parser.add_argument("--dynamic_form", choices=("mix", "experts"), help="of dynamic layers; mix is for batch 1 only")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.set_defaults(run=run_export)


def run_export(options: argparse.Namespace) -> int:
    """Do what ``options`` say and print what the file is. Returns 0."""
    if missing := [name for name in NEEDS[options.format] if importlib.util.find_spec(name) is None]:
        raise ValueError(f"--format {options.format} needs {', '.join(missing)}: pip install lightning-dyn-detector[export]")
    out = options.out or options.checkpoint.with_suffix(SUFFIXES[options.format])
    written = (out, out.with_suffix(".bin")) if options.format == "openvino" else (out,)
    if not options.overwrite and (there := [path for path in written if path.exists()]):
        raise ValueError(f"{there[0]} is there already; choose another --out, or give --overwrite")
    if "batch" in options.dynamic and options.batch_size != 1:
        raise ValueError("--dynamic batch takes any batch size; leave out --batch_size")
    settings = ExportSettings(
        output=options.output,
        batch_size=None if "batch" in options.dynamic else options.batch_size,
        dynamic_size="size" in options.dynamic,
        half=options.half,
        dynamic_form=options.dynamic_form,
    )
    predictor = load_detector(options.checkpoint, options.branch, size_of(options.image_size))
    about = export(predictor, out, options.format, settings)
    print(f"{out}: {about['version']}, {sum(path.stat().st_size for path in written) / 1e6:.1f} MB")
    print(*(f"  {name}: {value}" for name, value in about.items() if name not in ("version", "provenance")), sep="\n")
    return 0
