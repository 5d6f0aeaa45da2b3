"""Study files: what they hold, and the messages for mistakes in them."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare.study import Match, make_study, read_study

ARMS = {"plain": "plain.yaml", "mine": {"configs": ["plain.yaml"], "settings": {"model.lr": 0.02}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plain.yaml").write_text("model: {variant: yolo26_n}\n")
    return tmp_path


def test_a_study_has_the_settings_of_all_arms_then_of_data_then_of_the_arm(folder: Path) -> None:
    content = {
        "arms": ARMS | {"wide": {"match": {"arm": "mine", "by": "time"}, "seeds": [1]}},
        "settings": {"model": {"lr": 0.5, "overrides": {"width": 0.5}}, "trainer.max_epochs": 3},
        "data": {"a": {"settings": {"data.root": "a", "trainer.max_epochs": 4, "model.lr": 0.3}}, "b": None},
        "seeds": [0, 1],
    }
    study = make_study(content, "name", folder)
    part = study.part("mine", "a")
    assert part.configs == ((folder / "plain.yaml").resolve(),)
    assert part.settings == {
        "model.lr": "0.02",
        "model.overrides": '{"width": 0.5}',
        "trainer.max_epochs": "4",
        "data.root": "a",
    }
    assert study.part("mine", "b").settings["trainer.max_epochs"] == "3"
    assert study.part("plain", "a").settings["model.lr"] == "0.3"
    assert study.arms["wide"].match == Match("mine", "time", "plain")
    assert (study.reference, study.seeds_of("plain"), study.seeds_of("wide")) == ("plain", (0, 1), (1,))
    assert study.out == Path("runs/name")


def test_a_configuration_beside_the_study_file_is_found_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/plain.yaml").write_text("{}")
    (folder / "study.yaml").write_text("arms: {plain: plain.yaml, mine: configs/dyn_n.yaml}\n")
    monkeypatch.chdir(tmp_path / "sub")
    study = read_study(folder / "study.yaml")
    assert study.arms["plain"].part.configs == ((folder / "plain.yaml").resolve(),)
    assert study.arms["mine"].part.configs[0].name == "dyn_n.yaml"  # of the project


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": {"plain": "plain.yaml"}}, "two or more"),
        ({"arms": ARMS | {"Plain": "plain.yaml"}}, "'plain' and 'Plain' would have the same folder"),
        ({"arms": ARMS | {"x": "lost.yaml"}}, "arm 'x': there is no configuration file lost.yaml"),
        ({"arms": ARMS | {"x": {"config": "plain.yaml"}}}, "did you mean configs"),
        ({"arms": ARMS | {"x": {"settings": {"model.lr": 1, "seed_everything": 3}}}}, "seed_everything is set by the study"),
        ({"arms": ARMS | {"x": {"settings": {"trainer": {"check_val_every_n_epoch": 1}}}}}, "is set by the study"),
        ({"arms": ARMS | {"x": {"match": {"arm": "mien"}}}}, "did you mean mine"),
        ({"arms": ARMS | {"x": {"match": {"arm": "mine", "by": "flops"}}}}, "choose one of parameters, multiply_adds, time"),
        ({"arms": ARMS | {"x": {"match": {"arm": "plain"}}}}, "both as arm and as base"),
        ({"reference": "pain"}, "did you mean plain"),
        ({"seeds": [0]}, "1 seed and no folds"),
        ({"seeds": 0}, "1 seed and no folds"),
        ({"seeds": [0, 1, 1]}, "1 is given twice"),
        ({"seeds": [0, -1]}, "seeds is -1"),
        ({"seeds": [0, 1.5]}, "seeds is 1.5"),
        ({"sedes": [0, 1]}, "did you mean seeds"),
        ({"folds": 1}, "folds is 1"),
        ({"folds": 3, "splits": ["val", "test"]}, "with folds only val"),
        ({"splits": ["dev"]}, "unknown split 'dev'"),
        ({"deciding": "val AP"}, "unknown column as deciding"),
        ({"deciding": "test one2one AP"}, "unknown column as deciding"),
        ({"chosen_with": [7]}, "7 is not among the seeds"),
        ({"after": "hook"}, "expected module:function"),
        ({"bonferroni": "yes"}, "expected true or false"),
        ({"effect": -1}, "effect is -1"),
        ({"data": ["a"]}, "expected data sets by name"),
        ({"data": {"a": None, "A": None}}, "would have the same folder"),
        (
            {"arms": {"c": "plain.yaml", "b_c": "plain.yaml"}, "data": {"a": None, "a_b": None}},
            "the runs of 'b_c' on 'a' and of 'c' on 'a_b' would have the same folder",
        ),
        ({"arms": ARMS | {"x": {"seeds": []}}}, "seeds of arm 'x': expected at least one"),
        ({"elsewhere": ["them"]}, "elsewhere: expected results by name"),
        ({"out": 5}, "out is 5; expected a folder"),
        ({"elsewhere": {"them": {"AP": [0.5]}}}, "column of 'them'"),
        ({"elsewhere": {"mine": {"val one2one AP": [0.5]}}}, "would have the same folder"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        make_study({"arms": ARMS} | change, "name", folder)


def test_a_name_that_is_given_twice_and_a_missing_file_are_errors_of_the_file(folder: Path) -> None:
    (folder / "study.yaml").write_text("arms:\n  plain: plain.yaml\n  plain: plain.yaml\n")
    with pytest.raises(ValueError, match="'plain' is given twice"):
        read_study(folder / "study.yaml")
    with pytest.raises(ValueError, match="no such study file"):
        read_study(folder / "lost.yaml")
