"""``python -m data.shapes``: draw the embedded data set."""

import argparse
import logging
from pathlib import Path

from data.shapes.write import SHAPES, draw_shapes
from detector.option_errors import OptionParser


def main(args: list[str] | None = None) -> None:
    """Parse ``args``, by default the command line, draw the set and print its folder."""
    parser = OptionParser(prog="python -m data.shapes", description="Draw the embedded data set of shapes.")
    parser.add_argument("--root", type=Path, default=SHAPES, help="folder to fill (%(default)s)")
    parser.add_argument("--num_train", type=int, default=1000, help="training images (%(default)s)")
    parser.add_argument("--num_val", type=int, default=200, help="validation images (%(default)s)")
    parser.add_argument("--num-train", dest="num_train", type=int, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument("--num-val", dest="num_val", type=int, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other images (%(default)s)")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser.parse_args(args)
    try:
        print(draw_shapes(options.root, options.num_train, options.num_val, options.seed))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
