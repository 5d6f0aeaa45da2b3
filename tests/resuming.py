"""Small but complete runs, for tests that stop and resume them; also on two processes."""

import contextlib
import json
import os
import signal
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.multiprocessing import ProcessRaisedException

from data import CocoDataModule
from data.transforms import Augmentation
from detector import DetectorModule
from detector.callbacks.coco_evaluation import CocoEvaluation
from detector.callbacks.ema import RampedEMA
from detector.callbacks.non_finite_guard import NonFiniteGuard
from detector.callbacks.save_on_signal import SaveOnSignal, StoppedBySignal
from detector.runs.checkpoint_io import AtomicCheckpointIO

TINY = {"width": 0.125, "depth": 0.33}  # of a variant


@dataclass
class Kill(L.Callback):
    """Send a signal to the process ``rank`` at the start of batch ``batch`` of epoch ``epoch``."""

    epoch: int
    batch: int
    rank: int = 0
    signum: int = signal.SIGTERM

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, index: int) -> None:
        if (trainer.current_epoch, index, trainer.global_rank) == (self.epoch, self.batch, self.rank):
            os.kill(os.getpid(), self.signum)


class Losses(L.Callback):
    """Append epoch, batch and exact loss of every batch to ``folder``/losses<rank>.txt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        with open(self.folder / f"losses{trainer.global_rank}.txt", "a") as file:
            file.write(f"{trainer.current_epoch} {index} {outputs['loss'].item().hex()}\n")


def fit(
    arguments: dict[str, Any],
    folder: Path,
    *callbacks: L.Callback,
    resume: Path | None = None,
    freeze: list[str] | None = None,
    without: str | None = None,
    max_epochs: int = 4,
    **options: Any,
) -> StoppedBySignal | None:
    """Train with mosaic, MuSGD, EMA and a warm-up that ends in epoch 2; return the exception of a signal that stops it.

    ``without`` names a branch to remove from the head.
    """
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0 if resume is None else 99)  # a state that is not restored changes the numbers
    augment = Augmentation(mosaic=1.0, close_mosaic=1)
    data = CocoDataModule(**arguments | {"augment": augment})
    # Everything that a dynamic layer can have in training: test_old_runs.py resumes a run with mixtures.
    dynamic = {"kind": "residual", "num_experts": 2, "gates": ["input", "filter"], "routing": "softmax", "temperature": 9}
    overrides = TINY | {"dynamic": dynamic}
    settings = {"warmup_epochs": 2.5, "nominal_batch": 4, "freeze": freeze}
    module = DetectorModule("dyn_n", data.class_names, data.category_ids, overrides, **settings)
    if without:
        setattr(module.model.head, without, None)
    evaluation = CocoEvaluation("one2one" if without else "both")
    last = ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    best = ModelCheckpoint(folder, "best", monitor="val/AP", mode="max", enable_version_counter=False)
    save_on_signal = SaveOnSignal(folder / "last.ckpt")
    callbacks += (RampedEMA(tau=3), NonFiniteGuard(), evaluation, Losses(folder), save_on_signal, best, last)
    trainer = L.Trainer(
        max_epochs=max_epochs,
        callbacks=list(callbacks),
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,  # as in the config.yaml of older runs
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    except StoppedBySignal as stop:
        return stop
    return None


def losses(folder: Path, rank: int = 0) -> list[str]:
    return (folder / f"losses{rank}.txt").read_text().splitlines()


def differences(a: Path, b: Path) -> list[str]:
    """Return the names of what differs in two checkpoints: raw and averaged weights, optimizer, steps, best AP."""
    one, other = (torch.load(path, weights_only=True) for path in (a, b))
    names = [name for name in ("epoch", "global_step") if one[name] != other[name]]
    for part in ("state_dict", "current_model_state"):
        names += [f"{part} {name}" for name, value in one[part].items() if not torch.equal(value, other[part][name])]
    states = [list(c["optimizer_states"][0]["state"].values()) for c in (one, other)]
    for i, (x, y) in enumerate(zip(*states, strict=True)):
        names += [f"optimizer {i} {n}" for n in x if not torch.equal(torch.as_tensor(x[n]), torch.as_tensor(y[n]))]
    scores = [[s["best_model_score"] for n, s in c["callbacks"].items() if "val/AP" in n] for c in (one, other)]
    return names + ["best"] * (scores[0] != scores[1])


def run_on_two_processes(words: list[str]) -> None:
    """Run without a stop on two processes, then stop a run by a signal to the second process and resume it.

    ``words`` are a folder and the arguments of CocoDataModule as JSON.
    """
    folder, arguments = Path(words[0]), json.loads(words[1])
    warnings.simplefilter("ignore")
    many = {"devices": 2, "strategy": "ddp_fork", "max_epochs": 2}
    fit(arguments, folder / "straight", **many)
    with contextlib.suppress(ProcessRaisedException):  # a process has raised StoppedBySignal
        fit(arguments, folder / "stopped", Kill(1, 1, rank=1), **many)
    fit(arguments, folder / "stopped", resume=folder / "stopped" / "last.ckpt", **many)

    # Runs in which parameters have no gradient, for which DDP raises an error unless they are handled.
    short = many | {"max_epochs": 1, "limit_val_batches": 0, "limit_train_batches": 2}
    arguments |= {"num_workers": 0}
    empty = arguments | {"train_annotations": "annotations/empty.json"}
    fit(empty, folder / "empty", freeze=["backbone"], **short)
    fit(arguments, folder / "one branch", without="one2many", **short)
