"""One plot of each kind, with difficult names."""

import numpy as np

from detector.imaging.plot_files import Plot
from detector.imaging.plot_style import COLORS
from detector.imaging.plots import Line, bar_plot, histogram, line_plot, matrix

NAMES = ["<b>red & hot</b>", "_hidden", "$x_1^{", "猫", "\U0010fffd", "a name that is longer than most names of classes are"]


def curves(name: str = "curves") -> Plot:
    x = np.arange(5)
    y = np.array([0.5, np.nan, 0.25, np.nan, 0.75])
    lines = [Line(text, x, y * n, COLORS[n % 8], dashed=n == 2) for n, text in enumerate(NAMES, start=1)]
    return line_plot(name, "Curves & <more>", lines, "epoch", mark=(3, "0.300"))


def bars() -> Plot:
    return bar_plot("bars", "Bars", NAMES, {"train": range(6), "val": range(6)}, {"train": "abcdef", "val": "ghijkl"})


def shares() -> Plot:
    values = {"train": np.array([0.0, 1, 1, 1, 9]), "val": np.empty(0)}
    return histogram("shares", "Shares", values, np.arange(5.0), COLORS, "size", "share of objects")


def confusions() -> Plot:
    return matrix("confusions", "Confusions", np.arange(36).reshape(6, 6), NAMES, "object", "detected as")


ALL = (curves, bars, shares, confusions)
