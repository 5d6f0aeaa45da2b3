"""Train a detector: ``python train.py --config configs/dyn_n.yaml``.

Configuration files are merged in the order given, over ``configs/base.yaml``, and any value can be set on the command
line: ``--model.lr 0.02``. ``--ckpt_path`` resumes a run.
"""

from data import CocoDataModule
from detector.commands.train_cli import TrainCLI


def main(args: list[str] | None = None) -> None:
    """Train as ``args`` say, by default the command line."""
    cli = TrainCLI(CocoDataModule, args)  # reads the configuration; builds data, network and trainer
    cli.fit()
    cli.print_results()


if __name__ == "__main__":
    main()
