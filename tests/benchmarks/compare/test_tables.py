"""Results and tables of made-up numbers, worked out by hand."""

from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from benchmarks.compare.page import make_page, make_plots
from benchmarks.compare.results import Results
from benchmarks.compare.study import Arm, Part, Study
from benchmarks.compare.tables import ap_table, cost_table, difference_table, latex, make_tables, markdown
from detector.report.page import Table

COLUMN = "val one2one AP"


def row(arm: str, seed: int, ap: float, data: str = "", fold: int | None = None) -> dict[str, Any]:
    scores = {"one2one AP": ap, "one2many AP": ap + 0.1, "one2one AP50": ap, "one2many AP50": ap}
    return {"arm": arm, "data": data, "fold": fold, "seed": seed, "scores": {"val": scores}, "after": {}}


@pytest.fixture
def study() -> Study:
    arms = {name: Arm(name) for name in ("plain", "mine_1")}
    return Study("name", Path("out"), Path("."), arms, "plain", (0, 1, 2))


@pytest.fixture
def results(study: Study) -> Results:
    plain, mine = (0.40, 0.42, 0.41), (0.43, 0.44, 0.45)  # differences 0.03, 0.02, 0.04
    rows = [row("plain", seed, ap) for seed, ap in enumerate(plain)] + [row("mine_1", s, ap) for s, ap in enumerate(mine)]
    return Results(study, rows, {"": {COLUMN: 0.1234}})


def test_means_and_paired_differences(results: Results) -> None:
    assert ap_table(results, "").rows == [
        ["plain", "3", "0.410 ± 0.010", "0.510 ± 0.010"],
        ["mine_1", "3", "0.440 ± 0.010", "0.540 ± 0.010"],
        ["constant box", "", "0.123", ""],
    ]
    table = difference_table(results, "")
    assert table.head == ["", "pairs", "val NMS-free", "val with NMS", "pairs that +0.01 needs"]
    half = 4.302653 * 0.01 / 3**0.5
    assert table.rows == [["mine_1", "3", f"+0.030 ± {half:.3f} *", f"+0.030 ± {half:.3f} *", "10"]]
    assert results.verdicts()[0].startswith("mine_1: better than plain in val NMS-free AP (+0.030, 95 % interval +0.005 to")


def test_runs_of_different_order_are_paired_by_seed(results: Results) -> None:
    shuffled = replace(results, rows=list(reversed(results.rows))[:-1])  # plain lacks seed 0
    assert shuffled.differences("mine_1", "", COLUMN) == pytest.approx([0.02, 0.04])


def test_seeds_by_which_arms_were_chosen_get_a_table_without_them(results: Results) -> None:
    chosen = replace(results, study=replace(results.study, chosen_with=(1,)))
    titled = make_tables(chosen)[-1]
    assert "without seed 1, by which arms were chosen" in titled.title
    assert titled.table.rows[0][:2] == ["mine_1", "2"]
    assert titled.table.rows[0][2].startswith("+0.035 ± ")
    assert "shown in val NMS-free AP (+0.035, " in chosen.verdicts()[0]


def test_folds_are_means_over_seeds_with_a_corrected_interval(study: Study) -> None:
    aps = {("plain", 0): (0.1, 0.3), ("plain", 1): (0.2, 0.4), ("mine_1", 0): (0.2, 0.6), ("mine_1", 1): (0.4, 0.4)}
    rows = [row(arm, seed, ap, fold=fold) for (arm, seed), folds in aps.items() for fold, ap in enumerate(folds)]
    results = Results(replace(study, folds=2, seeds=(0, 1)), rows)
    assert results.differences("mine_1", "", COLUMN) == pytest.approx([mean([0.1, 0.2]), mean([0.3, 0.0])])
    table = difference_table(replace(results, rows=[*rows]), "")
    assert table.head[1] == "folds"
    assert "needs" not in table.head[-1]


def test_several_data_sets_have_a_mean_over_them(study: Study) -> None:
    study = replace(study, data={"a": Part(), "b": Part()}, seeds=(0, 1))
    aps = {("plain", "a"): (0.1, 0.1), ("mine_1", "a"): (0.2, 0.4), ("plain", "b"): (0.5, 0.5), ("mine_1", "b"): (0.4, 0.4)}
    rows = [row(arm, seed, ap, data) for (arm, data), seeds in aps.items() for seed, ap in enumerate(seeds)]
    rows += [row(arm, 2, 0.9, "a") for arm in study.arms]  # a pair that the other data set lacks has no mean
    results = Results(study, rows)
    assert results.differences("mine_1", results.data_sets[-1], COLUMN) == pytest.approx([0.0, 0.1])
    assert len(make_tables(results)) == 6


def test_bonferroni_is_stated_and_widens_the_intervals(results: Results) -> None:
    arms = results.study.arms | {"other": Arm("other")}
    rows = [*results.rows, *(row("other", seed, ap) for seed, ap in enumerate((0.41, 0.4, 0.39)))]
    alone = Results(replace(results.study, arms=arms), rows)
    together = replace(alone, study=replace(alone.study, bonferroni=True))
    first, second = (each.difference("mine_1", "", COLUMN).half for each in (alone, together))
    assert second / first == pytest.approx(6.2053 / 4.3027, rel=1e-3)  # t at 97.5 % and 95 %
    title = make_tables(together)[1].title
    assert "97.5 % interval of a paired t-test, Bonferroni: 95 % for 2 comparisons together" in title


