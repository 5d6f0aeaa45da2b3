"""Command-line options: the ones that several commands share, and old spellings that still work."""

import argparse
from pathlib import Path
from typing import Any, Literal

import torch

from detector.batch import Size, as_size
from detector.imaging.tiles import DEFAULT_OVERLAP, MAX_OVERLAP, as_optional_tiling

OVERLAP_HELP = (
    f"share of a tile by which neighbors overlap, 0 to {MAX_OVERLAP} (default {DEFAULT_OVERLAP}); objects up to this length "
    "are whole in a tile"
)


def add_option(parser: argparse.ArgumentParser, name: str, *old_names: str, **settings: Any) -> None:
    """Add the option ``name``. Its ``old_names`` still work, but the help does not show them."""
    parser.add_argument(name, **settings)
    hidden = {"dest": name.lstrip("-"), "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
    parser.add_argument(*old_names, **settings | hidden)


def parse_score_threshold(text: str) -> float | Literal["best"]:
    """Return the value of ``--score_threshold``: a number, or "best". argparse prints the error for anything else."""
    if text == "best":
        return "best"
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number in 0..1 nor best") from None


def parse_device(text: str) -> torch.device:
    """Return the value of ``--device``. Raises ValueError for a name that no device has."""
    try:
        return torch.device(text)
    except RuntimeError:
        known = "cpu, cuda (the first NVIDIA or AMD GPU), cuda:1 (the second one) or mps (Apple)"
        raise ValueError(f"--device {text} cannot be used: there is no device of this name; expected {known}") from None


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the argument ``checkpoint``."""
    parser.add_argument(
        "checkpoint", metavar="CKPT", type=Path, help="a checkpoint of ours, a .safetensors, or a .pt of the reference"
    )


def add_image_size(parser: argparse.ArgumentParser) -> None:
    """Add ``--image_size``; ``parse_image_size`` takes its value."""
    parser.add_argument("--image_size", type=int, nargs="+", help="one side, or height and width; default: as in training")


def parse_image_size(sides: list[int] | None) -> Size | None:
    """Return the value of ``--image_size`` as (height, width). Raises ValueError for more than two sides."""
    if sides is None:
        return None
    return as_size(sides[0] if len(sides) == 1 else sides, "--image_size")


def add_tiles(parser: argparse.ArgumentParser) -> None:
    """Add ``--tile`` and ``--overlap``; ``parse_tile`` takes the value of the first."""
    tile_help = (
        "cut images into tiles of so many pixels (one side, or height and width) and detect in each: for small objects"
    )
    parser.add_argument("--tile", type=int, nargs="+", metavar="PIXELS", help=tile_help)
    parser.add_argument("--overlap", type=float, help=OVERLAP_HELP)


def parse_tile(sides: list[int] | None, overlap: float | None) -> Size | None:
    """Return the value of ``--tile`` as (height, width). Raises ValueError for wrong values and a lone ``--overlap``."""
    tiling = as_optional_tiling(sides[0] if sides and len(sides) == 1 else sides, overlap, "--")
    return None if tiling is None else tiling.size
