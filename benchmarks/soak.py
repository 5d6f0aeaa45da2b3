"""An hour of training on two processes with two workers each, killed twice and resumed: does memory or a descriptor leak?

``python -m benchmarks.soak --root datasets/bccd --out /tmp/soak`` writes ``samples.csv`` (every 10 s, a line for each
process; descriptors are counted every second), the output of the training, and at the end ``verdict.json``. ``--no_stops``
lets it run in one part. Linux only: it reads ``/proc``.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from detector.runs.folder import LAST_CHECKPOINT, TRAIN_LOG

SAMPLE_SECONDS = 10
WARM_UP_SECONDS = 300  # left out of the verdict: allocators and caches fill, workers of the first validation start
JUDGED_MINUTES = 15  # shorter parts are reported and not judged
STOPS = [(1 / 3, signal.SIGTERM), (2 / 3, signal.SIGKILL), (1.0, signal.SIGTERM)]  # share of the time, and how
# A leak of 1 MB an epoch would exceed the first; one of eight descriptors an hour, so one in a half of a part, the second.
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
    """Return the training that is watched; epochs without end, since it is stopped from outside."""
    return [
        *(sys.executable, "train.py", "--config", "configs/yolo26_n.yaml", "--config", "configs/data/bccd.yaml"),
        *("--data.root", str(root), "--data.num_workers", "2", "--data.image_size", str(image_size)),
        *("--data.batch_size", str(batch_size), "--model.nominal_batch", str(2 * batch_size)),
        *("--trainer.max_epochs", "10000", "--trainer.accelerator", "cpu", "--trainer.devices", "2", "--run_dir", str(run)),
    ]


def main() -> None:
    """Train, watch, stop and resume; print and write the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("datasets/bccd"))
    parser.add_argument("--out", type=Path, default=Path("runs/soak"))
    parser.add_argument("--minutes", type=float, default=62)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--no_stops", action="store_true", help="stop only at the end")
    parser.add_argument("--judge", action="store_true", help="only judge what --out has already, and print it")
    args = parser.parse_args()
    if args.judge:
        print(json.dumps(verdict(args.out / "samples.csv") | {"epochs": epochs(args.out / "run")}, indent=1))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    run = args.out / "run"
    if run.exists():
        parser.error(f"{run} is there already: remove it, or choose another --out")
    train = command(args.root, run, args.image_size, args.batch_size)
    started = time.monotonic()
    stops, planned = [], STOPS[-1:] if args.no_stops else STOPS
    with open(args.out / "samples.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(Sample.__dataclass_fields__))
        writer.writeheader()
        for part, (share, signum) in enumerate(planned):
            resume = ["--ckpt_path", str(run / LAST_CHECKPOINT)] if part else []
            with open(args.out / f"train-{part}.log", "w") as log:
                process = subprocess.Popen([*train, *resume], stdout=log, stderr=subprocess.STDOUT)
                watch(process, part, started, started + share * args.minutes * 60, writer, file)
                stops.append(stop(process, signum, run))
            print(stops[-1], flush=True)
    found = {"command": train, "minutes": (time.monotonic() - started) / 60, "stops": stops}
    found |= verdict(args.out / "samples.csv") | {"epochs": epochs(run)}
    (args.out / "verdict.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    expected = [-signum if signum == signal.SIGKILL else 128 + signum for _, signum in planned]
    ended_well = [s["exit_code"] for s in stops] == expected and not any(s["processes_left"] for s in stops)
    sys.exit(0 if found["flat"] and ended_well else 1)


def watch(process: subprocess.Popen, part: int, started: float, until: float, writer: csv.DictWriter, file) -> None:
    """Write down what all processes of the run hold, until the time is over."""
    while time.monotonic() < until:
        counts: dict[int, list[int]] = {}
        for _ in range(SAMPLE_SECONDS):
            time.sleep(1)
            for pid in family(process.pid):
                if (number := count_descriptors(pid)) is not None:
                    counts.setdefault(pid, []).append(number)
        if process.poll() is not None:
            raise RuntimeError(f"the training has ended by itself with code {process.returncode}: see train-{part}.log")
        now = time.monotonic() - started
        for pid, role in family(process.pid).items():
            if sample := measure(now, part, pid, role, counts.get(pid, [])):
                writer.writerow(asdict(sample))
        file.flush()


def stop(process: subprocess.Popen, signum: int, run: Path) -> dict[str, object]:
    """Send the signal to the first process only, and report how long all took to end and what was saved."""
    members = list(family(process.pid))
    sent, clock = time.monotonic(), time.time()
    process.send_signal(signum)
    code = process.wait(300)
    ended = time.monotonic()
    while (left := [pid for pid in members if is_alive(pid)]) and time.monotonic() - ended < 120:
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
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    ranks = {root: "0"}
    todo = [root]
    while todo:
        parent = todo.pop()
        for pid in [child for child, p in parents.items() if p == parent]:
            ranks[pid] = rank_of(pid)
            todo.append(pid)
    roles = {}
    for pid, rank in ranks.items():
        is_first = pid == root or ranks.get(parents[pid]) != rank
        roles[pid] = f"rank{rank}" if is_first else f"worker{rank}"
    return roles


def rank_of(pid: int) -> str:
    """Return LOCAL_RANK, which Lightning gives the processes that it starts; workers inherit it."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return "0"
    return next((entry[11:].decode() for entry in environment if entry.startswith(b"LOCAL_RANK=")), "0")


def count_descriptors(pid: int) -> int | None:
    """Return how many descriptors a process has open, or None if it is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None


def measure(seconds: float, part: int, pid: int, role: str, descriptors: list[int]) -> Sample | None:
    """Return what a process holds, or None if it is gone or new; ``descriptors`` are the counts since the sample before."""
    if not descriptors:
        return None
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
        resident = int(status["VmRSS"].split()[0]) / 1024
    except (OSError, KeyError):  # a zombie has no memory
        return None
    fewest, most = min(descriptors), max(descriptors)
    return Sample(round(seconds, 1), part, pid, role, round(resident, 1), fewest, most, int(status["Threads"]))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def verdict(path: Path) -> dict[str, object]:
    """Compare the beginning and the end of each part, its warm-up left out, by role.

    Of memory the means of the first and last quarter; of descriptors the fewest in each half: they come and go with the
    batches that are under way, and one that is leaked never goes.
    """
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    parts, is_flat = [], True
    for part in sorted({row["part"] for row in rows}):
        of_part = [row for row in rows if row["part"] == part]
        start = float(of_part[0]["seconds"]) + WARM_UP_SECONDS
        late = [row for row in of_part if float(row["seconds"]) > start]
        for role in sorted({row["role"] for row in late}):
            times = np.unique([float(row["seconds"]) for row in late if row["role"] == role])
            series = np.zeros((len(times), 3))  # memory and descriptors of all processes of the role together
            for row in [row for row in late if row["role"] == role]:
                place = np.searchsorted(times, float(row["seconds"]))
                series[place] += [float(row[k]) for k in ("resident_mb", "fewest_descriptors", "most_descriptors")]
            quarter = max(len(times) // 4, 1)
            first, last = series[:quarter], series[-quarter:]
            growth = last[:, 0].mean() / first[:, 0].mean() - 1
            halves = np.array_split(series, 2) if len(series) > 1 else [np.zeros((1, 3))] * 2
            fewest, most = [int(half[:, 1].min()) for half in halves], [int(half[:, 2].max()) for half in halves]
            minutes = float(times[-1] - times[0]) / 60
            judged = minutes >= JUDGED_MINUTES
            is_flat &= not judged or (growth <= MAX_GROWTH and fewest[1] - fewest[0] <= MAX_NEW_DESCRIPTORS)
            parts.append(
                {
                    "part": int(part),
                    "role": role,
                    "minutes": round(minutes, 1),
                    "judged": judged,
                    "mb_first_quarter": round(float(first[:, 0].mean()), 1),
                    "mb_last_quarter": round(float(last[:, 0].mean()), 1),
                    "growth": round(float(growth), 4),
                    "fewest_descriptors_of_halves": fewest,
                    "most_descriptors_of_halves": most,
                }
            )
    return {"flat": bool(is_flat and any(part["judged"] for part in parts)), "parts": parts}


def epochs(run: Path) -> dict[str, int]:
    """Count the epochs in the log: repeated ones are those that a kill cost."""
    numbers = [line.split()[0] for line in (run / TRAIN_LOG).read_text().splitlines()]
    numbers = [int(number) for number in numbers if number.isdigit()]
    return {"trained": len(numbers), "distinct": len(set(numbers)), "last": max(numbers)}


if __name__ == "__main__":
    main()
