"""Which convolutions of the detector should be dynamic? Trained and compared, not guessed.

``python -m benchmarks.placement --root datasets/bccd --jobs 2`` (about 1.5 hours on 2 cores; it goes on where it was
stopped) trains on the blood cells at 224 px for 20 epochs:

1. every place with both routings, one seed: this sorts them by validation AP;
2. the plain network and the best two, five seeds each: mean difference to the plain network of the same seed, with the 95 %
   interval of a paired t-test, on validation and test set.

All APs are of the average weights after the last epoch, so that no choice of an epoch flatters the validation set.
"""

import argparse
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.runs import judge, train, write
from detector.evaluation import BRANCHES
from detector.exchange import PLACES

EPOCHS, SEEDS, SPLITS = 20, range(5), ("val", "test")
T_95 = {4: 2.776}  # two-sided quantile of Student's t by degrees of freedom
Numbers = dict[str, dict[str, float]]  # split -> "<branch> <metric>" -> value


@dataclass(frozen=True)
class Arm:
    """One thing to train: a network, and how its training differs."""

    name: str
    dynamic: dict[str, Any] | None  # the fields of DynamicConfig
    settings: dict[str, str] = field(default_factory=dict)  # further arguments of train.py

    def arguments(self, root: Path) -> list[str]:
        """Return the arguments of train.py."""
        configs = ["configs/yolo26_n.yaml", "configs/data/bccd.yaml", "configs/bccd_scratch.yaml"]
        settings = {"data.root": str(root), "data.image_size": "224", "trainer.max_epochs": str(EPOCHS)}
        settings["model.nominal_batch"] = "16"  # a step every batch: 64 would leave 80 steps in all, and AP at 0.27
        settings |= {"model.overrides": json.dumps({"dynamic": self.dynamic})} | self.settings
        return [f"--config={config}" for config in configs] + [f"--{name}={value}" for name, value in settings.items()]


PLAIN = Arm("plain", None)
ARMS = [
    Arm(f"{place}, {routing}", {"where": place, "routing": routing})
    for place, routing in product(PLACES, ("sigmoid", "softmax"))
]


class Study:
    """Trains arms and remembers nothing: what is done is in the run folders."""

    def __init__(self, root: Path, runs: Path, jobs: int) -> None:
        self.root, self.runs, self.jobs = root, runs, jobs

    def measure(self, pairs: list[tuple[Arm, int]]) -> list[Numbers]:
        """Return the APs of every (arm, seed), training ``jobs`` at a time."""
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(lambda pair: self._measure(*pair), pairs))

    def _measure(self, arm: Arm, seed: int) -> Numbers:
        slug = arm.name.replace(", ", "_").replace(" ", "-")
        run = self.runs / f"placement_{slug}_s{seed}"
        common = arm.arguments(self.root)
        rest = {"seed_everything": seed, "evaluation.branch": "one2one", "data.num_workers": 0}
        rest |= {"trainer.check_val_every_n_epoch": EPOCHS}
        train([*common, *(f"--{name}={value}" for name, value in rest.items())], run, EPOCHS)
        folder = self.root / "annotations"
        return {split: judge(common, run / "last.ckpt", folder / f"instances_{split}.json", split) for split in SPLITS}


def difference(arm: list[float], plain: list[float]) -> tuple[float, float]:
    """Return the mean of the paired differences and half of the width of its 95 % interval."""
    differences = [a - p for a, p in zip(arm, plain, strict=True)]
    return mean(differences), T_95[len(differences) - 1] * stdev(differences) / len(differences) ** 0.5


def show(results: dict[str, list[Numbers]], heading: str) -> None:
    """Print one line an arm: AP of both branches on both sets, the mean over its seeds."""
    print(f"\n{heading:<36}" + "".join(f"{f'{split} {branch}':>16}" for split in SPLITS for branch in BRANCHES))
    for name, numbers in results.items():
        cells = [mean(n[split][f"{branch} AP"] for n in numbers) for split in SPLITS for branch in BRANCHES]
        print(f"{name:<36}" + "".join(f"{value:>16.3f}" for value in cells))


def compare(results: dict[str, list[Numbers]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Return and print for every arm but the plain one its difference to that, by set and branch."""
    compared: dict[str, dict[str, tuple[float, float]]] = {}
    print(f"\n{'minus plain, mean and 95 % interval':<36}" + "".join(f"{f'{s} {b}':>22}" for s in SPLITS for b in BRANCHES))
    for name, numbers in results.items():
        if name == PLAIN.name:
            continue
        for split, branch in product(SPLITS, BRANCHES):
            arm, plain = ([n[split][f"{branch} AP"] for n in rows] for rows in (numbers, results[PLAIN.name]))
            compared.setdefault(name, {})[f"{split} {branch}"] = difference(arm, plain)
        print(f"{name:<36}" + "".join(f"{f'{m:+.3f} +- {half:.3f}':>22}" for m, half in compared[name].values()))
    return compared


def main() -> None:
    """Train what is missing, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("datasets/bccd"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, each with its share of the cores")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(max((os.cpu_count() or 1) // args.jobs, 1))
    study = Study(args.root, args.runs, args.jobs)

    sorting = dict(zip([arm.name for arm in (PLAIN, *ARMS)], study.measure([(arm, 0) for arm in (PLAIN, *ARMS)])))
    show({name: [numbers] for name, numbers in sorting.items()}, "seed 0")
    best = sorted(ARMS, key=lambda arm: -sorting[arm.name]["val"]["one2one AP"])[:2]

    pairs = [(arm, seed) for seed in SEEDS for arm in (PLAIN, *best)]
    results: dict[str, list[Numbers]] = {arm.name: [] for arm in (PLAIN, *best)}
    for (arm, _), numbers in zip(pairs, study.measure(pairs), strict=True):
        results[arm.name].append(numbers)
    show(results, f"mean of {len(SEEDS)} seeds")
    compared = compare(results)
    write("placement", {"sorting": sorting, "seeds": results, "compared": compared})


if __name__ == "__main__":
    main()
