"""What does an ImageNet start bring on a small set of photographs?

``python -m benchmarks.backbones --datasets DIR --weights FILE`` trains detectors of size n on the sets in DIR (each laid out
as in ``configs/data/bccd.yaml``) with several seeds, and validates after every epoch. The arms:

    scratch_yolo26      yolo26_n with its own backbone, from scratch, MuSGD
    scratch_timm        the network of timm as backbone, from scratch, AdamW
    imagenet            the same from ImageNet weights: configs/finetune_backbone.yaml
    imagenet_experts4   the same, its pointwise and depthwise convolutions upcycled to 4 experts

and, on request, ``scratch_yolo26_adamw``, ``imagenet_musgd``, ``imagenet_frozen_norms``. All have the same epochs, data and
augmentation. A finished run leaves ``<run>/result.json``, and is not repeated; one that was stopped continues. ``--jobs``
runs at a time share the device. ``--val_every 2`` validates every second epoch. ``--settings model.lr=0.002 ...`` changes
all arms; give such runs a ``--label``.
``--time`` also measures a training step of every arm, alone on the device.

The table has, as means over the seeds: AP of both branches after the last epoch, the best epoch and its NMS-free AP, the
epochs until the final AP of ``scratch_yolo26`` is reached for the first time, parameters, multiply-adds, and the step.
"""

import argparse
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from benchmarks.common import costs, option_parser, print_table, write
from benchmarks.runs import published_arguments, train
from benchmarks.yard import median, milliseconds
from detector import DetectorModule, build_detector
from detector.report.run_folder import read_run, series
from detector.runs.folder import BEST_CHECKPOINT, LAST_CHECKPOINT
from detector.training.batch_size import random_batch
from detector.training.optimizer import build_optimizer, parameter_groups

RECIPE = "configs/finetune_backbone.yaml"
EXPERTS = {"dynamic": {"where": ["backbone-pointwise", "backbone-depthwise"], "num_experts": 4}}
OWN = {"model.backbone": "yolo26", "model.backbone_weights": "none", "model.backbone_lr_ratio": "null"}
MUSGD = {"model.optimizer": "musgd", "model.lr": 0.01, "model.weight_decay": 5e-4}
SCRATCH = {"model.backbone_weights": "none", "model.backbone_lr_ratio": "null"}
ARMS: dict[str, dict[str, Any]] = {  # settings that differ from the recipe
    "scratch_yolo26": OWN | MUSGD,
    "scratch_timm": SCRATCH,
    "imagenet": {},
    "imagenet_experts4": {"model.overrides": json.dumps(EXPERTS)},
    "scratch_yolo26_adamw": OWN,
    "imagenet_musgd": MUSGD,
    "imagenet_frozen_norms": {"model.freeze": json.dumps(["backbone.norms"])},
}
DEFAULT_ARMS = list(ARMS)[:4]
BRANCHES = {"one2one": "val/AP", "one2many": "val/one2many/AP"}
RESULT = "result.json"


def arguments(arm: str, data: str, seed: int, args: argparse.Namespace) -> list[str]:
    """Return the arguments of train.py for a run."""
    settings = {
        "model.backbone": args.backbone,
        "model.backbone_weights": args.weights,
        "data.root": args.datasets / data,
        "data.test_annotations": "null",
        "data.test_images": "null",
        "data.image_size": args.size,
        "data.num_workers": args.workers,
        "trainer.max_epochs": args.epochs,
        "trainer.check_val_every_n_epoch": args.val_every,
        "trainer.accelerator": {"cuda": "gpu"}.get(args.device, args.device),
        "trainer.devices": 1,
        "trainer.enable_progress_bar": "false",
        "seed_everything": seed,
    }
    changed = dict(setting.split("=", 1) for setting in args.settings)
    return published_arguments(settings | ARMS[arm] | changed, ("configs/data/bccd.yaml", RECIPE))


def run_folder(arm: str, data: str, seed: int, args: argparse.Namespace) -> Path:
    """Return the folder of a run."""
    label = f"_{args.label}" if args.label else ""
    return args.runs / f"backbones_{data}_{arm}{label}_s{seed}"


