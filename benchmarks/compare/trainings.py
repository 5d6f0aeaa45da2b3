"""Train the runs of a study that are missing, several at a time. A stopped study goes on where it was.

A run has a folder ``runs/<name>``, a log and ``results/<name>.json``: its settings, written before it starts, and its
results, written when it has ended. A result belongs to its settings; a study whose settings differ is refused.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from benchmarks.common import in_new_process
from benchmarks.compare.lock import note_processes
from benchmarks.compare.networks import settings_differ
from benchmarks.runs import ROOT, as_arguments, log_is_finished, written_ap
from detector.files import atomic_write, read_json
from detector.network.replace.block_files import add_import_folders
from detector.runs.folder import EVALUATION_PREFIX, LAST_CHECKPOINT, TRAIN_LOG
from detector.text import short_duration

MOST_SHOWN = 5  # settings that differ, in a message
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Run:
    """One training of a study."""

    arm: str
    data: str
    fold: int | None
    seed: int
    name: str  # of its folder and files
    arguments: tuple[str, ...]  # of train.py, without seed and folder
    settings: Mapping[str, Any]  # that its result belongs to, see ``given_settings``
    epochs: int


class Trainer(Protocol):
    """Trains and evaluates runs; a test has one that does not train."""

    def train(self, run: Run) -> None:
        """Start ``run``, or go on with it, until its last epoch has ended."""

    def evaluate(self, run: Run, split: str) -> dict[str, float]:
        """Return ``<branch> AP`` and ``<branch> AP50`` on ``split``, of the averaged weights after the last epoch."""

    def after(self, run: Run, hook: str) -> dict[str, float]:
        """Return the numbers of ``hook``, "module:function", for ``run``."""

    def stop(self) -> None:
        """Stop all trainings that are running."""


class TrainPy:
    """Trains by train.py and evaluates by evaluate.py, in new processes that write to a log."""

    def __init__(self, out: Path, hooks: Path, threads: int | None, lock: int | None = None) -> None:
        self.out, self.hooks, self.lock = out, hooks, lock
        self.environment = {**os.environ, **(dict.fromkeys(THREAD_VARIABLES, str(threads)) if threads else {})}
        # Modules beside the study file can be imported.
        paths = [str(hooks), str(ROOT), self.environment.get("PYTHONPATH")]
        self.environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        self.processes: dict[subprocess.Popen, str] = {}  # the name of the run
        self.noting = Lock()
        self.stopped = False

    def train(self, run: Run) -> None:
        folder = self.folder(run)
        checkpoint = folder / LAST_CHECKPOINT
        log = folder / TRAIN_LOG
        if log_is_finished(folder, run.epochs) and checkpoint.exists() and checkpoint.stat().st_mtime >= log.stat().st_mtime:
            return  # the study was stopped between the end of this run and its result; last.ckpt is written after the log
        if not checkpoint.exists():  # not started, or stopped before its first epoch had ended
            shutil.rmtree(folder, ignore_errors=True)
        resume = ["--ckpt_path", str(checkpoint)] if checkpoint.exists() else []
        # Always with the folder: an arm may be the config.yaml of a run, which has its own.
        self._call(run, "train.py", [*run.arguments, *as_arguments(own_settings(run)), *resume, "--run_dir", str(folder)])

    def evaluate(self, run: Run, split: str) -> dict[str, float]:
        folder = self.folder(run)
        if split == "val":
            return written_ap(folder)  # the last epoch has validated the averaged weights
        evaluated = folder / f"{EVALUATION_PREFIX}{split}"
        options = ["--split", split, "--evaluation.branch=both", "--run_dir", str(evaluated)]
        self._call(run, "evaluate.py", [str(folder / LAST_CHECKPOINT), *run.arguments, *options])
        return written_ap(evaluated, split)

    def after(self, run: Run, hook: str) -> dict[str, float]:
        folder = self.folder(run)
        return in_new_process(call_hook, hook, self.hooks, folder / LAST_CHECKPOINT, folder)

    def folder(self, run: Run) -> Path:
        """Return the run folder."""
        return self.out / "runs" / run.name

    def stop(self) -> None:
        self.stopped = True
        for process in list(self.processes):
            process.terminate()  # train.py saves and exits
        for process in list(self.processes):
            process.wait()

    def _call(self, run: Run, program: str, arguments: Sequence[str]) -> None:
        log = self.out / "logs" / f"{run.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(ROOT / program), *arguments]
        if self.stopped:
            raise InterruptedError(f"{run.name}: the study was stopped")
        with log.open("a") as file:
            # A training that outlives this process keeps the lock of the study.
            keep = () if self.lock is None else (self.lock,)
            process = subprocess.Popen(command, stdout=file, stderr=file, env=self.environment, pass_fds=keep)
            self._note(process, run.name)
            try:
                status = process.wait()
            finally:
                self._note(process, None)
        if status:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise RuntimeError(f"{run.name}: {program} exited with {status}; the end of {log}:\n{end}")

    def _note(self, process: subprocess.Popen, name: str | None) -> None:
        """Note a running process and its run in the lock, in case that this process is killed; None if it has ended."""
        with self.noting:
            if name is None:
                self.processes.pop(process)
            else:
                self.processes[process] = name
            if self.lock is not None:
                note_processes(self.lock, {process.pid: run for process, run in self.processes.items()})


def own_settings(run: Run) -> dict[str, object]:
    """Return the settings that the study itself makes for ``run``: only the last epoch is validated, on both branches."""
    return {
        "seed_everything": run.seed,
        "trainer.check_val_every_n_epoch": run.epochs,
        "trainer.enable_progress_bar": "false",
        "evaluation.branch": "both",
        "evaluation.predictions": "true",
    }


def call_hook(hook: str, folder: Path, checkpoint: Path, run: Path) -> dict[str, float]:
    """Call ``hook`` with ``checkpoint`` and the folder ``run``. Raises ValueError if it does not return numbers by name."""
    numbers = load_hook(hook, folder)(checkpoint, run)
    if not isinstance(numbers, dict) or not all(isinstance(key, str) for key in numbers):
        raise ValueError(f"after: {hook} returned {numbers!r}; expected numbers by name")
    return {name: float(value) for name, value in numbers.items()}


def load_hook(hook: str, folder: Path) -> Any:
    """Return the function of "module:function", also of a module in ``folder``. Raises ValueError if there is none."""
    add_import_folders([folder])
    module, _, name = hook.partition(":")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"after: {hook} cannot be imported ({error}); expected module:function, beside the study file"
        ) from None
    if not callable(function):
        raise ValueError(f"after: {hook} is no function")
    return function


def result_file(out: Path, run: Run) -> Path:
    """Return the file of a run's result."""
    return out / "results" / f"{run.name}.json"


