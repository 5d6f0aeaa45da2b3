"""Measure a training step and its parts, with several memory formats, compiled and eager, and in two Muon precisions.

``python -m benchmarks.train_step`` takes about 15 minutes on 2 cores and writes ``benchmarks/results/train_step.json``.
Data loading is not measured. Times are medians, in milliseconds and in yards (see benchmarks/yard.py); the yard is measured
before and after. ``--quick`` measures only eager steps at 320 px.
"""

import platform
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import option_parser, print_table, write
from benchmarks.yard import median, milliseconds, yard
from detector.batch import Target
from detector.callbacks.ema import update_average
from detector.network.decode import decode
from detector.network.model import Detector, build_detector
from detector.training.loss import DetectionLoss
from detector.training.musgd import MuSGD, orthogonalize
from detector.training.optimizer import parameter_groups

PARTS = ("forward", "loss", "backward", "optimizer", "ema")
# The public reference (release 8.4.190) on a similar machine, in yards
REFERENCE = {"step 320": 2.5, "step 640": 5.5, "loss 320": 0.085, "optimizer + ema": 0.47}


@dataclass(frozen=True)
class Case:
    """One setting to measure."""

    variant: str
    size: int  # pixels, square
    batch: int
    channels_last: bool = True
    compile: bool = False
    orthogonalize: str = "float32"
    dynamic: dict[str, Any] | None = None  # fields of DynamicConfig that differ from the variant

    @property
    def label(self) -> str:
        """One line that describes the case."""
        modes = ["channels_last" if self.channels_last else "contiguous", "compiled" if self.compile else "eager"]
        return f"{self.variant} {self.size} px x {self.batch}, {', '.join(modes)}, {self.orthogonalize} Muon"


