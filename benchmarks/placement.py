"""Which convolutions of the detector should be dynamic?

``python -m benchmarks.placement --root datasets/bccd --jobs 2`` (about 2 hours on 2 cores; a stopped study
continues where it was; ``--jobs`` trainings at a time share the cores) trains on the blood cells at 224 px for 20 epochs:

1. every name of ``where`` with both routings, one seed: this sorts them by validation AP;
2. the plain network and the best two, five seeds each: mean difference to the plain network of the same seed, with the 95 %
   interval of a paired t-test, on validation and test set; once more without seed 0, by which they were chosen;
3. two possible reasons why dynamic layers do not help, ``--explained_seeds`` seeds each: routers that learn too slowly, and
   experts that learn too fast. (An orthogonalized step does not shrink with the routing weight of an expert. So if routing
   weights sum to 2, a step moves the mixed kernel twice as far.) The variation of routing weights between images is printed.

All APs are those of the averaged weights after the last epoch: choosing the best epoch would favor the validation set.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.common import option_parser, print_table, write
from benchmarks.dynamic import NETWORKS
from benchmarks.paired import difference
from benchmarks.runs import as_arguments, measure_all, run_coco_eval, train
from detector.network.head import BRANCHES
from detector.runs.folder import LAST_CHECKPOINT, METRICS

EPOCHS, SEEDS, SPLITS = 20, range(5), ("val", "test")
COLUMNS = list(product(SPLITS, BRANCHES))  # of the tables
Numbers = dict[str, dict[str, float]]  # split -> "<branch> <metric>" -> value


@dataclass(frozen=True)
class Arm:
    """One arm of the study: a network, and the settings in which its training differs."""

    name: str
    dynamic: dict[str, Any] | None  # the fields of DynamicConfig
    settings: dict[str, str] = field(default_factory=dict)  # further arguments of train.py

    def arguments(self, root: Path) -> list[str]:
        """Return the arguments of train.py."""
        configs = ["configs/yolo26_n.yaml", "configs/data/bccd.yaml", "configs/bccd_scratch.yaml"]
        settings = {"data.root": str(root), "data.image_size": "224", "trainer.max_epochs": str(EPOCHS)}
        settings["model.nominal_batch"] = "16"  # a step every batch; with 64 there are 80 steps in all, and AP is 0.27
        settings |= {"model.overrides": json.dumps({"dynamic": self.dynamic})} | self.settings
        return as_arguments(settings, configs)


PLAIN, *ARMS = (Arm(name, fields) for name, fields in NETWORKS.items())
DEFAULT = ARMS[0]
LAYERS = "backbone.stage_p?.blocks.*conv[12].conv"  # those of DEFAULT, as a pattern for model.lr_ratios
EXPLANATIONS = [
    Arm(f"{DEFAULT.name}, {change}", DEFAULT.dynamic, {"model.lr_ratios": json.dumps(ratios)})
    for change, ratios in {"router x 30": {"*.router": 30.0}, "experts x 0.5": {LAYERS: 0.5, "*.router": 1.0}}.items()
]


class Study:
    """Trains arms. It keeps no state: the run folders show which trainings are finished."""

    def __init__(self, root: Path, runs: Path, jobs: int) -> None:
        self.root, self.runs, self.jobs = root, runs, jobs

    def measure(self, arms: list[Arm], seeds: Sequence[int]) -> dict[str, list[Numbers]]:
        """Return the APs of every arm by its name, one entry for each seed, training ``jobs`` at a time."""
        by_name = {arm.name: arm for arm in arms}
        return measure_all(lambda name, seed: self._measure(by_name[name], seed), by_name, seeds, self.jobs)

    def _measure(self, arm: Arm, seed: int) -> Numbers:
        run = self.run_of(arm, seed)
        common = arm.arguments(self.root)
        rest = {"seed_everything": seed, "evaluation.branch": "one2one", "data.num_workers": 0}
        rest |= {"trainer.check_val_every_n_epoch": EPOCHS}
        train([*common, *as_arguments(rest)], run, EPOCHS)
        return {split: run_coco_eval(common, run / LAST_CHECKPOINT, self.root, split) for split in SPLITS}

    def run_of(self, arm: Arm, seed: int) -> Path:
        """Return the run folder of an arm and seed."""
        return self.runs / f"placement_{arm.name.replace(', ', '_').replace(' ', '-')}_s{seed}"

    def variation(self, arm: Arm, seed: int) -> float:
        """Return how much routing weights varied between images in the last epoch of a run, as the mean over the layers."""
        with (self.run_of(arm, seed) / METRICS).open(newline="") as file:
            rows = list(csv.DictReader(file))
        names = [name for name in rows[-1] if name.startswith("routing/") and name.endswith("/variation")]
        return mean(float(next(row[name] for row in reversed(rows) if row[name])) for name in names)


def show(results: dict[str, list[Numbers]], heading: str) -> None:
    """Print a line for each arm: AP of both branches on both sets, the mean over its seeds."""
    rows = [
        [name, *(f"{mean(n[split][f'{branch} AP'] for n in numbers):.3f}" for split, branch in COLUMNS)]
        for name, numbers in results.items()
    ]
    print()
    print_table((heading, *map(" ".join, COLUMNS)), *rows)


def compare(results: dict[str, list[Numbers]], base: str) -> dict[str, dict[str, tuple[float, float | None]]]:
    """Print and return the difference of every arm to ``base``, by set and branch."""
    compared: dict[str, dict[str, tuple[float, float | None]]] = {name: {} for name in results if name != base}
    for name, (split, branch) in product(compared, COLUMNS):
        arm, plain = ([n[split][f"{branch} AP"] for n in results[key]] for key in (name, base))
        compared[name][f"{split} {branch}"] = difference(arm, plain)
    rows = [
        [name, *(f"{m:+.3f}" + ("" if half is None else f" +- {half:.3f}") for m, half in columns.values())]
        for name, columns in compared.items()
    ]
    print()
    print_table((f"minus {base}, 95 % interval", *map(" ".join, COLUMNS)), *rows)
    return compared


def compare_best(study: Study) -> dict[str, Any]:
    """Train all arms with one seed, then the plain network and the best two with all seeds; print and return the results."""
    first = study.measure([PLAIN, *ARMS], [0])
    show(first, "seed 0")
    sorting = {name: numbers for name, (numbers,) in first.items()}
    best = sorted(ARMS, key=lambda arm: -sorting[arm.name]["val"]["one2one AP"])[:2]
    results = study.measure([PLAIN, *best], SEEDS)
    show(results, f"mean of {len(SEEDS)} seeds")
    compared = compare(results, PLAIN.name)
    print("\nthe same without seed 0:")
    unbiased = compare({name: numbers[1:] for name, numbers in results.items()}, PLAIN.name)
    return {"sorting": sorting, "seeds": results, "compared": compared, "compared without seed 0": unbiased}


def explain(study: Study, num_seeds: int) -> dict[str, Any]:
    """Train the default and the arms that may explain its result; print and return the results."""
    arms = [DEFAULT, *EXPLANATIONS]
    results = study.measure(arms, range(num_seeds))
    variation = {arm.name: [study.variation(arm, seed) for seed in range(num_seeds)] for arm in arms}
    show(results, f"mean of {num_seeds} seeds")
    compared = compare(results, DEFAULT.name)
    for name, values in variation.items():
        print(f"{name}: routing weights vary between images by " + ", ".join(f"{value:.4f}" for value in values))
    return {"explained": results, "against default": compared, "variation": variation}


def main() -> None:
    """Train the missing runs, print, write."""
    defaults = {"root": Path("datasets/bccd"), "runs": Path("runs"), "explained_seeds": 3, "jobs": 1}
    args = option_parser(__doc__, **defaults).parse_args()
    study = Study(args.root, args.runs, args.jobs)
    content = compare_best(study)
    write("placement", content)
    write("placement", content | explain(study, args.explained_seeds))


if __name__ == "__main__":
    main()
