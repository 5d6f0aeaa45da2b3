"""Pre-train a backbone as a classifier: ``python pretrain.py --config configs/pretrain_dyn_n.yaml --data.root FOLDER``.

FOLDER has train/<class>/... and val/<class>/... with images. Configuration files are merged in the order given, over
``configs/pretrain.yaml``, and any value can be set on the command line: ``--model.lr 0.001``. ``--ckpt_path`` resumes a run.
A detector starts from the result: ``python train.py ... --model.backbone_weights runs/pretrain_dyn_n/best.ckpt``.
"""

from data import ImageFolderDataModule
from detector.commands.pretrain_cli import PretrainCLI


def main(args: list[str] | None = None) -> None:
    """Pre-train as ``args`` say, by default the command line."""
    cli = PretrainCLI(ImageFolderDataModule, args)  # reads the configuration; builds data, network and trainer
    cli.fit()
    cli.print_results()


if __name__ == "__main__":
    main()
