"""Tables of the study of dynamic layers, from the results that its runs have left."""

from collections.abc import Iterable
from math import sqrt
from statistics import mean, stdev
from typing import Any, NamedTuple

from benchmarks.common import print_table
from benchmarks.paired import LEVEL, difference, pairs_needed

PLAIN, GATED, WIDE = "plain", "se", "wide"
CONTROLS = (PLAIN, GATED, WIDE)
GATES_ONLY = ("omni_if", "omni_all")  # their partner in cost is GATED, that of all other dynamic arms WIDE
EFFECTS = (0.005, 0.010, 0.015, 0.020, 0.030)  # differences of AP
Result = dict[str, Any]  # a result.json
MacroAps = dict[int, float]  # by seed
Arms = dict[str, MacroAps]


class Comparison(NamedTuple):
    """An arm beside one of its partners, over the seeds that both have."""

    seeds: list[int]
    mean: float  # of the differences of macro AP
    half_width: float | None  # of the 95 % interval; None for a single pair
    decision_half_width: float | None  # of the interval that decides, at 5 % / number of arms

    @property
    def helps(self) -> bool:
        """True if the interval that decides is above 0."""
        return self.decision_half_width is not None and self.mean > self.decision_half_width


def macro_ap(result: Result) -> float:
    """Return the deciding number of a run: its NMS-free AP as the mean over the sources."""
    return result["AP"]["one2one"]["macro"]["AP"]


def by_stage_and_arm(results: Iterable[Result]) -> dict[str, Arms]:
    """Return the macro APs of the runs by stage, arm and seed."""
    table: dict[str, Arms] = {}
    for result in results:
        table.setdefault(result["stage"], {}).setdefault(result["arm"], {})[result["seed"]] = macro_ap(result)
    return table


def partners(arm: str) -> tuple[str, str]:
    """Return the controls that an arm has to beat: the plain network, and one of about its cost."""
    return (PLAIN, GATED if arm in GATES_ONLY else WIDE)


def compare(arms: Arms, arm: str, partner: str, num_arms: int) -> Comparison | None:
    """Return an arm beside a partner; None if they have no seed in common."""
    seeds = sorted(arms[arm].keys() & arms.get(partner, {}).keys())
    if not seeds:
        return None
    pair = [arms[arm][seed] for seed in seeds], [arms[partner][seed] for seed in seeds]
    center, half = difference(*pair)
    return Comparison(seeds, center, half, difference(*pair, LEVEL / num_arms)[1])


def better_partner(arms: Arms, arm: str) -> str | None:
    """Return the partner with the higher mean over the seeds that the arm and both partners share.

    None if there is no such seed: an arm that beats one partner only does not help.
    """
    aps = [arms.get(name, {}) for name in (arm, *partners(arm))]
    if not (seeds := set.intersection(*(set(one) for one in aps))):
        return None
    return max(partners(arm), key=lambda name: mean(arms[name][seed] for seed in seeds))


def decision(arms: Arms, arm: str, num_arms: int) -> str:
    """Return whether an arm helps, and over which partner, in words; empty for a control."""
    if arm in CONTROLS:
        return ""
    if (best := better_partner(arms, arm)) is None:
        return f"open: needs {' and '.join(partners(arm))}"
    one = compare(arms, arm, best, num_arms)
    if one is None or one.decision_half_width is None:
        return "open: a single pair"
    return f"{'yes' if one.helps else 'no'}, over {best}"


def pooled_sd(arms: Arms) -> float | None:
    """Return the standard deviation of the paired differences to plain, pooled over the arms: their means do not show."""
    plain, squares, freedom = arms.get(PLAIN, {}), 0.0, 0
    for name, aps in arms.items():
        differences = [aps[seed] - plain[seed] for seed in aps.keys() & plain.keys()]
        if name != PLAIN and len(differences) > 1:
            squares += stdev(differences) ** 2 * (len(differences) - 1)
            freedom += len(differences) - 1
    return sqrt(squares / freedom) if freedom else None


def print_plan(results: Iterable[Result], num_arms: int) -> None:
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
            for level in dict.fromkeys((LEVEL, LEVEL / num_arms)):
                needed = (pairs_needed(sd, effect, level) for effect in EFFECTS)
                rows.append(
                    [f"{name}, level {level:.3f}", f"{sd:.4f}", *("> 1000" if n is None else str(n) for n in needed)]
                )
        print()
        print_table((f"{stage}: pairs for a difference of", "sd", *(f"{effect:+.3f}" for effect in EFFECTS)), *rows)


def print_help(stage: str, arms: Arms, num_arms: int) -> dict[str, Any]:
    """Print whether the arms of a stage help, and return the numbers: differences by arm and partner."""
    rows, numbers = [], {}
    for arm, aps in arms.items():
        compared = {name: compare(arms, arm, name, num_arms) for name in CONTROLS if name != arm}
        cells = [_difference_text(compared.get(name)) for name in CONTROLS]
        seeds = ",".join(map(str, sorted(aps)))
        rows.append([arm, seeds, f"{mean(aps.values()):.4f}", *cells, decision(arms, arm, num_arms)])
        numbers[arm] = {"macro AP": aps, "minus": {name: one._asdict() for name, one in compared.items() if one}}
    heading = (f"{stage}: does it help?", "seeds", "macro AP", *(f"minus {name}" for name in CONTROLS), "helps")
    print()
    print_table(heading, *rows)
    return numbers


def _difference_text(one: Comparison | None) -> str:
    if one is None:
        return "-"
    return f"{one.mean:+.4f}" + ("" if one.half_width is None else f" +- {one.half_width:.4f}")


def print_sources(stage: str, results: list[Result]) -> None:
    """Print the NMS-free AP of each source, and the pooled AP and AP50 of both branches, as means over the seeds."""
    arms: dict[str, list[Result]] = {}
    for result in results:
        arms.setdefault(result["arm"], []).append(result)
    sources = [name for name in results[0]["AP"]["one2one"] if name not in ("all", "macro")]
    pooled = [(branch, metric) for branch in results[0]["AP"] for metric in ("AP", "AP50")]
    rows = []
    for arm, runs in arms.items():
        by_source = [mean(run["AP"]["one2one"][name]["AP"] for run in runs) for name in sources]
        rows.append([arm, *(f"{ap:.3f}" for ap in by_source)])
        rows[-1] += [f"{mean(run['AP'][branch]['all'][metric] for run in runs):.3f}" for branch, metric in pooled]
    heading = (f"{stage}: AP, NMS-free", *sources, *(f"{branch} {metric}" for branch, metric in pooled))
    print()
    print_table(heading, *rows)