def read_result(out: Path, run: Run) -> dict[str, Any] | None:
    """Return the result of a run, finished or not; None if it was never started."""
    file = result_file(out, run)
    return read_json(file, dict, "the results of this study, or another out") if file.exists() else None


def check_results(out: Path, runs: Sequence[Run]) -> None:
    """Raise ValueError if a run was started with other settings than the study has now."""
    for run in runs:
        result = read_result(out, run)
        if result and (changes := settings_differ(result["settings"], dict(run.settings))):
            more = f"\n  and {len(changes) - MOST_SHOWN} more" if len(changes) > MOST_SHOWN else ""
            raise ValueError(
                f"the run {run.name} in {out} has other settings than the study now (before -> now):\n  "
                + "\n  ".join(changes[:MOST_SHOWN])
                + f"{more}\nGo back to these settings, give the arm another name, or the study another out"
            )


def is_complete(result: Mapping[str, Any] | None, splits: Sequence[str], hook: str | None) -> bool:
    """Return True if a result has the APs of all ``splits`` and the numbers of ``hook``."""
    return (
        result is not None
        and all(split in result["scores"] for split in splits)
        and (hook is None or hook in result["after"])
    )


def complete(run: Run, out: Path, trainer: Trainer, splits: Sequence[str], hook: str | None) -> dict[str, Any]:
    """Return the result of a run; train, evaluate and call ``hook`` for what it lacks."""
    result = read_result(out, run) or {"settings": dict(run.settings), "trained": False, "scores": {}, "after": {}}
    if not result["trained"]:
        _write(out, run, result)
        started = time.monotonic()
        trainer.train(run)
        result |= {"trained": True, "seconds": result.get("seconds", 0) + time.monotonic() - started}
        _write(out, run, result)
    for split in splits:
        if split not in result["scores"]:
            result["scores"][split] = trainer.evaluate(run, split)
            _write(out, run, result)
    if hook is not None and hook not in result["after"]:
        result["after"][hook] = trainer.after(run, hook)
        _write(out, run, result)
    return result


def _write(out: Path, run: Run, result: Mapping[str, Any]) -> None:
    place = {"arm": run.arm, "data": run.data, "fold": run.fold, "seed": run.seed}
    with atomic_write(result_file(out, run)) as path:
        path.write_text(json.dumps({**place, **result}, indent=1) + "\n")


def complete_all(
    runs: Sequence[Run], out: Path, trainer: Trainer, splits: Sequence[str], hook: str | None = None, jobs: int = 1
) -> list[dict[str, Any]]:
    """Return the results of all runs in their order; ``jobs`` at a time. An error stops the others; a new start goes on."""
    missing = [run for run in runs if not is_complete(read_result(out, run), splits, hook)]
    print(f"{len(runs) - len(missing)} of {len(runs)} runs are finished; {jobs} at a time", flush=True)
    started, pool = time.monotonic(), ThreadPoolExecutor(jobs)
    console = sys.stdout  # threads that evaluate redirect it
    try:
        futures = {pool.submit(complete, run, out, trainer, splits, hook): run for run in missing}
        waiting, number = set(futures), 0
        while waiting:
            done, waiting = wait(waiting, return_when="FIRST_COMPLETED")
            for future in done:
                result, number = future.result(), number + 1
                left = short_duration((time.monotonic() - started) / number * (len(missing) - number))
                scores = ", ".join(f"{split} {name} {value:.3f}" for split, name, value in _aps(result))
                print(f"{futures[future].name}: {scores} ({number}/{len(missing)}, {left} left)", file=console, flush=True)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        trainer.stop()
        with suppress(BaseException):
            wait(futures, timeout=60, return_when=FIRST_EXCEPTION)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [result for run in runs if (result := read_result(out, run)) is not None]


def _aps(result: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    return [
        (split, name.removesuffix(" AP"), value)
        for split, scores in result["scores"].items()
        for name, value in scores.items()
        if name.endswith(" AP")
    ]
