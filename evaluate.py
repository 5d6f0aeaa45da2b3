"""Evaluate a checkpoint or weights file: ``python evaluate.py runs/dyn_n/best.ckpt --config runs/dyn_n/config.yaml``.

The configuration names the data, as in train.py. ``--split test`` evaluates on the test data.
"""

from data import CocoDataModule
from detector.commands.evaluate_cli import EvaluateCLI


def main(args: list[str] | None = None) -> None:
    """Evaluate as ``args`` say, by default the command line."""
    cli = EvaluateCLI(CocoDataModule, args)  # reads the configuration; builds data, network and trainer
    cli.evaluate()
    cli.print_results()


if __name__ == "__main__":
    main()
