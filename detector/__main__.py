"""What to do with a trained model: ``python -m detector predict|export|report|weights ...``."""

import argparse
import gc
import sys

from detector.commands.export import add_export_command
from detector.commands.predict import add_predict_command
from detector.commands.report import add_report_command
from detector.commands.weights import add_weights_command


def main(args: list[str] | None = None) -> int:
    """Parse ``args`` (by default the command line) and do it; mistakes exit with a message. Returns the exit status."""
    parser = argparse.ArgumentParser("python -m detector", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_predict_command(commands)
    add_export_command(commands)
    add_report_command(commands)
    add_weights_command(commands)
    options = parser.parse_args(args)
    try:
        return options.run(options)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    gc.freeze()  # what is imported stays: Python would look through it once more at the end
    sys.exit(main())