def random_batch(case: Case, objects_per_image: int = 8) -> tuple[Tensor, list[Target]]:
    """Return images of noise with random boxes of all sizes, at least as hard for the assignment as a real set."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(case.batch, 3, case.size, case.size, generator=generator)
    targets: list[Target] = []
    for _ in range(case.batch):
        corner = torch.rand(objects_per_image, 2, generator=generator) * case.size * 0.7
        sides = (0.02 + torch.rand(objects_per_image, 2, generator=generator) * 0.28) * case.size
        labels = torch.randint(80, (objects_per_image,), generator=generator)
        targets.append({"boxes": torch.cat((corner, corner + sides), dim=1), "labels": labels})
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    return images.contiguous(memory_format=layout), targets


class Step:
    """A training step with a function for each part."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        overrides = {} if case.dynamic is None else {"dynamic": case.dynamic}
        self.model: Detector = build_detector(case.variant, 80, **overrides).train()
        if case.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.average = deepcopy(self.model)
        self.optimizer = MuSGD(parameter_groups(self.model, 1e-4, 5e-4), precision=getattr(torch, case.orthogonalize))
        self.loss = DetectionLoss()
        self.images, self.targets = random_batch(case)
        if case.compile:
            self.model.compile()

    def forward(self) -> None:
        self.outputs = self.model(self.images)

    def losses(self) -> None:
        terms = self.loss(self.outputs, self.targets, self.images.shape[-2:], 0.5)
        self.total = terms["total"] * len(self.targets)

    def backward(self) -> None:
        self.total.backward()

    def optimize(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def ema(self) -> None:
        update_average(self.average, self.model, 0.999)

    def run(self) -> list[float]:
        """Take one step and return the milliseconds of its parts, in the order of PARTS."""
        return [milliseconds(part) for part in (self.forward, self.losses, self.backward, self.optimize, self.ema)]

    def evaluate(self) -> float:
        """Return the milliseconds of an evaluation of the batch: forward pass of both branches, NMS-free decoding."""
        self.model.eval()
        with torch.no_grad():
            spent = milliseconds(lambda: decode(self.model(self.images), "one2one"))
        self.model.train()
        return spent


def measure(cases: list[Case], repeats: int) -> list[dict[str, Any]]:
    """Measure all ``cases`` in every round, so that a machine that slows down affects all of them."""
    steps = [Step(case) for case in cases]
    for step in steps:
        for _ in range(2):  # the first calls compile and choose algorithms
            step.run()
        step.evaluate()
    rounds = [[(step.run(), step.evaluate()) for step in steps] for _ in range(repeats)]
    rows = []
    for number, case in enumerate(cases):
        parts = {name: median([r[number][0][i] for r in rounds]) for i, name in enumerate(PARTS)}
        step_ms = median([sum(r[number][0]) for r in rounds])
        eval_rate = case.batch * 1e3 / median([r[number][1] for r in rounds])
        rows.append({**asdict(case), "label": case.label, "step": step_ms, **parts, "eval_images_per_second": eval_rate})
    return rows


def measure_orthogonalization(repeats: int) -> dict[str, float]:
    """Return the milliseconds to orthogonalize all matrices of yolo26_n, grouped by shape and one by one."""
    matrices = [p.detach().flatten(1) for p in build_detector("yolo26_n", 80).parameters() if p.ndim == 4]
    shapes = dict.fromkeys(matrix.shape for matrix in matrices)
    stacks = [torch.stack([matrix for matrix in matrices if matrix.shape == shape]) for shape in shapes]
    singles = [matrix[None] for matrix in matrices]
    results = {}
    for grouping, groups in (("grouped by shape", stacks), ("one by one", singles)):
        for precision in (torch.float32, torch.bfloat16):
            times = [milliseconds(lambda: [orthogonalize(g, precision) for g in groups]) for _ in range(repeats + 1)]  # noqa: B023
            results[f"{grouping}, {str(precision).removeprefix('torch.')}"] = median(times[1:])
    return results


def show(rows: list[dict[str, Any]], unit: float) -> None:
    """Print milliseconds of step and parts, then the step in yards."""
    lines = []
    for row in rows:
        times = [f"{row[name]:.1f}" for name in ("step", *PARTS)]
        lines.append([row["label"], *times, f"{row['step'] / unit:.2f}", f"{row['eval_images_per_second']:.1f}"])
    print_table(("", "step", *PARTS, "step yd", "eval img/s"), *lines)


def compare_with_reference(rows: list[dict[str, Any]], unit: float) -> None:
    """Print steps, loss and optimizer in yards, with the public reference's in brackets."""
    base = rows[0]
    print("\nin yards, the public reference's in brackets:")
    print(f"  step 320 px {base['step'] / unit:.2f} ({REFERENCE['step 320']})")
    print(f"  loss with assignment 320 px {base['loss'] / unit:.3f} ({REFERENCE['loss 320']})")
    for row in (rows[0], rows[3]):
        both = (row["optimizer"] + row["ema"]) / unit
        print(f"  MuSGD with EMA, {row['orthogonalize']} {both:.2f} ({REFERENCE['optimizer + ema']})")
    if large := next((row for row in rows if row["size"] == 640), None):
        print(f"  step 640 px {large['step'] / unit:.2f} ({REFERENCE['step 640']})")
    print(f"  dyn_n / yolo26_n, step at 320 px: {rows[1]['step'] / base['step']:.2f}")


def main() -> None:
    """Measure, print and write."""
    args = option_parser(__doc__, repeats=9, quick=False).parse_args()
    torch.set_num_threads(2)
    before = yard()
    plain, dynamic = Case("yolo26_n", 320, 16), Case("dyn_n", 320, 16)
    groups = [[plain, dynamic, replace(plain, channels_last=False), replace(plain, orthogonalize="bfloat16")]]
    if not args.quick:
        groups.append([replace(plain, compile=True), replace(dynamic, compile=True), plain])
        groups.append([Case("yolo26_n", 640, 8), Case("dyn_n", 640, 8), Case("yolo26_n", 640, 8, channels_last=False)])
    rows = [row for group in groups for row in measure(group, args.repeats)]
    muon = measure_orthogonalization(args.repeats)
    after = yard()
    unit = (before + after) / 2
    print(f"1 yard = {before:.0f} ms before, {after:.0f} ms after; torch {torch.__version__}, {platform.machine()}")
    show(rows, unit)
    compare_with_reference(rows, unit)
    print("orthogonalizing the matrices of yolo26_n, ms: " + "; ".join(f"{k} {v:.0f}" for k, v in muon.items()))
    machine = {"yard_before": before, "yard_after": after, "torch": torch.__version__}
    write("train_step", {**machine, "rows": rows, "orthogonalize": muon})


if __name__ == "__main__":
    main()
