"""Every setting of a callback is tested: a list of them, with the test that shows what each sets."""

import inspect
from pathlib import Path

import pytest
from lightning import Callback

from detector import callbacks

FOLDER = Path(__file__).parent
TESTS = {
    ("ClassEvaluation", "num_confusions"): "test_class_evaluation.py::test_a_training_writes_results_and_columns",
    ("ClassEvaluation", "num_mistakes"): "test_class_evaluation.py::test_a_training_writes_results_and_columns",
    ("ClassEvaluation", "write"): "test_class_evaluation.py::test_a_test_has_a_file_of_its_own_and_write_false_has_none",
    ("CocoEvaluation", None): "test_evaluation_settings.py",  # has a list of its own
    ("DataWait", "advice"): "test_data_wait.py::test_the_share_is_logged_and_a_large_one_gives_a_warning",
    ("EpochLog", "file_name"): "test_epoch_log.py::test_a_second_run_appends_under_its_own_header",
    ("NonFiniteGuard", "max_skips"): "test_non_finite_guard.py::test_training_stops_after_max_skips_in_a_row",
    ("Patience", "mode"): "test_patience.py::test_training_ends_after_the_closing_phase",
    ("Patience", "monitor"): "test_patience.py::test_only_the_monitored_number_counts",
    ("Patience", "patience"): "test_patience.py::test_patience_is_the_number_of_epochs_without_a_better_value",
    ("PredictionSheet", "branch"): "test_prediction_sheet.py::test_the_title_says_where_the_threshold_comes_from",
    ("PredictionSheet", "num_images"): "test_prediction_sheet.py::test_the_sheet_holds_the_first_images",
    ("PredictionSheet", "score_threshold"): "test_prediction_sheet.py::test_scores_below_the_evaluated_ones_are_drawn",
    ("RampedEMA", "decay"): "test_save_on_signal.py::test_the_checkpoint_of_a_signal_has_the_average_of_its_step",
    ("RampedEMA", "tau"): "test_save_on_signal.py::test_the_checkpoint_of_a_signal_has_the_average_of_its_step",
    ("SaveOnSignal", "path"): "test_save_on_signal.py::test_the_checkpoint_of_a_signal_has_the_average_of_its_step",
}  # fmt: skip


def settings() -> list[tuple[str, str]]:
    """Return the name of every callback of ours with each argument of its constructor."""
    found = []
    for name in callbacks.__all__:
        value = getattr(callbacks, name)
        if issubclass(value, Callback) and "__init__" in vars(value):
            found += [(name, setting) for setting in inspect.signature(value).parameters]
    return found


@pytest.mark.parametrize(("callback", "setting"), settings())
def test_every_setting_has_a_test_of_its_effect(callback: str, setting: str) -> None:
    """A new setting needs a line in TESTS."""
    file, _, name = (TESTS.get((callback, setting)) or TESTS[callback, None]).partition("::")
    assert f"def {name}" in (FOLDER / file).read_text()
    assert setting in (FOLDER / file).read_text()


def test_no_line_is_out_of_date() -> None:
    assert {key for key in TESTS if key[1]} <= set(settings())
