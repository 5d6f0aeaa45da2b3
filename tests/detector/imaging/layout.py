"""Where the parts of a matplotlib figure lie."""

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from detector.imaging.plot_style import plot_style


def assert_texts_inside(figure: Figure) -> None:
    """All texts lie within the figure."""
    with plot_style():
        FigureCanvasAgg(figure).draw()
        width, height = figure.bbox.size
        for text in visible_texts(figure):
            box = text.get_window_extent()
            assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= -0.5, (text.get_text(), box, figure.bbox)


def assert_texts_apart(*groups: Axes) -> None:
    """No text of one of the axes lies on a text of another one."""
    boxes = [[(text, text.get_window_extent()) for text in visible_texts(axes)] for axes in groups]
    for group, others in itertools.combinations(boxes, 2):
        for (text, box), (other, other_box) in itertools.product(group, others):
            if text.get_rotation() == other.get_rotation() == 0:
                assert not box.overlaps(other_box), (text.get_text(), other.get_text())


def visible_texts(parent: Figure | Axes) -> list[Text]:
    hidden = {text for axes in parent.findobj(Axes) for axis in (axes.xaxis, axes.yaxis) for text in _beyond_limits(axis)}
    return [text for text in parent.findobj(Text) if text.get_visible() and text.get_text() and text not in hidden]


def _beyond_limits(axis: Axis) -> list[Text]:
    """The labels of ticks that are not drawn, as they lie beyond the limits of the axis."""
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    outside = [tick for tick in axis.get_major_ticks() if not low - slack <= tick.get_loc() <= high + slack]
    return [label for tick in outside for label in (tick.label1, tick.label2)]


def rendered(figure: Figure) -> np.ndarray:
    """The figure as pixels (H, W, 4)."""
    with plot_style():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())
