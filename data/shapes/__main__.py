"""``python -m data.shapes [FOLDER]``: draw the embedded data set, a simple one, or a folder of images for each class."""

import argparse
from collections.abc import Callable
from pathlib import Path

from data.shapes.single import KINDS
from data.shapes.write import SHAPES, SIMPLE_SHAPES, SINGLE_SHAPES, draw_shapes, draw_simple_shapes, draw_singles
from detector.option_errors import OptionParser

DESCRIPTION = """Draw the embedded data set of shapes, in COCO format; with --simple, the set of `make demo`. With --single,
draw images of one shape each, as FOLDER/train/<class>/*.png and FOLDER/val/<class>/*.png: a set for classification."""
OPTIONS = ("num_train", "num_val", "num_classes", "image_size", "seed")
ONLY_SINGLE = ("num_classes", "image_size")


def make_parser() -> OptionParser:
    """Return the parser of the command. Numbers that are not given are absent: their defaults depend on ``--single``."""
    parser = OptionParser(prog="python -m data.shapes", description=DESCRIPTION, argument_default=argparse.SUPPRESS)
    folders = parser.add_mutually_exclusive_group()
    folders.add_argument(
        "folder", metavar="FOLDER", nargs="?", type=Path, default=None,
        help=f"folder to fill ({SHAPES}; with --simple {SIMPLE_SHAPES}, with --single {SINGLE_SHAPES})",
    )  # fmt: skip
    folders.add_argument("--root", type=Path, default=None, help="the same")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--simple", action="store_true", default=False, help="few large shapes, in smaller images")
    kinds.add_argument("--single", action="store_true", default=False, help="images of one shape, by class")
    parser.add_argument(
        "--num_train", type=int, help="training images (1000; with --simple 640; with --single 160, of all classes together)"
    )
    parser.add_argument("--num_val", type=int, help="validation images (200; with --simple 160, with --single 40)")
    parser.add_argument("--num_classes", type=int, help=f"with --single: number of classes, up to {len(KINDS)} (4)")
    parser.add_argument("--image_size", type=int, help="with --single: side of the images, in px (64)")
    parser.add_argument("--num-train", dest="num_train", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--num-val", dest="num_val", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help="another seed gives other images (0)")
    return parser


def main(args: list[str] | None = None) -> None:
    """Parse ``args``, by default the command line, draw the set and print its folder."""
    parser = make_parser()
    options = parser.parse_args(args)
    numbers = {name: getattr(options, name) for name in OPTIONS if hasattr(options, name)}
    if not options.single and (extra := [name for name in ONLY_SINGLE if name in numbers]):
        parser.error(
            f"--{extra[0]} is only for --single: the images of the embedded set have fixed classes and random sizes"
        )
    draw: Callable[..., Path]
    draw, default = (draw_simple_shapes, SIMPLE_SHAPES) if options.simple else (draw_shapes, SHAPES)
    if options.single:
        draw, default = draw_singles, SINGLE_SHAPES
    try:
        print(draw(options.folder or options.root or default, **numbers))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
