"""``python -m detector weights CKPT OUT``: write weights as .safetensors."""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from detector.text import plural
from detector.weights.files import read_weights, save_weights
from detector.weights.info import WeightsInfo
from detector.weights.load import build_from

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def add_weights_command(commands: argparse._SubParsersAction) -> None:
    """Add ``weights``."""
    parser = commands.add_parser(
        "weights",
        help="write the weights of a checkpoint as .safetensors",
        description="Write the (averaged) weights of a checkpoint, or of a .pt of the public reference, as .safetensors.",
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint of ours, a .safetensors, or a .pt of the reference")
    parser.add_argument("out", type=Path, help="file to write, ending in .safetensors")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="precision of the values; default %(default)s")
    parser.add_argument("--license", help="license of weights that have none yet, e.g. Apache-2.0")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.set_defaults(run=write_weights)


def write_weights(options: argparse.Namespace) -> int:
    """Convert ``options.checkpoint`` into ``options.out`` and say what it holds and under which license. Returns 0."""
    if options.out.suffix != ".safetensors":
        raise ValueError(f"{options.out}: the name must end in .safetensors, by which the file is known when it is read")
    if options.out.exists() and not options.overwrite:
        raise ValueError(f"{options.out} is there already; choose another name or give --overwrite")
    if not options.out.parent.is_dir():
        raise ValueError(f"{options.out.parent}: no such folder; make it first")
    weights = read_weights(options.checkpoint)
    build_from(weights)  # what does not load is not passed on
    info = with_license(weights.info, options.license)
    save_weights(options.out, weights.state_dict, info, DTYPES[options.dtype])
    classes = plural(weights.num_classes, "class", "classes")
    print(f"{options.out}: {info.variant}, {classes}, {options.dtype}, {info.provenance}")
    if weights.info.license is not None:
        print(
            f"license: {info.license}. These weights keep the license of those they come from; converting changes nothing."
        )
    else:
        print(f"license: {info.license or 'not stated; yours to choose, with --license'}")
    return 0


def with_license(info: WeightsInfo, license: str | None) -> WeightsInfo:
    """Return ``info`` under ``license``; a license that is there stays, and another one is refused."""
    if license is None or license == info.license:
        return info
    if info.license is not None:
        raise ValueError(f"these weights are under {info.license}, which stays; leave out --license {license}")
    return replace(info, license=license)
