"""The page and the figures of a study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from benchmarks.compare.results import Results, column_name
from benchmarks.compare.tables import make_tables
from detector.imaging.plot_files import TOOLTIP, Plot, finish
from detector.imaging.plot_style import COLORS, INK, legible, plot_style
from detector.imaging.plots import shortened
from detector.report.page import render
from detector.text import plural

ROW, WIDTH = 30, 380  # pixels


def make_plots(results: Results) -> list[Plot]:
    """Return a figure of the paired differences for every data set and column, the deciding column first."""
    deciding = results.study.deciding
    columns = sorted(results.columns, key=lambda column: column != deciding)
    plots = []
    for number, data in enumerate(results.data_sets):
        for column in columns:
            name = "_".join(["differences", *([str(number)] if len(results.data_sets) > 1 else []), *column.split()])
            plots.append(difference_plot(results, data, column, name))
    return plots


@plot_style()
def difference_plot(results: Results, data: str, column: str, name: str) -> Plot:
    """Return a row for every arm: the differences of its pairs to the reference, their mean and its interval."""
    arms = [arm for arm in results.compared if results.difference(arm, data, column) is not None]
    axes = Figure(figsize=(WIDTH / 72, max(ROW * len(arms), 1) / 72)).add_axes((0, 0, 1, 1))
    words = []
    for row, arm in enumerate(arms):
        difference = results.difference(arm, data, column)
        assert difference is not None
        pairs = results.differences(arm, data, column)
        axes.plot(pairs, [row + 0.22] * len(pairs), "o", color=COLORS[0], markersize=4, alpha=0.6, clip_on=False)
        low, high = difference.limits or (difference.mean, difference.mean)
        text = f"{arm}: {difference.mean:+.3f}, {results.level_text()} interval {low:+.3f} to {high:+.3f}"
        axes.plot([low, high], [row - 0.12] * 2, color=INK, linewidth=2, gid=TOOLTIP + text)
        axes.plot([difference.mean], [row - 0.12], "|", color=INK, markersize=12, markeredgewidth=2)
        words.append(text)
    axes.axvline(0, color=INK, linewidth=1, linestyle=":")
    axes.set(ylim=(len(arms) - 0.4, -0.6))
    axes.set_yticks(range(len(arms)), [shortened(label) for label in legible(arms)])
    axes.set_xlabel(f"AP minus that of {shortened(results.study.reference)}", loc="right")
    axes.grid(axis="x")
    title = f"{f'{data}, ' if data else ''}{column_name(column)}" + (
        ", the deciding column" if column == results.study.deciding else ""
    )
    return finish(name, title, words, axes)


def make_page(results: Results, plots: list[Plot], arms: Mapping[str, Mapping[str, Any]], notes: list[str]) -> str:
    """Return the page of a study; ``arms`` are the settings of each arm."""
    study = results.study
    facts = [
        plural(len(study.arms), "arm"),
        f"reference {study.reference}",
        f"seeds {', '.join(map(str, study.seeds))}",
        *([f"{study.folds} folds"] if study.folds else []),
        *([", ".join(study.data)] if "" not in study.data else []),
        plural(len(results.rows), "run"),
        "averaged weights after the last epoch",
    ]
    return render(
        "compare.html",
        Path(__file__).parent / "templates",
        heading=f"Comparison: {study.name}",
        facts=facts,
        verdicts=results.verdicts(),
        warnings=results.warnings(),
        plots=plots,
        level=results.level_text(),
        tables=make_tables(results),
        notes=notes,
        arms={name: yaml.safe_dump(dict(settings), sort_keys=True) for name, settings in arms.items()},
    )
