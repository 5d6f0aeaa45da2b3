"""Tables of the study, the winners, and whether the goal is met: all as docs/recipe-study.md says."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from statistics import mean, stdev
from typing import Any

from benchmarks.common import print_table
from benchmarks.recipe.choice import (
    Cells,
    cells_of,
    compared_arms,
    decided_sets,
    means,
    ranking,
    screened_sets,
    spread,
    tried_epochs,
    winner,
)
from benchmarks.recipe.plan import CHANGED, EPOCHS
from benchmarks.recipe.settings import ARMS, CURVE, HAND_SET, SETS, SHARES, Sizes, changes_of, is_adamw

OPEN = "open"  # a question whose runs are missing
Result = dict[str, Any]  # a result.json


def goal(start: str, cells: Cells, sizes: Sizes) -> dict[str, str]:
    """Return by set whether the winner is at least as good as the best arm set by hand and as AdamW, within the spread."""
    chosen, arms = winner(start, cells, sizes), compared_arms(start, cells, sizes)
    texts = dict.fromkeys(sizes.sets, OPEN)
    for data in decided_sets(start, cells, sizes) if chosen else ():
        by_arm, one_spread = means(start, data, cells, sizes, arms), spread(start, data, cells, sizes) or 0.0
        compared = [arm for arm in arms if arm in HAND_SET[start] or is_adamw(start, arm)]
        gain = by_arm[chosen] - max(by_arm[arm] for arm in compared)
        texts[data] = f"{'met' if gain >= -one_spread else 'MISSED'}: {gain:+.4f}, spread {one_spread:.4f}"
    return texts


def changes(start: str, cells: Cells, sizes: Sizes) -> dict[str, str]:
    """Return for each change of the winner whether it is adopted: better on all screened sets by more than the spread."""
    texts: dict[str, str] = {}
    base = winner(start, cells, sizes)
    for change in changes_of(start, base) if base else ():
        gains = {}
        for data in screened_sets(sizes):
            pair = [cells.get((start, data, arm, sizes.epochs[start]), {}) for arm in (f"{base}+{change}", base)]
            if all(sizes.seeds[0] in seeds for seeds in pair):
                gains[data] = pair[0][sizes.seeds[0]] - pair[1][sizes.seeds[0]]
        spreads = {data: spread(start, data, cells, sizes) for data in gains}
        known = len(gains) == len(screened_sets(sizes)) and None not in spreads.values()
        adopted = known and all(gain > (spreads[data] or 0) for data, gain in gains.items())
        text = ", ".join(f"{data} {gain:+.4f}" for data, gain in gains.items())
        texts[change] = f"{'adopted' if adopted else 'not adopted' if known else OPEN}: {text or 'no runs'}"
    return texts


def averages(start: str, results: Iterable[Result], arm: str | None, sizes: Sizes) -> dict[str, dict[str, float]]:
    """Return what each length of the average gains over the present one, by share and set: means over the runs of an arm."""
    gains: dict[str, dict[str, list[float]]] = {}
    for result in results:
        wanted = (start, arm, sizes.epochs[start]) == (result["start"], result["arm"], result["epochs"])
        if wanted and result["stage"] != CURVE:
            name = SETS[result["data"]].number
            for share, numbers in result["averages"].get(str(result["epochs"]), {}).items():
                by_set = gains.setdefault(share, {})
                by_set.setdefault(result["data"], []).append(numbers[name] - result["numbers"][name])
    return {share: {data: mean(values) for data, values in by_set.items()} for share, by_set in gains.items()}


def best_average(gains: Mapping[str, Mapping[str, float]]) -> str | None:
    """Return the share whose smallest gain over the sets is the largest; None (the present average) if it is not above 0."""
    smallest = {share: min(by_set.values()) for share, by_set in gains.items()}
    best = max(smallest, key=smallest.__getitem__, default=None)
    return best if best is not None and smallest[best] > 0 else None


def enough_epochs(start: str, cells: Cells, sizes: Sizes) -> tuple[dict[int, float], str]:
    """Return the winner's number by images seen, on the first set, and the fewest epochs within the spread of the best.

    If these are the most that were tried, more may be better: then they are "at least" enough.
    """
    arm, data = winner(start, cells, sizes) or "", sizes.sets[0]
    tried = tried_epochs(start, sizes)
    found = {epochs: cells.get((start, data, arm, epochs), {}).get(sizes.seeds[0]) for epochs in tried}
    numbers = {epochs: number for epochs, number in found.items() if number is not None}
    one_spread = spread(start, data, cells, sizes)
    seen = {epochs * SETS[data].images: number for epochs, number in numbers.items()}
    if len(numbers) < len(tried) or one_spread is None:
        return seen, OPEN
    enough = min(epochs for epochs, number in numbers.items() if number >= max(numbers.values()) - one_spread)
    return seen, f"{'at least ' if enough == max(tried) else ''}{enough}"


def longest_runs(start: str, cells: Cells, sizes: Sizes) -> dict[str, float]:
    """Return by arm the number after the most epochs that were tried, on the first set, with the first seed."""
    epochs = tried_epochs(start, sizes)[-1]
    if epochs == sizes.epochs[start]:
        return {}  # none is longer
    found = {arm: cells.get((start, sizes.sets[0], arm, epochs), {}) for arm in ARMS[start]}
    return {arm: seeds[sizes.seeds[0]] for arm, seeds in found.items() if sizes.seeds[0] in seeds}


def jumps(results: Iterable[Result]) -> dict[str, tuple[float, float]]:
    """Return mean and largest change of AP from a validation to the next, by average, in the run of the stage ``curve``."""
    table = {}
    for result in results:
        if result["stage"] == CURVE:
            by_epoch = sorted((int(epoch), by_share) for epoch, by_share in result["averages"].items())
            curves = {share: [one[share]["AP"] for _, one in by_epoch] for share in map("{:g}".format, SHARES)}
            curves["present"] = result["curve"]
            for name, curve in curves.items():
                steps = [abs(b - a) for a, b in pairwise(curve)]
                table[name] = (mean(steps), max(steps)) if steps else (0.0, 0.0)
    return table


def print_start(start: str, results: list[Result], sizes: Sizes) -> dict[str, Any]:
    """Print the tables of a start and what they decide, and return it."""
    cells = cells_of(results)
    rows, numbers = [], {}
    order = [*dict.fromkeys([*ranking(start, cells, sizes), *ARMS[start]])]
    for arm in [name for name in order if name]:
        found = {data: cells.get((start, data, arm, sizes.epochs[start]), {}) for data in sizes.sets}
        if any(found.values()):
            rows.append([arm, *(_mean_text(seeds) for seeds in found.values())])
            numbers[arm] = found
    chosen, texts = winner(start, cells, sizes), goal(start, cells, sizes)
    gains = averages(start, results, chosen, sizes)
    seen, epochs = enough_epochs(start, cells, sizes)
    print()
    heads = [f"{data} {SETS[data].number}" for data in sizes.sets]
    print_table((f"{start}, {sizes.epochs[start]} epochs", *heads), *rows)
    print(f"winner: {chosen or OPEN}; goal: {'; '.join(f'{data} {text}' for data, text in texts.items())}")
    for share, by_set in gains.items():
        print(f"average of {float(share):.0%} of the steps: {', '.join(f'{d} {g:+.4f}' for d, g in by_set.items())}")
    print(f"average: {best_average(gains) or 'the present one'}")
    decided = changes(start, cells, sizes)
    for change, text in decided.items():
        print(f"change {change}: {text}")
    print(f"images seen: {', '.join(f'{n} {v:.4f}' for n, v in seen.items()) or '-'}; enough epochs: {epochs}")
    longest = longest_runs(start, cells, sizes)
    print(f"after {tried_epochs(start, sizes)[-1]} epochs: {', '.join(f'{a} {v:.4f}' for a, v in longest.items()) or '-'}")
    content = {"numbers": numbers, "winner": chosen, "goal": texts, "averages": gains, "average": best_average(gains)}
    return content | {CHANGED: decided, EPOCHS: {"images seen": seen, "enough": epochs, "longest": longest}}


def _mean_text(seeds: Mapping[int, float]) -> str:
    if not seeds:
        return "-"
    values = list(seeds.values())
    return f"{mean(values):.4f}" + (f" +- {stdev(values):.4f} ({len(values)})" if len(values) > 1 else "")
