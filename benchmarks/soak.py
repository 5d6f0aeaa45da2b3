"""Look for leaks of memory and file descriptors: train for an hour, on two processes with two workers each.

``python -m benchmarks.soak --root datasets/bccd --out /tmp/soak`` stops the training twice by signals and resumes it. It
writes ``samples.csv`` (every 10 s, a line for each process; descriptors are counted every second), the output of the
training, and at the end ``verdict.json``. ``--no_stops`` trains in one part. ``--judge`` only prints the verdict on the
samples in ``--out``. Linux only: it reads ``/proc``.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks.common import option_parser
from benchmarks.runs import published_arguments
from detector.runs.folder import LAST_CHECKPOINT, TRAIN_LOG

SAMPLE_SECONDS = 10
WARM_UP_SECONDS = 300  # not part of the verdict: allocators and caches fill, workers of the first validation start
JUDGED_MINUTES = 15  # shorter parts are reported, without a verdict
STOPS = [(1 / 3, signal.SIGTERM), (2 / 3, signal.SIGKILL), (1.0, signal.SIGTERM)]  # share of the time, and signal
# A leak of 1 MB an epoch exceeds the first. A leak of eight descriptors an hour, one in half a part, exceeds the second.
MAX_GROWTH, MAX_NEW_DESCRIPTORS = 0.03, 0


@dataclass(frozen=True)
class Sample:
    seconds: float
    part: int  # between stops
    pid: int
    role: str  # rank0, rank1, worker0 (of rank 0), ...
    resident_mb: float
    fewest_descriptors: int  # in the seconds since the sample before
    most_descriptors: int
    threads: int


def command(root: Path, run: Path, image_size: int, batch_size: int) -> list[str]:
    """Return the command of the training. It has many epochs, because signals stop it."""
    settings = {"data.root": root, "data.num_workers": 2, "data.image_size": image_size, "data.batch_size": batch_size}
    settings |= {"model.nominal_batch": 2 * batch_size, "trainer.max_epochs": 10000, "trainer.accelerator": "cpu"}
    settings |= {"trainer.devices": 2, "run_dir": run}
    return [sys.executable, "train.py", *published_arguments(settings, ("configs/yolo26_n.yaml", "configs/data/bccd.yaml"))]


def main() -> None:
    """Train, sample, stop and resume; print and write the verdict."""
    defaults = {"root": Path("datasets/bccd"), "out": Path("runs/soak"), "minutes": 62.0, "image_size": 64, "batch_size": 8}
    parser = option_parser(__doc__, **defaults, no_stops=False, judge=False)
    args = parser.parse_args()
    if args.judge:
        print(json.dumps(verdict(args.out), indent=1))
        return
    run = args.out / "run"
    if run.exists():
        parser.error(f"{run} exists already: remove it, or choose another --out")
    args.out.mkdir(parents=True, exist_ok=True)
    train = command(args.root, run, args.image_size, args.batch_size)
    planned = STOPS[-1:] if args.no_stops else STOPS
    started = time.monotonic()
    stops = train_with_stops(train, planned, run, 60 * args.minutes)
    result = {"command": train, "minutes": (time.monotonic() - started) / 60, "stops": stops}
    result |= verdict(args.out)
    (args.out / "verdict.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    expected = [-signum if signum == signal.SIGKILL else 128 + signum for _, signum in planned]
    ended_well = [s["exit_code"] for s in stops] == expected and not any(s["processes_left"] for s in stops)
    sys.exit(0 if result["flat"] and ended_well else 1)


def train_with_stops(
    train: list[str], planned: list[tuple[float, int]], run: Path, seconds: float
) -> list[dict[str, object]]:
    """Run ``train`` for ``seconds``, with the ``planned`` stops; write samples.csv and logs beside ``run``.

    Returns how each part ended, see ``stop``.
    """
    started, stops = time.monotonic(), []
    with open(run.parent / "samples.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(Sample.__dataclass_fields__))
        writer.writeheader()
        for part, (share, signum) in enumerate(planned):
            resume = ["--ckpt_path", str(run / LAST_CHECKPOINT)] if part else []
            with open(run.parent / f"train-{part}.log", "w") as log:
                process = subprocess.Popen([*train, *resume], stdout=log, stderr=subprocess.STDOUT)
                watch(process, part, started, started + share * seconds, writer, file)
                stops.append(stop(process, signum, run))
            print(stops[-1], flush=True)
    return stops


def watch(process: subprocess.Popen, part: int, started: float, until: float, writer: csv.DictWriter, file: IO[str]) -> None:
    """Write a sample of every process of the run every 10 seconds, until the time ``until``."""
    while time.monotonic() < until:
        counts: dict[int, list[int]] = {}
        for _ in range(SAMPLE_SECONDS):
            time.sleep(1)
            for pid in family(process.pid):
                if (number := count_descriptors(pid)) is not None:
                    counts.setdefault(pid, []).append(number)
        if process.poll() is not None:
            raise RuntimeError(f"the training ended without a signal, with code {process.returncode}: see train-{part}.log")
        now = time.monotonic() - started
        for pid, role in family(process.pid).items():
            if sample := measure(now, part, pid, role, counts.get(pid, [])):
                writer.writerow(asdict(sample))
        file.flush()


def stop(process: subprocess.Popen, signum: int, run: Path) -> dict[str, object]:
    """Send the signal to the first process only; return how long all processes took to end, and the age of last.ckpt."""
    members = list(family(process.pid))
    sent, clock = time.monotonic(), time.time()
    process.send_signal(signum)
    code = process.wait(300)
    ended = time.monotonic()
    while (left := [pid for pid in members if stat(pid)[:1] not in ([], ["Z"], ["X"])]) and time.monotonic() - ended < 120:
        time.sleep(0.5)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return {
        "signal": signal.Signals(signum).name,
        "exit_code": code,
        "seconds_until_it_ended": round(ended - sent, 1),
        "seconds_until_all_had_ended": round(time.monotonic() - sent, 1),
        "processes_left": len(left),
        "last_ckpt_age_seconds": round(clock - (run / LAST_CHECKPOINT).stat().st_mtime, 1),  # below 0: saved on the signal
    }


def family(root: int) -> dict[int, str]:
    """Return the process ``root`` and all its descendants with their roles."""
    fields = {int(name): stat(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    parents = {pid: int(values[1]) for pid, values in fields.items() if values}
    members = [root]
    for parent in members:  # the list grows by the children of each member
        members += [pid for pid, parent_pid in parents.items() if parent_pid == parent]
    ranks = {pid: rank_of(pid) for pid in members} | {root: "0"}
    firsts = {pid for pid in ranks if pid == root or ranks.get(parents[pid]) != ranks[pid]}
    return {pid: f"{'rank' if pid in firsts else 'worker'}{rank}" for pid, rank in ranks.items()}


def read_process_file(pid: int, name: str) -> str:
    """Return the text of ``/proc/<pid>/<name>``, or "" if the process has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


