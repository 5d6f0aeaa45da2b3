"""Tables of the study of dynamic layers, from the results that its runs have left."""

from collections.abc import Iterable
from math import sqrt
from statistics import mean, stdev
from typing import Any

from benchmarks.common import print_table
from benchmarks.paired import LEVEL, pairs_needed

PLAIN = "plain"
EFFECTS = (0.005, 0.010, 0.015, 0.020, 0.030)  # differences of AP
Result = dict[str, Any]  # a result.json
MacroAps = dict[int, float]  # by seed


def macro_ap(result: Result) -> float:
    """Return the deciding number of a run: its NMS-free AP as the mean over the sources."""
    return result["AP"]["one2one"]["macro"]["AP"]


def by_stage_and_arm(results: Iterable[Result]) -> dict[str, dict[str, MacroAps]]:
    """Return the macro APs of the runs by stage, arm and seed."""
    table: dict[str, dict[str, MacroAps]] = {}
    for result in results:
        table.setdefault(result["stage"], {}).setdefault(result["arm"], {})[result["seed"]] = macro_ap(result)
    return table


def pooled_sd(arms: dict[str, MacroAps]) -> float | None:
    """Return the standard deviation of the paired differences to plain, pooled over the arms: their means do not show."""
    plain, squares, freedom = arms.get(PLAIN, {}), 0.0, 0
    for name, aps in arms.items():
        differences = [aps[seed] - plain[seed] for seed in aps.keys() & plain.keys()]
        if name != PLAIN and len(differences) > 1:
            squares += stdev(differences) ** 2 * (len(differences) - 1)
            freedom += len(differences) - 1
    return sqrt(squares / freedom) if freedom else None


def print_plan(results: Iterable[Result], num_arms: int = 2) -> None:
    """Print the pairs of runs that differences of AP need, at level 5 % and at 5 % / ``num_arms``, power 80 %.

    The standard deviation of a pair's difference is that of the plain runs times the square root of 2, as if the two runs of
    a pair had nothing in common: an upper estimate. Beside it stands the pooled one, where arms have pairs already.
    """
    for stage, arms in by_stage_and_arm(results).items():
        aps = list(arms.get(PLAIN, {}).values())
        if len(aps) < 2:
            print(f"{stage}: {len(aps)} plain runs; the spread needs at least 2, and 5 are better")
            continue
        spreads = {f"{len(aps)} plain runs, mean {mean(aps):.3f}, sd {stdev(aps):.4f}, x 1.41": sqrt(2) * stdev(aps)}
        if (pooled := pooled_sd(arms)) is not None:
            spreads["pairs of all arms, pooled"] = pooled
        rows = []
        for name, sd in spreads.items():
            for level in (LEVEL, LEVEL / num_arms):
                needed = (pairs_needed(sd, effect, level) for effect in EFFECTS)
                rows.append(
                    [f"{name}, level {level:.3f}", f"{sd:.4f}", *("> 1000" if n is None else str(n) for n in needed)]
                )
        print()
        print_table((f"{stage}: pairs for a difference of", "sd", *(f"{effect:+.3f}" for effect in EFFECTS)), *rows)
