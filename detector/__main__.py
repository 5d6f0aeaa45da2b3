"""Train, evaluate and use detectors: ``detector COMMAND ...``, or ``python -m detector COMMAND ...``."""

import argparse
import gc
import sys
from importlib import import_module
from pathlib import Path

from detector.commands.clone import PROGRAMS, run_program
from detector.option_errors import OptionParser
from detector.text import package_version, print_any_name

PACKAGE = "lightning-dyn-detector"
# Commands, and what each does. Its module in detector/commands/ is imported only for this command: the help starts fast.
COMMANDS = {
    "predict": "detect objects in images and videos",
    "export": "write a detector for another runtime",
    "report": "write one HTML page about a run",
    "weights": "write the weights of a checkpoint as .safetensors",
    "summary": "print what each stage of a network costs",
}


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all commands; with ``command``, only this one has its options.

    The result of the parser has the function to call as ``run``.
    """
    name = "detector" if Path(sys.argv[0]).stem == "detector" else "python -m detector"
    parser = OptionParser(name, description=__doc__)
    parser.add_argument("--version", action="version", version=f"{PACKAGE} {package_version(PACKAGE)}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", prog=name)
    for program in PROGRAMS:
        commands.add_parser(program.command, help=program.purpose, add_help=False)  # run_program runs it
    for other, purpose in COMMANDS.items():
        options = commands.add_parser(other, help=purpose)
        if command in (None, other):
            import_module(f"detector.commands.{other}").add_options(options)
    return parser


def main(args: list[str] | None = None) -> int:
    """Run the command in ``args`` (default: the command line) and return the exit status.

    A ValueError, or an OSError as without permission, ends the program with its message.
    """
    print_any_name()
    words = sys.argv[1:] if args is None else args
    command = next(iter(words), "")
    try:
        for program in PROGRAMS:
            if command == program.command:
                return run_program(program, words[1:])
        options = build_parser(command).parse_args(words)
        return options.run(options) or 0  # most commands return None
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def console() -> int:
    """Run the command line; the program ``detector`` starts here."""
    try:
        return main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130  # as shells report it
    finally:
        gc.freeze()  # saves a second: the garbage collector leaves the imported modules alone when Python exits


if __name__ == "__main__":
    sys.exit(console())
