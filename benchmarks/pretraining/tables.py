"""Tables and decisions of the study of pre-training, from the results that its runs have left."""

from collections.abc import Iterable
from statistics import mean
from typing import Any, NamedTuple

from benchmarks.common import print_table
from benchmarks.paired import LEVEL, difference
from benchmarks.pretraining.settings import DETECTOR_SETS, LITTLE, MUCH, NETWORKS, SCRATCH, STARTS

PRETRAIN, FINETUNE = "pretrain", "finetune"
STAGES = (PRETRAIN, FINETUNE, *DETECTOR_SETS)
NUMBER = {PRETRAIN: "top1", FINETUNE: "top1"} | dict.fromkeys(DETECTOR_SETS, "one2one AP")  # what counts of a result
PUBLISH_LEVEL = LEVEL / len(NETWORKS)  # two networks can be published
FEWEST_PAIRS = 3  # for a decision
PLAIN, EXPERTS = NETWORKS
Result = dict[str, Any]  # a result.json
Cells = dict[tuple[str, str], dict[int, float]]  # (network, start) -> seed -> number


class Difference(NamedTuple):
    """A mean over seeds and its interval."""

    seeds: list[int]
    mean: float
    half_width: float | None  # None for a single seed

    @property
    def low(self) -> float | None:
        """Lower end of the interval."""
        return None if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float | None:
        """Upper end of the interval."""
        return None if self.half_width is None else self.mean + self.half_width

    def __str__(self) -> str:
        return f"{self.mean:+.4f}" + ("" if self.half_width is None else f" +- {self.half_width:.4f}")


def by_stage(results: Iterable[Result]) -> dict[str, Cells]:
    """Return the number that counts of every run: by stage, then by network and start, then by seed."""
    table: dict[str, Cells] = {}
    for result in results:
        cell = table.setdefault(result["stage"], {}).setdefault((result["network"], result["start"]), {})
        cell[result["seed"]] = result["numbers"][NUMBER[result["stage"]]]
    return table


def common_seeds(cells: Cells, needed: Iterable[tuple[str, str]]) -> list[int]:
    """Return the seeds that all of the cells ``needed`` have."""
    return sorted(set.intersection(*(set(cells.get(cell, {})) for cell in needed)))


def gain(cells: Cells, network: str, start: str, base: str, level: float = LEVEL) -> Difference | None:
    """Return what a network gains from ``start`` over ``base``; None if they have no seed in common."""
    seeds = common_seeds(cells, [(network, start), (network, base)])
    if not seeds:
        return None
    pairs = ([cells[network, one][seed] for seed in seeds] for one in (start, base))
    return Difference(seeds, *difference(*pairs, level))


def interaction(cells: Cells, level: float = LEVEL) -> Difference | None:
    """Return how much more the network with experts gains from much data, over little, than the plain one does."""
    seeds = common_seeds(cells, [(network, start) for network in NETWORKS for start in (LITTLE, MUCH)])
    if not seeds:
        return None
    gains = ([cells[name, MUCH][seed] - cells[name, LITTLE][seed] for seed in seeds] for name in (EXPERTS, PLAIN))
    return Difference(seeds, *difference(*gains, level))


def claim(one: Difference | None) -> str:
    """Return in words whether the paper's claim shows: experts gain more from much data than the plain network."""
    if one is None or one.low is None or len(one.seeds) < FEWEST_PAIRS:
        return f"open: {len(one.seeds) if one else 0} of at least {FEWEST_PAIRS} seeds"
    if one.low > 0:
        return "it shows: experts gain more from much data"
    return "the contrary shows: experts gain less from much data" if one.high < 0 else "it does not show: the interval has 0"


def publication(table: dict[str, Cells]) -> dict[str, Any]:
    """Return which network's weights are to be published (None: none), and why, by network and set of the detectors."""
    reasons: dict[str, dict[str, str]] = {}
    means = {}
    for network in NETWORKS:
        gains = {name: gain(table.get(name, {}), network, MUCH, SCRATCH, PUBLISH_LEVEL) for name in DETECTOR_SETS}
        reasons[network] = {name: _better(one) for name, one in gains.items()}
        if all(text.startswith("better") for text in reasons[network].values()):
            means[network] = mean(one.mean for one in gains.values() if one)
    return {"network": max(means, key=means.__getitem__) if means else None, "reasons": reasons}


def _better(one: Difference | None) -> str:
    if one is None or one.low is None or len(one.seeds) < FEWEST_PAIRS:
        return f"open: {len(one.seeds) if one else 0} of at least {FEWEST_PAIRS} seeds"
    return f"{'better' if one.low > 0 else 'not better'}: {one}"


def print_stage(stage: str, cells: Cells) -> dict[str, Any]:
    """Print the means, gains and interaction of a stage, and return them."""
    starts = [start for start in STARTS if any((network, start) in cells for network in NETWORKS)]
    compared = [(MUCH, LITTLE), *((start, SCRATCH) for start in (LITTLE, MUCH) if SCRATCH in starts)]
    rows, numbers = [], {}
    for network in NETWORKS:
        gains = {f"{start} - {base}": gain(cells, network, start, base) for start, base in compared}
        values = {start: cells.get((network, start), {}) for start in starts}
        means = [f"{mean(one.values()):.4f} ({len(one)})" if one else "-" for one in values.values()]
        rows.append([network, *means, *(str(one or "-") for one in gains.values())])
        numbers[network] = {"by seed": values, "gains": _as_dicts(gains)}
    both = interaction(cells)
    print()
    print_table((f"{stage}: {NUMBER[stage]}", *(f"{start} (seeds)" for start in starts), *gains), *rows)
    print(f"interaction, gain with experts minus gain without: {both or '-'}; {claim(both)}")
    return {"networks": numbers, "interaction": _as_dicts({"": both})[""], "claim": claim(both)}


def _as_dicts(differences: dict[str, Difference | None]) -> dict[str, Any]:
    return {name: one and one._asdict() for name, one in differences.items()}


def print_publication(table: dict[str, Cells]) -> dict[str, Any]:
    """Print whether weights are to be published, and return it."""
    decision = publication(table)
    print()
    rows = [[network, *(texts[name] for name in DETECTOR_SETS)] for network, texts in decision["reasons"].items()]
    heading = f"start {MUCH} over {SCRATCH}, {100 * (1 - PUBLISH_LEVEL):.1f} % intervals"
    print_table((heading, *DETECTOR_SETS), *rows)
    network = decision["network"]
    print(f"to be published: {network}" if network else "no weights are to be published")
    return decision
