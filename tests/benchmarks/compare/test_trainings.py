"""Runs of a study: what is missing is trained, a stopped study goes on, and results belong to their settings."""

import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.compare import trainings
from benchmarks.compare.lock import locked
from benchmarks.compare.trainings import TrainPy, call_hook, check_results, complete_all, load_hook
from tests.benchmarks.compare.made_up import MadeUpTrainer, made_up_runs


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_killed_study_goes_on_and_has_the_same_results(jobs: int, tmp_path: Path) -> None:
    runs = made_up_runs()
    whole = complete_all(runs, tmp_path / "whole", MadeUpTrainer(), ["val"], jobs=jobs)
    killed = MadeUpTrainer(fails=["plain_s1"])
    with pytest.raises(RuntimeError, match="plain_s1 was killed"):
        complete_all(runs, tmp_path / "killed", killed, ["val"], jobs=jobs)
    assert killed.stopped
    trainer = MadeUpTrainer()
    results = complete_all(runs, tmp_path / "killed", trainer, ["val"], jobs=jobs)
    assert sorted(killed.trained + trainer.trained) == sorted(run.name for run in runs)  # no run twice
    assert [result["scores"] for result in results] == [result["scores"] for result in whole]
    assert [(result["arm"], result["seed"]) for result in results] == [(run.arm, run.seed) for run in runs]


def test_a_run_of_other_settings_is_refused_with_what_differs(tmp_path: Path) -> None:
    complete_all(made_up_runs([0]), tmp_path, MadeUpTrainer(), ["val"])
    check_results(tmp_path, made_up_runs([0, 1]))  # more seeds are no other settings
    changed = made_up_runs([0], **{"model.lr": 0.02, "data.root": "b"})
    with pytest.raises(ValueError, match=r"data\.root: not given -> 'b'\s+model\.lr: 0\.01 -> 0\.02"):
        check_results(tmp_path, changed)


