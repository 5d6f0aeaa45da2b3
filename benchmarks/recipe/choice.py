"""Which arms are best: by one seed, and by three. The rules of docs/recipe-study.md."""

from collections.abc import Iterable, Mapping
from statistics import mean, stdev
from typing import Any

from benchmarks.recipe.settings import (
    ARMS,
    BACKBONE,
    CURVE,
    DETECTOR,
    HAND_SET,
    SCRATCH,
    SETS,
    SOURCE,
    Sizes,
    is_adamw,
    rivals,
)

Cell = tuple[str, str, str, int]  # start, set, arm, epochs
Cells = dict[Cell, dict[int, float]]  # -> seed -> the number that decides


def cells_of(results: Iterable[dict[str, Any]]) -> Cells:
    """Return the number that decides of every finished run, but not of the sources and of the stage ``curve``."""
    cells: Cells = {}
    for result in results:
        if result["stage"] not in (SOURCE, CURVE):
            cell = cells.setdefault((result["start"], result["data"], result["arm"], result["epochs"]), {})
            cell[result["seed"]] = result["numbers"][SETS[result["data"]].number]
    return cells


def screened_sets(sizes: Sizes) -> tuple[str, ...]:
    """Return the sets on which the arms of a start are ranked with one seed."""
    return tuple(name for name in sizes.sets if SETS[name].number == "AP")


def ranking(start: str, cells: Cells, sizes: Sizes) -> list[str]:
    """Return the arms of a start that have been screened, the best first.

    The best has the smallest of its largest losses: of 1 - number / best number on a set, with the first seed.
    """
    numbers: dict[str, dict[str, float]] = {}
    for arm in [name for name, settings in ARMS[start].items() if settings is not None]:
        found = {data: cells.get((start, data, arm, sizes.epochs[start]), {}) for data in screened_sets(sizes)}
        if all(sizes.seeds[0] in seeds for seeds in found.values()):
            numbers[arm] = {data: seeds[sizes.seeds[0]] for data, seeds in found.items()}
    best = {data: max(one[data] for one in numbers.values()) for data in screened_sets(sizes)} if numbers else {}
    losses = {arm: max(1 - one[data] / max(best[data], 1e-9) for data in one) for arm, one in numbers.items()}
    return sorted(losses, key=losses.__getitem__)


def finalists(start: str, cells: Cells, sizes: Sizes) -> list[str]:
    """Return the arms that get three seeds: the best, the best set by hand, the best with AdamW and the best without."""
    ranked = ranking(start, cells, sizes)
    by_hand = [arm for arm in ranked if arm in HAND_SET[start]]
    adamw, others = ([arm for arm in ranked if is_adamw(start, arm) == wanted] for wanted in (True, False))
    return list(dict.fromkeys([*ranked[:1], *by_hand[:1], *adamw[:1], *others[:1]]))


def tried_epochs(start: str, sizes: Sizes) -> list[int]:
    """Return the numbers of epochs that are tried, ascending; the largest only from scratch, where most are needed."""
    times = {SCRATCH: sizes.longer, DETECTOR: sizes.longer[:1], BACKBONE: ()}[start]
    return [sizes.epochs[start] * n for n in (1, *times)]


def spread(start: str, data: str, cells: Cells, sizes: Sizes) -> float | None:
    """Return the standard deviation over seeds on a set, pooled over the arms of a start; None without several seeds.

    An arm that learned nothing with one seed, but something with another, is left out: it would hide all differences.
    """
    variances = [
        stdev(seeds.values()) ** 2
        for (one_start, one_data, _, epochs), seeds in cells.items()
        if (one_start, one_data, epochs) == (start, data, sizes.epochs[start]) and len(seeds) > 1 and not has_failed(seeds)
    ]
    return mean(variances) ** 0.5 if variances else None


def has_failed(seeds: Mapping[int, float]) -> bool:
    """Return True if some seeds learned nothing, but others did."""
    return min(seeds.values()) == 0 < max(seeds.values())


def means(start: str, data: str, cells: Cells, sizes: Sizes, arms: Iterable[str]) -> dict[str, float]:
    """Return the mean of each of ``arms`` that has all seeds on a set."""
    found = {arm: cells.get((start, data, arm, sizes.epochs[start]), {}) for arm in arms}
    return {arm: mean(seeds.values()) for arm, seeds in found.items() if set(sizes.seeds) <= seeds.keys()}


def decided_sets(start: str, cells: Cells, sizes: Sizes) -> list[str]:
    """Return the sets on which all finalists of a start have all seeds; none while a rival has not been screened."""
    final = finalists(start, cells, sizes)
    if set(rivals(start)[: sizes.arms]) - set(ranking(start, cells, sizes)):
        return []
    return [data for data in sizes.sets if final and len(means(start, data, cells, sizes, final)) == len(final)]


def compared_arms(start: str, cells: Cells, sizes: Sizes) -> list[str]:
    """Return the arms with all seeds on the sets that decide: the finalists, and those that were finalists once."""
    sets = decided_sets(start, cells, sizes)
    found = [means(start, data, cells, sizes, filter(None, ARMS[start])) for data in sets]
    return [arm for arm in ranking(start, cells, sizes) if sets and all(arm in one for one in found)]


def winner(start: str, cells: Cells, sizes: Sizes) -> str | None:
    """Return the compared arm with the smallest of its largest losses, in spreads; None if there is no set to decide by.

    An arm set by hand stays if it is nowhere more than a spread below another one.
    """
    arms, losses = compared_arms(start, cells, sizes), {}
    if not arms:
        return None
    by_set = {data: means(start, data, cells, sizes, arms) for data in decided_sets(start, cells, sizes)}
    for arm in arms:
        losses[arm] = max(
            (max(one.values()) - one[arm]) / (spread(start, data, cells, sizes) or 1e-9) for data, one in by_set.items()
        )
    by_hand = [arm for arm in arms if arm in HAND_SET[start] and losses[arm] <= 1]
    return min(by_hand or arms, key=losses.__getitem__)
