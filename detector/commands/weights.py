"""``python -m detector weights CKPT OUT``: write the weights of a checkpoint as .safetensors."""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from detector.commands.options import add_checkpoint, add_option
from detector.files import check_output
from detector.text import plural
from detector.weights import WeightsInfo, build_from, read_weights, save_weights

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

USAGE = "python -m detector weights CKPT OUT [--OPTION VALUE ...]"


def add_weights_command(commands: argparse._SubParsersAction) -> None:
    """Add the command ``weights``."""
    description = "Write the (averaged) weights of a checkpoint, or of a .pt of the public reference, as .safetensors."
    parser = commands.add_parser(
        "weights", help="write the weights of a checkpoint as .safetensors", description=description, usage=USAGE
    )
    add_checkpoint(parser)
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write, ending in .safetensors")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="precision of the values (%(default)s)")
    add_option(parser, "--license", "--licence", help="license of weights that have none yet, e.g. Apache-2.0")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(run=run_weights)


def run_weights(options: argparse.Namespace) -> None:
    """Write the weights of ``options.checkpoint`` to ``options.out`` and print their variant, classes and license."""
    if options.out.suffix != ".safetensors":
        raise ValueError(f"{options.out}: the name must end in .safetensors, from which readers know the format")
    check_output(options.out, options.overwrite)
    weights = read_weights(options.checkpoint)
    build_from(weights)  # weights that do not load raise a ValueError here and are not written
    info = with_license(weights.info, options.license)
    save_weights(options.out, weights.state_dict, info, DTYPES[options.dtype])
    classes = plural(weights.num_classes, "class", "classes")
    print(f"{options.checkpoint}: {weights.kind}")
    backbone = f", backbone {info.overrides['backbone']}" if "backbone" in info.overrides else ""
    print(f"{options.out}: {info.variant}{backbone}, {classes}, {options.dtype}, {info.provenance}")
    thresholds = ", ".join(f"{branch} {info.describe_best_f1(branch)}" for branch in info.best_f1_thresholds)
    print(f"score threshold of the best F1: {thresholds or info.describe_best_f1('one2one')}")
    if weights.info.license is None:
        print(f"license: {info.license or 'not stated; yours to choose, with --license'}")
    else:
        print(f"license: {info.license}. These weights keep the license of their source; converting changes nothing.")


def with_license(info: WeightsInfo, license: str | None) -> WeightsInfo:
    """Return ``info`` with ``license``. Raises ValueError if it has another license already."""
    if license is None or license == info.license:
        return info
    if info.license is not None:
        raise ValueError(f"these weights are under {info.license}, which stays; leave out --license {license}")
    return replace(info, license=license)