def test_a_difference_that_is_not_shown_says_how_many_pairs_it_takes(results: Results) -> None:
    rows = [row("plain", seed, 0.4) for seed in range(3)] + [row("mine_1", s, ap) for s, ap in enumerate((0.41, 0.39, 0.43))]
    (verdict,) = replace(results, rows=rows).verdicts()
    assert "no difference to plain shown" in verdict
    assert "To show an effect of 0.01 with 80 % power, 34 pairs are needed: 31 more." in verdict
    half = 4.302653 * 0.02 / 3**0.5
    assert difference_table(replace(results, rows=rows), "").rows[0][2] == f"+0.010 ± {half:.3f}"  # no star


def test_an_arm_that_is_worse_has_a_star_and_two_seeds_have_a_wide_interval(results: Results) -> None:
    rows = [row("plain", 0, 0.4), row("plain", 1, 0.4), row("mine_1", 0, 0.3), row("mine_1", 1, 0.299)]
    worse = replace(results, rows=rows)
    assert difference_table(worse, "").rows[0][:3] == ["mine_1", "2", f"-0.101 ± {12.7062 * 0.0005:.3f} *"]
    assert worse.verdicts()[0].startswith("mine_1: worse than plain in val NMS-free AP (-0.101, 95 % interval -0.107 to")


def test_a_single_pair_shows_nothing(results: Results) -> None:
    alone = replace(results, rows=[row("plain", 0, 0.4), row("mine_1", 0, 0.5), row("mine_1", 1, 0.5)])
    assert difference_table(alone, "").rows[0] == ["mine_1", "1", "+0.100", "+0.100", ""]
    assert alone.verdicts() == ["mine_1: +0.100 in val NMS-free AP, from one pair, which shows nothing."]


def test_names_are_text_in_the_page(results: Results) -> None:
    arms = {"plain": Arm("plain"), "<b>mine": Arm("<b>mine")}
    rows = [row(arm, seed, 0.1 * seed) for arm in arms for seed in range(2)]
    named = Results(replace(results.study, arms=arms, name="<i>study"), rows)
    page = make_page(named, [], {arm: {"model.lr": "<u>"} for arm in arms}, [])
    assert "&lt;b&gt;mine" in page
    assert not {tag for tag in ("<b>mine", "<i>study", "<u>") if tag in page}


def test_arms_that_are_not_above_a_constant_box_and_pairs_without_a_spread_say_so(results: Results) -> None:
    rows = [row(arm, seed, 0.1) for arm in ("plain", "mine_1") for seed in range(3)]
    nothing = replace(results, rows=rows)
    assert nothing.warnings()[1] == "mine_1: 0.100 is not above the constant box (0.123): this arm shows nothing."
    assert difference_table(nothing, "").rows[0][-1] == ""
    assert not results.warnings()


def test_costs_are_ratios_to_the_reference(results: Results) -> None:
    cost = {"parameters": 1000, "multiply_adds": 2000, "step_ms": 10.0, "inference_ms": 2.0, "step_mb": 50.0}
    times = {"step_ratio": [1.5, 1.4, 1.6], "inference_ratio": [1.1]}
    costs = {"conditions": "here", "arms": {"plain": cost | times, "mine_1": cost | {"parameters": 1250} | times}}
    assert cost_table(replace(results, costs=costs)).rows == [
        ["plain", "1,000", "2,000", "10.0", "2.0", "50"],
        ["mine_1", "1.250", "1.000", "1.500 (1.400 to 1.600)", "1.100", "1.000"],
    ]


def test_markdown_and_latex_escape_names() -> None:
    table = Table(["", "a|b"], [["50 %_x", "+0.1 ± 0.2 *"]])
    assert markdown(table) == "|  | a\\|b |\n| --- | --- |\n| 50 %_x | +0.1 ± 0.2 * |\n"
    assert latex(Table(["a\\b{c}", "~^"], [["&#", "$"]])).splitlines()[2:5:2] == [
        r"a\textbackslash{}b\{c\} & \textasciitilde{}\textasciicircum{} \\",
        r"\&\# & \$ \\",
    ]
    assert r"50 \%\_x & +0.1 $\pm$ 0.2$^{*}$ \\" in latex(table)
    assert latex(table).startswith("\\begin{tabular}{lr}\n\\toprule\n & a|b \\\\\n\\midrule\n")


def test_the_figure_has_the_pairs_and_the_interval_of_every_arm(results: Results) -> None:
    plots = make_plots(results)
    assert [plot.name for plot in plots] == ["differences_val_one2one_AP", "differences_val_one2many_AP"]
    points, interval = plots[0].figure.axes[0].lines[:2]
    assert sorted(points.get_xdata()) == pytest.approx([0.02, 0.03, 0.04])
    assert interval.get_xdata() == pytest.approx([0.03 - 0.0248414, 0.03 + 0.0248414], abs=1e-6)
    assert "mine_1: +0.030, 95 % interval +0.005 to +0.055" in plots[0].svg
