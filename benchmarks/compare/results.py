"""The results of a study: APs by arm, and paired differences to the reference with their intervals."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from statistics import mean
from typing import Any

from benchmarks.compare.statistics import Difference, level_of, paired_difference
from benchmarks.compare.study import Study
from benchmarks.paired import pairs_needed
from detector.text import plural

OVERALL = "mean of the data sets"
BRANCH_NAMES = {"one2one": "NMS-free", "one2many": "with NMS"}
Pair = tuple[int | None, int]  # fold and seed: what runs of two arms have in common


@dataclass(frozen=True)
class Results:
    """The results of all runs, and the AP of a constant box by data set and column."""

    study: Study
    rows: Sequence[Mapping[str, Any]]  # as in the files of ``trainings``
    floors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    costs: Mapping[str, Any] | None = None
    remarks: Sequence[str] = ()  # differences between the trainings of the arms

    @property
    def columns(self) -> list[str]:
        """The columns of APs; the deciding one is among them."""
        return list(dict.fromkeys([*self.study.columns, self.study.deciding]))

    @property
    def data_sets(self) -> list[str]:
        """The data sets, and their mean if there are several."""
        return [*self.study.data, *([OVERALL] if len(self.study.data) > 1 else [])]

    @property
    def compared(self) -> list[str]:
        """The arms without the reference."""
        return [name for name in self.study.arms if name != self.study.reference]

    @property
    def level(self) -> float:
        """The level of each interval, 0.05 for 95 %."""
        return level_of(len(self.compared), self.study.bonferroni)

    def values(self, arm: str, data: str, column: str) -> dict[Pair, float]:
        """Return the values of an arm by fold and seed; of several data sets their mean."""
        if data == OVERALL:
            sets = [self.values(arm, each, column) for each in self.study.data]
            common = set.intersection(*map(set, sets))
            return {pair: mean(values[pair] for values in sets) for pair in sorted(common, key=_order)}
        rows = [row for row in self.rows if row["arm"] == arm and row["data"] == data]
        found = {(row["fold"], row["seed"]): _value(row, column) for row in rows}
        return {pair: value for pair in sorted(found, key=_order) if (value := found[pair]) is not None}

    def differences(self, arm: str, data: str, column: str, without: Collection[int] = ()) -> list[float]:
        """Return the differences of an arm to the reference, one for each seed; for each fold, the mean of its seeds."""
        values, others = (self.values(name, data, column) for name in (arm, self.study.reference))
        units: dict[int, list[float]] = defaultdict(list)
        for fold, seed in values:
            if (fold, seed) in others and seed not in without:
                units[seed if fold is None else fold].append(values[fold, seed] - others[fold, seed])
        return [mean(differences) for differences in units.values()]

    def difference(self, arm: str, data: str, column: str, without: Collection[int] = ()) -> Difference | None:
        """Return the mean difference of an arm to the reference with its interval; None without a common run."""
        differences = self.differences(arm, data, column, without)
        return paired_difference(differences, self.level, self.study.folds) if differences else None

    def needed(self, arm: str, data: str) -> int | None:
        """Return the pairs that the effect of the study needs in the deciding column.

        None if unknown: for folds, and for pairs without a spread, as of networks that have learned nothing.
        """
        difference = self.difference(arm, data, self.study.deciding)
        if difference is None or not difference.sd or self.study.folds is not None or not self.study.effect:
            return None
        return pairs_needed(difference.sd, self.study.effect, self.level)

    def hook_columns(self) -> list[str]:
        """Return the names of the numbers of the hook ``after``, in the order in which runs have them."""
        return list(dict.fromkeys(name for row in self.rows for numbers in row["after"].values() for name in numbers))

    def verdicts(self) -> list[str]:
        """Return a sentence for each arm: what the deciding column shows, without the seeds by which arms were chosen."""
        data = self.data_sets[-1]
        return [self._verdict(arm, data) for arm in self.compared]

    def _verdict(self, arm: str, data: str) -> str:
        chosen, where = self.study.chosen_with, column_name(self.study.deciding)
        difference = self.difference(arm, data, self.study.deciding, chosen)
        where = f"{where} AP{f' on {data}' if len(self.study.data) > 1 else ''}"
        if difference is None:
            return f"{arm}: no pair{' beside those by which arms were chosen' if chosen else ''}."
        if difference.limits is None:
            return f"{arm}: {difference.mean:+.3f} in {where}, from one pair, which shows nothing."
        low, high = difference.limits
        interval = f"{difference.mean:+.3f}, {self.level_text()} interval {low:+.3f} to {high:+.3f}"
        interval += f", {plural(difference.pairs, 'fold' if self.study.folds else 'pair')}"
        if difference.sign:
            word = "better" if difference.sign > 0 else "worse"
            return f"{arm}: {word} than {self.study.reference} in {where} ({interval})."
        return f"{arm}: no difference to {self.study.reference} shown in {where} ({interval}).{self._advice(arm, data)}"

    def _advice(self, arm: str, data: str) -> str:
        """Return how many pairs the effect of the study would need."""
        difference = self.difference(arm, data, self.study.deciding, self.study.chosen_with)
        needed = self.needed(arm, data)
        if needed is None or difference is None:
            return ""
        more = max(needed - difference.pairs, 0)
        return f" To show an effect of {self.study.effect:g} with 80 % power, {needed} pairs are needed: {more} more."

    def warnings(self) -> list[str]:
        """Return a sentence for each arm and data set whose mean AP is not above that of a constant box."""
        lines, deciding = [], self.study.deciding
        for arm, data in product(self.study.arms, self.study.data):
            values, floor = self.values(arm, data, deciding), self.floors.get(data, {}).get(deciding)
            if values and floor is not None and (ap := mean(values.values())) <= floor:
                where = f" on {data}" if data else ""
                lines.append(f"{arm}{where}: {ap:.3f} is not above the constant box ({floor:.3f}): this arm shows nothing.")
        return lines

    def level_text(self) -> str:
        """Return the level of each interval: "95 %", or "99.17 %"."""
        return f"{100 * (1 - self.level):.4g} %"


def column_name(column: str) -> str:
    """Return a column for readers: "val NMS-free" for "val one2one AP"."""
    split, branch, metric = column.split()
    return " ".join([split, BRANCH_NAMES[branch], *([metric] if metric != "AP" else [])])


def _value(row: Mapping[str, Any], column: str) -> float | None:
    """Return the value of a column in a row; of the hook's numbers by their name. None if the row lacks it."""
    split, _, name = column.partition(" ")
    if name in row["scores"].get(split, {}):
        return row["scores"][split][name]
    return next((numbers[column] for numbers in row["after"].values() if column in numbers), None)


def _order(pair: Pair) -> tuple[int, int]:
    return (-1 if pair[0] is None else pair[0], pair[1])