def test_a_run_that_was_stopped_is_refused_with_other_settings_too(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        complete_all(made_up_runs([0]), tmp_path, MadeUpTrainer(fails=["plain_s0"]), ["val"])
    with pytest.raises(ValueError, match=r"plain_s0 .*other settings"):
        check_results(tmp_path, made_up_runs([0], **{"model.lr": 0.02}))


def test_a_split_or_hook_that_is_added_later_needs_no_training(tmp_path: Path) -> None:
    complete_all(made_up_runs([0]), tmp_path, MadeUpTrainer(), ["val"])
    trainer = MadeUpTrainer()
    complete_all(made_up_runs([0]), tmp_path, trainer, ["val", "test"])
    results = complete_all(made_up_runs([0]), tmp_path, trainer, ["val", "test"], "hook:length")
    assert not trainer.trained
    assert trainer.calls == [(n, what) for what in ("test", "hook:length") for n in ("plain_s0", "mine_s0")]
    assert results[1]["after"] == {"hook:length": {"length": 7.0}}


def test_a_run_folder_without_a_checkpoint_is_started_anew_and_one_with_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``train.py`` is replaced by a script that prints its arguments."""
    program = "import os, sys\nprint(*sys.argv[1:], os.environ['OMP_NUM_THREADS'], os.environ['PYTHONPATH'].split(':')[0])"
    (tmp_path / "train.py").write_text(program)
    monkeypatch.setattr(trainings, "ROOT", tmp_path)
    trainer, run = TrainPy(tmp_path / "out", tmp_path / "study", threads=3), replace(made_up_runs([5])[0], epochs=2)
    folder = trainer.folder(run)
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    trainer.train(run)
    folder.mkdir()
    (folder / "last.ckpt").touch()
    trainer.train(run)
    first, second = (tmp_path / f"out/logs/{run.name}.log").read_text().splitlines()
    assert "--seed_everything=5" in first
    assert "--trainer.check_val_every_n_epoch=2" in first
    assert first.endswith(f"--run_dir {folder} 3 {tmp_path / 'study'}")
    assert second.endswith(f"--ckpt_path {folder / 'last.ckpt'} --run_dir {folder} 3 {tmp_path / 'study'}")
    (folder / "train.log").write_text("2/2 AP\n")
    os.utime(folder / "train.log", (0, 0))  # before last.ckpt: the run has ended
    trainer.train(run)
    assert len((tmp_path / f"out/logs/{run.name}.log").read_text().splitlines()) == 2


def test_another_split_is_evaluated_beside_the_run_whatever_run_dir_an_arm_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evaluate.py").write_text("import sys\nprint(*sys.argv[1:])")
    monkeypatch.setattr(trainings, "ROOT", tmp_path)
    monkeypatch.setattr(trainings, "written_ap", lambda folder, split="val": {str(folder): 0.5})
    run = replace(made_up_runs([5])[0], arguments=("--run_dir=elsewhere",))
    (tmp_path / "runs/plain_s5").mkdir(parents=True)
    folder = tmp_path / "runs/plain_s5/eval_test"
    assert TrainPy(tmp_path, tmp_path, threads=1).evaluate(run, "test") == {str(folder): 0.5}
    words = (tmp_path / "logs/plain_s5.log").read_text().split()
    assert words[0] == str(tmp_path / "runs/plain_s5/last.ckpt")
    assert words[-5:] == ["--split", "test", "--evaluation.branch=both", "--run_dir", str(folder)]


def test_a_running_training_is_noted_in_the_lock_and_one_that_has_ended_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.py").write_text(f"print(open({str(tmp_path / 'lock')!r}).read())")
    monkeypatch.setattr(trainings, "ROOT", tmp_path)
    with locked(tmp_path) as lock:
        TrainPy(tmp_path, tmp_path, threads=1, lock=lock).train(made_up_runs([5])[0])
        assert (tmp_path / "lock").read_text() == f"{os.getpid()} study\n"
    assert re.search(rf"^{os.getpid()} study\n\d+ plain_s5$", (tmp_path / "logs/plain_s5.log").read_text(), re.M)


def test_a_study_that_is_stopped_ends_its_trainings_and_starts_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.py").write_text("import time\ntime.sleep(60)")
    monkeypatch.setattr(trainings, "ROOT", tmp_path)
    trainer, (first, second) = TrainPy(tmp_path, tmp_path, threads=1), made_up_runs([5])
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(trainer.train, first)
        while not trainer.processes:
            time.sleep(0.01)
        trainer.stop()
        assert "exited with -15" in str(training.exception(timeout=30))
    with pytest.raises(InterruptedError, match="mine_s5: the study was stopped"):
        trainer.train(second)


def test_a_training_that_fails_is_an_error_with_the_end_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.py").write_text("raise SystemExit('error: no memory')")
    monkeypatch.setattr(trainings, "ROOT", tmp_path)
    with pytest.raises(RuntimeError, match=r"(?s)plain_s5: train\.py exited with 1.*error: no memory"):
        TrainPy(tmp_path / "out", tmp_path, threads=1).train(made_up_runs([5])[0])


def test_a_hook_is_a_function_beside_the_study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    code = "def size(checkpoint, run):\n    return {'name': len(run.name)}\n\ndef wrong(checkpoint, run):\n    return 3\n"
    (tmp_path / "hook_of_a_test.py").write_text(code)
    assert call_hook("hook_of_a_test:size", tmp_path, tmp_path / "last.ckpt", Path("runs/abc")) == {"name": 3.0}
    with pytest.raises(ValueError, match="expected numbers by name"):
        call_hook("hook_of_a_test:wrong", tmp_path, tmp_path / "last.ckpt", tmp_path)
    for lost in ("hook_of_a_test:lost", "lost_of_a_test:size"):
        with pytest.raises(ValueError, match="cannot be imported"):
            load_hook(lost, tmp_path)