def stat(pid: int) -> list[str]:
    """Return state, parent and further fields of a process, or [] if it has ended."""
    return read_process_file(pid, "stat").rpartition(")")[2].split()


def rank_of(pid: int) -> str:
    """Return LOCAL_RANK, which Lightning sets for the processes that it starts and workers inherit; "0" without it."""
    entries = read_process_file(pid, "environ").split("\0")
    return next((entry.removeprefix("LOCAL_RANK=") for entry in entries if entry.startswith("LOCAL_RANK=")), "0")


def count_descriptors(pid: int) -> int | None:
    """Return the number of open descriptors of a process, or None if it has ended."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None


def measure(seconds: float, part: int, pid: int, role: str, descriptors: list[int]) -> Sample | None:
    """Return a sample, or None for a process that has ended or is new; ``descriptors`` are its counts since the last one."""
    status = dict(line.split(":", 1) for line in read_process_file(pid, "status").splitlines() if ":" in line)
    if not descriptors or "VmRSS" not in status:  # a zombie has no memory
        return None
    resident = int(status["VmRSS"].split()[0]) / 1024
    fewest, most = min(descriptors), max(descriptors)
    return Sample(round(seconds, 1), part, pid, role, round(resident, 1), fewest, most, int(status["Threads"]))


def verdict(out: Path) -> dict[str, Any]:
    """Compare beginning and end of each part in samples.csv, without its warm-up, by role; count the epochs in the log."""
    with open(out / "samples.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    comparisons = []
    for part in sorted({row["part"] for row in rows}):
        part_rows = [row for row in rows if row["part"] == part]
        start = float(part_rows[0]["seconds"]) + WARM_UP_SECONDS
        late_rows = [row for row in part_rows if float(row["seconds"]) > start]
        for role in sorted({row["role"] for row in late_rows}):
            role_rows = [row for row in late_rows if row["role"] == role]
            comparisons.append({"part": int(part), "role": role} | compare_beginning_and_end(role_rows))
    judged = [c for c in comparisons if c["judged"]]
    return {"flat": bool(judged) and all(is_flat(c) for c in judged), "parts": comparisons, "epochs": epochs(out / "run")}


def compare_beginning_and_end(rows: list[dict[str, str]]) -> dict[str, Any]:
    """Compare what all processes of one role hold together at the beginning and at the end of ``rows``.

    Memory: the means of the first and the last quarter. Descriptors: the fewest in each half, because they come and go with
    the batches in work, and a leaked one never goes.
    """
    times = np.unique([float(row["seconds"]) for row in rows])
    series = np.zeros((len(times), 3))
    for row in rows:
        index = np.searchsorted(times, float(row["seconds"]))
        series[index] += [float(row[k]) for k in ("resident_mb", "fewest_descriptors", "most_descriptors")]
    quarter = max(len(times) // 4, 1)
    first_mb, last_mb = float(series[:quarter, 0].mean()), float(series[-quarter:, 0].mean())
    halves = np.array_split(series, 2) if len(series) > 1 else [np.zeros((1, 3))] * 2
    minutes = float(times[-1] - times[0]) / 60
    return {
        "minutes": round(minutes, 1),
        "judged": minutes >= JUDGED_MINUTES,
        "mb_first_quarter": round(first_mb, 1),
        "mb_last_quarter": round(last_mb, 1),
        "growth": round(last_mb / first_mb - 1, 4),
        "fewest_descriptors_of_halves": [int(half[:, 1].min()) for half in halves],
        "most_descriptors_of_halves": [int(half[:, 2].max()) for half in halves],
    }


def is_flat(comparison: dict[str, Any]) -> bool:
    """Return True if neither memory nor descriptors have grown beyond the limits."""
    first, second = comparison["fewest_descriptors_of_halves"]
    return comparison["growth"] <= MAX_GROWTH and second - first <= MAX_NEW_DESCRIPTORS


def epochs(run: Path) -> dict[str, int]:
    """Count the epochs in the log. An epoch is repeated after a SIGKILL."""
    numbers = [line.split()[0].partition("/")[0] for line in (run / TRAIN_LOG).read_text().splitlines()]
    numbers = [int(number) for number in numbers if number.isdigit()]
    return {"trained": len(numbers), "distinct": len(set(numbers)), "last": max(numbers)}


if __name__ == "__main__":
    main()
