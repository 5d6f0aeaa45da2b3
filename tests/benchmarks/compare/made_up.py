"""A trainer that does not train: results are made up from the name of the run."""

import random
from collections.abc import Collection
from pathlib import Path

from benchmarks.compare.trainings import Run


class MadeUpTrainer:
    """Gives every run the same APs each time; ``fails`` are the names of runs that stop before their end."""

    def __init__(self, fails: Collection[str] = ()) -> None:
        self.fails, self.trained, self.calls, self.stopped = set(fails), [], [], False

    def train(self, run: Run) -> None:
        if run.name in self.fails:
            raise RuntimeError(f"{run.name} was killed")
        self.trained.append(run.name)

    def evaluate(self, run: Run, split: str) -> dict[str, float]:
        self.calls.append((run.name, split))
        return {name: random.Random(f"{run.name} {split} {name}").random() for name in NAMES}

    def after(self, run: Run, hook: str) -> dict[str, float]:
        self.calls.append((run.name, hook))
        return {"length": float(len(run.name))}

    def stop(self) -> None:
        self.stopped = True


NAMES = [f"{branch} {metric}" for branch in ("one2one", "one2many") for metric in ("AP", "AP50")]


def made_up_runs(seeds: Collection[int] = (0, 1, 2), **settings: object) -> list[Run]:
    """Return runs of the arms plain and mine."""
    return [
        Run(arm, "", None, seed, f"{arm}_s{seed}", (), {"model.lr": 0.01} | settings, epochs=1)
        for seed in seeds
        for arm in ("plain", "mine")
    ]


def lines(folder: Path, name: str) -> list[str]:
    """Return the lines of a file."""
    return (folder / name).read_text().splitlines()
