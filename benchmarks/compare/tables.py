"""The tables of a study, as text, Markdown and LaTeX."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from benchmarks.compare.results import Results, column_name
from benchmarks.compare.statistics import Difference
from detector.report.page import Table
from detector.text import plural

LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
})  # fmt: skip
COST_COLUMNS = ("parameters", "multiply_adds", "step_ms", "inference_ms", "step_mb")
COST_NAMES = ("parameters", "multiply-adds", "training step, ms", "inference, ms", "memory of a step, MB")


@dataclass(frozen=True)
class TitledTable:
    """A table and its title, a phrase without a point."""

    title: str
    table: Table


def make_tables(results: Results) -> list[TitledTable]:
    """Return the tables of a study: for each data set APs and differences, then the costs."""
    tables = []
    for data in results.data_sets:
        of = f"{data}: " if data else ""
        tables.append(TitledTable(f"{of}AP, mean and standard deviation", ap_table(results, data)))
        tables.append(TitledTable(f"{of}{difference_title(results)}", difference_table(results, data)))
        if chosen := results.study.chosen_with:
            seeds = plural(len(chosen), "seed") + " " + ", ".join(map(str, chosen))
            title = f"{of}the same without {seeds.removeprefix('1 ')}, by which arms were chosen"
            tables.append(TitledTable(title, difference_table(results, data, chosen)))
    if results.costs:
        tables.append(TitledTable(f"costs, ratios to {results.study.reference}", cost_table(results)))
    return tables


def difference_title(results: Results) -> str:
    """Return what the differences are: pairs, level, and corrections of the interval."""
    study, level = results.study, results.level_text()
    unit = f"folds (interval corrected for their overlap, with k = {study.folds})" if study.folds else "seeds"
    title = f"AP minus that of {study.reference}, mean over {unit} and {level} interval of a paired t-test"
    if study.bonferroni:
        title += f", Bonferroni: 95 % for {plural(len(results.compared), 'comparison')} together"
    return title


def ap_table(results: Results, data: str) -> Table:
    """Return mean and standard deviation of every arm, the numbers of the hook, results from elsewhere, the constant box."""
    columns, hooks = results.columns, results.hook_columns()
    table = Table(["", "runs", *map(column_name, columns), *hooks])
    for arm in results.study.arms:
        values = [list(results.values(arm, data, column).values()) for column in [*columns, *hooks]]
        table.rows.append([arm, str(len(values[0])), *(spread(of_column) for of_column in values)])
    if data in results.study.data:
        for name, numbers in results.study.elsewhere.items():
            given = [numbers.get(column, []) for column in columns]
            table.rows.append([name, str(max(map(len, given))), *map(spread, given), *[""] * len(hooks)])
    if floor := results.floors.get(data):
        cells = (f"{floor[column]:.3f}" if column in floor else "" for column in columns)
        table.rows.append(["constant box", "", *cells, *[""] * len(hooks)])
    return table


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation; a single value alone."""
    if not values:
        return ""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def difference_table(results: Results, data: str, without: Collection[int] = ()) -> Table:
    """Return the difference of every arm to the reference, and for the deciding column the pairs that the effect needs."""
    study = results.study
    needs = [] if study.folds or not study.effect or without else [f"pairs that +{study.effect:g} needs"]
    table = Table(["", "folds" if study.folds else "pairs", *map(column_name, results.columns), *needs])
    for arm in results.compared:
        cells = [results.difference(arm, data, column, without) for column in results.columns]
        if (first := cells[0]) is None:
            continue
        needed = results.needed(arm, data)
        spread_is_known = bool((results.difference(arm, data, study.deciding) or first).sd)
        ends = [("more than 1,000" if needed is None else f"{needed:,}") if spread_is_known else ""] if needs else []
        table.rows.append([arm, str(first.pairs), *map(difference_text, cells), *ends])
    return table


def difference_text(difference: Difference | None) -> str:
    """Return "+0.013 ± 0.014"; with a star if the interval does not contain 0."""
    if difference is None:
        return ""
    half = "" if difference.half is None else f" ± {difference.half:.3f}"
    return f"{difference.mean:+.3f}{half}{' *' if difference.sign else ''}"


def cost_table(results: Results) -> Table:
    """Return the costs: those of the reference, and of the other arms as multiples of them."""
    assert results.costs is not None
    costs = results.costs["arms"]
    reference = costs[results.study.reference]
    table = Table(["", *COST_NAMES])
    table.rows.append([results.study.reference, *(f"{reference[column]:,.{_digits(column)}f}" for column in COST_COLUMNS)])
    for arm in results.compared:
        ratios = [[costs[arm][column] / reference[column]] for column in COST_COLUMNS]
        ratios[2], ratios[3] = costs[arm]["step_ratio"], costs[arm]["inference_ratio"]
        table.rows.append([arm, *map(_ratio_text, ratios)])
    return table


def _digits(column: str) -> int:
    return 1 if column.endswith("_ms") else 0


def _ratio_text(ratio: Sequence[float]) -> str:
    limits = f" ({ratio[1]:.3f} to {ratio[2]:.3f})" if len(ratio) > 1 else ""
    return f"{ratio[0]:.3f}{limits}"


def markdown(table: Table) -> str:
    """Return a table in Markdown."""
    head, *rows = ([cell.replace("|", r"\|") for cell in row] for row in (table.head, *table.rows))
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)) + "\n"


def latex(table: Table) -> str:
    """Return a table in LaTeX, for the package booktabs."""
    head, *rows = (" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in (table.head, *table.rows))
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}", r"\toprule", head, r"\midrule", *rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_cell(text: str) -> str:
    return text.translate(LATEX).replace(" *", "$^{*}$")


def text_table(table: Table) -> Iterable[Sequence[str]]:
    """Return the rows for ``benchmarks.common.print_table``."""
    return [table.head, *table.rows]
