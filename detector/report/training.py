"""The part of the page about the training itself: curves, routing, speed."""

import base64
import re
from html import escape

import numpy as np

from detector.network.head import BRANCHES
from detector.report.page import table
from detector.report.run_folder import Epochs, RunFolder, series
from detector.report.speed import Speed
from detector.report.svg import COLORS, Line, line_plot

TERMS = ("box", "cls", "l1")


def training_sections(run: RunFolder) -> str:
    """Return the sections that the run's logs allow, in HTML."""
    return "".join([_losses(run.epochs), _routing(run), _pace(run)])


def _line(epochs: Epochs, name: str, shown: str, color: str, dashed: bool = False) -> list[Line]:
    x, y = series(epochs, name)
    return [Line(shown, np.array(x, float), np.array(y), color, dashed=dashed)] if x else []


def _losses(epochs: Epochs) -> str:
    plots = {
        "AP on the validation set": [
            *_line(epochs, "val/AP", "AP", "var(--ink)"),
            *_line(epochs, "val/AP50", "AP50", COLORS[0]),
            *_line(epochs, "val/AP75", "AP75", COLORS[1]),
            *_line(epochs, "val/one2many/AP", "AP one2many", COLORS[3], dashed=True),
        ],
        "learning rate of the first group": _line(epochs, "train/lr", "", "var(--ink)"),
        "total loss (the branches' weights change with the epoch)": _pair(epochs, "total"),
    }
    for branch in BRANCHES:
        for term in TERMS:
            plots[f"{branch} {term} loss"] = _pair(epochs, f"{branch}/{term}")
    drawn = "".join(line_plot(title, lines, "epoch", size=(290, 160)) for title, lines in plots.items() if lines)
    return f'<h2 id="training">Training</h2>{drawn}' if drawn else ""


def _pair(epochs: Epochs, name: str) -> list[Line]:
    trained = _line(epochs, f"train/{name}", "training", COLORS[0])
    return trained + _line(epochs, f"val/{name}", "validation", COLORS[1], dashed=True)


def _routing(run: RunFolder) -> str:
    """Return what the experts of dynamic layers do at the end, as logged, and the run's own image of it."""
    layers: dict[str, dict[str, float]] = {}
    for values in run.epochs.values():  # the last epoch that has it counts
        for name, value in values.items():
            if match := re.fullmatch(r"routing/(.+)/(expert\d+|entropy|variation)", name):
                layers.setdefault(match[1], {})[match[2]] = value
    image = ""
    if run.routing is not None:
        source = "data:image/png;base64," + base64.b64encode(run.routing.read_bytes()).decode()
        about = "Mean mixture of the experts by layer, and how it differs between classes"
        image = (
            f'<div class="scroll"><figure><img src="{source}" alt="{about}"><figcaption>{about}</figcaption></figure></div>'
        )
    if not layers and not image:
        return ""
    most = max((sum(key.startswith("expert") for key in values) for values in layers.values()), default=0)
    rows = []
    for name, values in layers.items():
        columns = (*(f"expert{i}" for i in range(most)), "entropy", "variation")
        rows.append([name, *(f"{values[key]:.3f}" if key in values else "" for key in columns)])
    told = (
        "Mean share of each expert over the validation images. Entropy 1: all alike, 0: one does all. Variation: how "
        "much shares differ between images; 0 is a plain convolution."
    )
    head = ["layer", *(f"expert {i}" for i in range(most)), "entropy", "variation"]
    shown = table(head, rows) if rows else ""
    return f'<h2 id="routing">Dynamic layers</h2><p class="muted">{told}</p>{shown}{image}'


def _pace(run: RunFolder) -> str:
    rows = []
    for column, what in (
        ("images/s", "training images a second"),
        ("train_s", "seconds of training an epoch"),
        ("val_s", "seconds of validation"),
    ):
        values = [float(row[column]) for row in run.log if row.get(column, "-") != "-"]
        if values:
            rows.append([what, f"{np.median(values):.1f}", f"{min(values):.1f}", f"{max(values):.1f}"])
    for name, what in (
        ("val/eval_seconds", "seconds of pycocotools"),
        ("train/data_wait", "share of time that steps waited for data"),
    ):
        _, values = series(run.epochs, name)
        if values:
            rows.append([what, *(f"{v:.2f}" for v in (np.median(values), min(values), max(values)))])
    if not rows:
        return ""
    return f'<h2 id="speed">Speed of the training</h2>{table(["over epochs", "median", "least", "most"], rows)}'


def network_section(speed: Speed, name: str) -> str:
    """Return what was measured of the checkpoint called ``name``, in HTML."""
    rows = [
        ["parameters, as trained", f"{speed.parameters:,}"],
        ["parameters, deployed (one branch, normalization folded)", f"{speed.deployed_parameters:,}"],
        [f"GFLOPs of a {speed.size[1]} x {speed.size[0]} image", f"{speed.gflops:.2f}"],
        ["milliseconds an image, median", f"{speed.median_ms:.1f}"],
        ["milliseconds an image, 95th percentile", f"{speed.p95_ms:.1f}"],
        ["license of the weights", escape(speed.license)],
    ]
    told = f"{name}, branch {speed.branch}, one image at a time, without reading images. "
    told += f"Measured when this page was written: {speed.machine}."
    return f'<h2 id="network">The network</h2><p class="muted">{escape(told)}</p>{table(["", "value"], rows)}'
