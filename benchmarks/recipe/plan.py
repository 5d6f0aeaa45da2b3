"""The stages of the study: which runs come next, from the numbers of those before, and how long they take."""

from collections.abc import Iterable
from itertools import chain, zip_longest

from benchmarks.recipe.choice import Cells, finalists, screened_sets, tried_epochs, winner
from benchmarks.recipe.settings import (
    ARMS,
    BACKBONE,
    CURVE,
    DETECTOR,
    HAND_SET,
    SCRATCH,
    SETS,
    SOURCE,
    Run,
    Sizes,
    Start,
    changes_of,
    other_rates,
    rivals,
)

SCREEN, RATES, SEEDS, CHANGED, EPOCHS, REST = "screen", "rates", "seeds", "changes", "epochs", "rest"
# Stages of a round need only the results of the rounds before, so that no core waits for the last run of a stage.
ROUNDS = ((SOURCE,), (SCREEN,), (RATES,), (SEEDS, CURVE), (CHANGED, EPOCHS), (REST,))
STAGES = tuple(chain(*ROUNDS))
STARTS: tuple[Start, ...] = (SCRATCH, DETECTOR, BACKBONE)
SOURCE_SEED = 100
IMAGES_PER_SECOND = {SCRATCH: 37.0, DETECTOR: 37.0, BACKBONE: 13.0}  # of one thread, training at 160 px
OTHER_MINUTES = 0.5  # of a run: start and validations


def source_run(data: str, sizes: Sizes) -> Run:
    """Return the run whose weights are the start from a detector for a set: it has trained on another set."""
    arm = next(iter(ARMS[SCRATCH]))
    return Run(SOURCE, SCRATCH, SETS[data].source, arm, SOURCE_SEED, sizes.source_epochs)


def stage_runs(stage: str, cells: Cells, sizes: Sizes, starts: Iterable[Start] = STARTS) -> list[Run]:
    """Return the runs of a stage, the most valuable first; the rounds before it have finished."""
    starts, first = tuple(starts), sizes.seeds[0]
    if stage == SOURCE:
        return list(dict.fromkeys(source_run(data, sizes) for data in sizes.sets)) if DETECTOR in starts else []
    by_start = {start: _runs_of_start(stage, start, cells, sizes, first) for start in starts}
    # The first arm of every start, then the second of every start, ...
    return [run for runs in zip_longest(*by_start.values()) for run in chain(*filter(None, runs))]


def _runs_of_start(stage: str, start: Start, cells: Cells, sizes: Sizes, first: int) -> list[list[Run]]:
    """Return the runs of a stage and start, a list for each arm."""
    screened, usual = screened_sets(sizes), sizes.epochs[start]

    def runs(arm: str, sets: Iterable[str], seeds: Iterable[int] = (first,), epochs: int = usual) -> list[Run]:
        return [Run(stage, start, data, arm, seed, epochs) for seed in seeds for data in sets]

    if stage == SCREEN:
        sets = screened if start == BACKBONE else sizes.sets
        return [runs(arm, sets) for arm in rivals(start)[: sizes.arms]]
    if stage == RATES:
        return [runs(arm, screened) for arm in other_rates(start)[: sizes.arms - 1]]
    if not (final := finalists(start, cells, sizes)):
        return []  # no arm has finished on all screened sets
    if stage == SEEDS:
        sets = screened[:1] if start == BACKBONE else sizes.sets
        return [runs(arm, sets, sizes.seeds) for arm in final]
    if stage == CURVE:
        return [runs(HAND_SET[start][0], screened[:1])] if start == DETECTOR else []
    best = winner(start, cells, sizes) or final[0]
    if stage == CHANGED:
        return [runs(f"{best}+{change}", screened) for change in changes_of(start, best)[: sizes.arms - 1]]
    if stage == EPOCHS:
        longer, by_hand = tried_epochs(start, sizes)[1:], set(final) & set(HAND_SET[start]) - {best}
        pairs = [(best, epochs) for epochs in longer] + [(arm, longer[-1]) for arm in by_hand if start == SCRATCH]
        return [runs(arm, screened[:1], epochs=epochs) for arm, epochs in pairs]
    return [runs(arm, sizes.sets, sizes.seeds) for arm in final]  # REST: what SEEDS left out


def minutes(run: Run) -> float:
    """Return the minutes that a run of full size takes on one thread."""
    return SETS[run.data].images * run.epochs / IMAGES_PER_SECOND[run.start] / 60 + OTHER_MINUTES


def expected_minutes(sizes: Sizes) -> dict[str, tuple[int, float]]:
    """Return the runs of each stage and their minutes, if in every start the first arm wins."""
    known: set[str] = set()
    cells: Cells = {}
    table = {}
    for stage in STAGES:
        runs = [run for run in dict.fromkeys(stage_runs(stage, cells, sizes)) if run.name not in known]
        known |= {run.name for run in runs}
        table[stage] = len(runs), sum(map(minutes, runs))
        for run in runs:
            place = list(ARMS[run.start]).index(run.arm) if run.arm in ARMS[run.start] else 0
            cells.setdefault((run.start, run.data, run.arm, run.epochs), {})[run.seed] = 1.0 - place / 100
    return table
