"""Use a trained model: ``python -m detector predict|export|report|weights|summary ...``."""

import argparse
import gc
import sys

from detector.commands.export import add_export_command
from detector.commands.predict import add_predict_command
from detector.commands.report import add_report_command
from detector.commands.summary import add_summary_command
from detector.commands.weights import add_weights_command
from detector.option_errors import OptionParser
from detector.text import print_any_name


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands. Its result has the function to call as ``run``."""
    parser = OptionParser("python -m detector", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_predict_command(commands)
    add_export_command(commands)
    add_report_command(commands)
    add_weights_command(commands)
    add_summary_command(commands)
    return parser


def main(args: list[str] | None = None) -> int:
    """Run the command in ``args`` (default: the command line) and return the exit status.

    A ValueError, or an OSError as without permission, ends the program with its message.
    """
    print_any_name()
    options = build_parser().parse_args(args)
    try:
        return options.run(options) or 0  # most commands return None
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    gc.freeze()  # saves a second: the garbage collector leaves the imported modules alone when Python exits
    sys.exit(main())