def measure(arm: str, data: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Return the validated epochs of a run and their AP, by branch; start or continue the run if it is not finished."""
    run = run_folder(arm, data, seed, args)
    if not (run / RESULT).exists():
        train(arguments(arm, data, seed, args), run, args.epochs, args.runs / f"{run.name}.log")
        epochs = read_run(run).epochs
        curves = {branch: series(epochs, column)[1] for branch, column in BRANCHES.items()}
        validated = [epoch + 1 for epoch in series(epochs, BRANCHES["one2one"])[0]]
        result = {"arm": arm, "set": data, "seed": seed, "epochs": validated, "AP": curves}
        (run / RESULT).write_text(json.dumps(result) + "\n")
        if not args.keep_checkpoints:
            for name in (LAST_CHECKPOINT, BEST_CHECKPOINT):
                (run / name).unlink(missing_ok=True)
        print(f"{data} {arm} seed {seed}: " + ", ".join(f"{b} {c[-1]:.3f}" for b, c in curves.items()), flush=True)
    return json.loads((run / RESULT).read_text())


def measure_runs(args: argparse.Namespace) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return the finished runs by set and arm, one for each seed; ``args.jobs`` run at a time."""
    os.environ["OMP_NUM_THREADS"] = str(max((os.cpu_count() or 1) // args.jobs, 1))
    results: dict[str, dict[str, list[dict[str, Any]]]] = {data: {arm: [] for arm in args.arms} for data in args.sets}
    tasks = list(product(args.seeds, args.sets, args.arms))  # all arms of the first seed first
    with ThreadPoolExecutor(args.jobs) as pool:
        for (_, data, arm), result in zip(tasks, pool.map(lambda t: measure(t[2], t[1], t[0], args), tasks), strict=True):
            results[data][arm].append({"epochs": result["epochs"], **result["AP"]})
    return results


def overrides(arm: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return the overrides of the detector of an arm."""
    own = ARMS[arm].get("model.backbone") == "yolo26"
    return ({} if own else {"backbone": args.backbone}) | (EXPERTS if "experts4" in arm else {})


def step_ms(arm: str, args: argparse.Namespace) -> float:
    """Return the median milliseconds of a training step: forward, loss, backward, optimizer."""
    optimizer_name = ARMS[arm].get("model.optimizer", "adamw")
    module = DetectorModule("yolo26_n", ["object"], overrides=overrides(arm, args), optimizer=optimizer_name)
    module.to(args.device).train()
    muon = optimizer_name == "musgd"
    optimizer = build_optimizer(optimizer_name, parameter_groups(module.model, 1e-4, 0.0, muon), 0.9)
    batch = random_batch(args.batch, (args.size, args.size), args.device)

    def step() -> None:
        terms = module.loss(module(batch["images"]), batch["targets"], batch["images"].shape[-2:], one2many_weight=0.5)
        terms["total"].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if args.device == "cuda":
            torch.cuda.synchronize()

    for _ in range(5):
        step()
    return median([milliseconds(step) for _ in range(20)])


def network_costs(arm: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return parameters and multiply-adds of the detector of an arm, both branches, and its training step if asked for."""
    parameters, multiply_adds = costs(build_detector("yolo26_n", 80, **overrides(arm, args)).eval(), args.size)
    numbers: dict[str, Any] = {"parameters": parameters, "multiply_adds": multiply_adds}
    return numbers | ({"step_ms": step_ms(arm, args), "step_device": args.device} if args.time else {})


def summary(curves: list[dict[str, list[Any]]], target: float | None) -> dict[str, Any]:
    """Return the numbers of the table for the runs of an arm; ``target`` is the AP to be reached."""
    best = [max(range(len(c["one2one"])), key=c["one2one"].__getitem__) for c in curves]
    numbers: dict[str, Any] = {branch: [c[branch][-1] for c in curves] for branch in BRANCHES}
    numbers |= {"best": [c["one2one"][i] for c, i in zip(curves, best)]}
    numbers |= {"best_epoch": [c["epochs"][i] for c, i in zip(curves, best)]}
    if target is not None:
        reached = [next((e for e, ap in zip(c["epochs"], c["one2one"]) if ap >= target), None) for c in curves]
        numbers["epochs_to_scratch"] = reached
    return numbers


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation."""
    return f"{mean(values):.3f}" + (f" +- {stdev(values):.3f}" if len(values) > 1 else "")


def print_results(data: str, summaries: dict[str, dict[str, Any]], networks: dict[str, dict[str, Any]]) -> None:
    """Print the table of a set."""
    columns = ("NMS-free", "with NMS", "best NMS-free", "best epoch", "epochs to scratch", "M params", "G MACs", "step ms")
    rows = []
    for arm, numbers in summaries.items():
        reached = numbers.get("epochs_to_scratch")
        costs_of_arm = networks[arm]
        rows.append(
            [
                arm,
                *(spread(numbers[name]) for name in ("one2one", "one2many", "best")),
                f"{mean(numbers['best_epoch']):.0f}",
                "-" if reached is None else ", ".join("never" if epoch is None else str(epoch) for epoch in reached),
                f"{costs_of_arm['parameters'] / 1e6:.2f}",
                f"{costs_of_arm['multiply_adds'] / 1e9:.2f}",
                f"{costs_of_arm['step_ms']:.1f}" if "step_ms" in costs_of_arm else "-",
            ]
        )
    print()
    print_table((data, *columns), *rows)


def main() -> None:
    """Train the missing runs, print, write."""
    defaults = {"sets": ["bccd", "cards"], "arms": DEFAULT_ARMS, "seeds": [0, 1, 2], "device": "cpu", "jobs": 1}
    defaults |= {"datasets": Path("datasets"), "weights": Path("efficientnet_lite0_in1k.safetensors"), "runs": Path("runs")}
    defaults |= {
        "backbone": "timm/efficientnet_lite0",
        "epochs": 60,
        "size": 320,
        "batch": 16,
        "workers": 0,
        "val_every": 1,
        "label": "",
    }
    defaults |= {"settings": ["data.batch_size=16"], "time": False, "keep_checkpoints": False}
    args = option_parser(__doc__, **defaults).parse_args()
    if unknown := set(args.arms) - ARMS.keys():
        raise SystemExit(f"error: unknown arms {', '.join(unknown)}; choose from {', '.join(ARMS)}")
    results = measure_runs(args)
    networks = {arm: network_costs(arm, args) for arm in args.arms}
    content: dict[str, Any] = {"networks": networks, "sets": {}}
    for data, arms in results.items():
        scratch = arms.get("scratch_yolo26")
        target = mean(c["one2one"][-1] for c in scratch) if scratch else None
        content["sets"][data] = {arm: summary(curves, target) for arm, curves in arms.items()}
        print_results(data, content["sets"][data], networks)
    shown = ("backbone", "epochs", "size", "seeds", "settings", "label")
    write(f"backbones{'_' + args.label if args.label else ''}", {name: getattr(args, name) for name in shown} | content)


if __name__ == "__main__":
    main()
