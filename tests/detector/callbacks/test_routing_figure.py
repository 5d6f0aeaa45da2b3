"""The figure of routing weights: its cells, numbers and texts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from detector.callbacks.routing_figure import routing_figure
from detector.dynamic.routing import RoutingStatistics
from tests.detector.dynamic.test_routing import target
from tests.detector.imaging.layout import assert_texts_apart, assert_texts_inside, rendered


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_the_figure_without_any_object_has_the_left_part_only() -> None:
    statistics = RoutingStatistics({"model.a.conv": 2, "b": 1}, num_classes=2)
    statistics.add({"model.a.conv": torch.tensor([[0.2, 0.8]]), "b": torch.ones(1, 1)}, [target()])
    (means,) = routing_figure(statistics.results(), ["x", "y"]).axes
    assert [text.get_text() for text in means.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in means.get_xticklabels()] == ["0", "1"]
    assert means.get_xlabel() == "expert"
    numbers, table = texts(means)[:3], texts(means)[3:]
    assert numbers == ["0.20", "0.80", "1.00"]
    assert table[:7] == ["layer", "entropy", "0.72", "1.00", "variation", "0.000", "0.000"]
    assert table[7:10] == ["image share", "0.00", "0.00"]
    assert "at 0 the layer is a plain convolution" in table[10]
    assert "rho" not in table[10]
    assert means.child_axes[0].get_xlabel() == "mean routing weight\nover the images"


def test_the_right_part_has_the_classes_that_occur() -> None:
    statistics = RoutingStatistics({"a": 2, "b": 1}, num_classes=3)
    routing_weights = {"a": torch.tensor([[0.2, 0.8], [0.4, 0.6]]), "b": torch.ones(2, 1)}
    statistics.add(routing_weights, [target(1), target(2)])
    _, differences = routing_figure(statistics.results(), ["x", "y", "z"]).axes
    assert texts(differences) == ["y", "z"]
    (cells,) = differences.images
    expected = [[-0.1, 0.1, 0.1, -0.1], [0, np.nan, 0, np.nan]]  # layers by classes by experts: b has one expert
    np.testing.assert_allclose(cells.get_array().filled(np.nan), expected, atol=1e-6)
    assert [text.get_text() for text in differences.get_xticklabels()] == ["0", "1", "0", "1"]
    first_only = routing_figure(statistics.results(), ["x", "y", "z"], max_classes=1).axes[1]
    assert texts(first_only) == ["y"]
    assert "the first 1 of 2 classes" in first_only.child_axes[0].get_xlabel()


def test_differences_have_a_diverging_scale_around_zero() -> None:
    """Equal distances from 0 have equally strong colors, 0 is nearly white, and the bar is labeled."""
    statistics = RoutingStatistics({"a": 2}, num_classes=2)
    statistics.add({"a": torch.tensor([[0.2, 0.8], [0.4, 0.6]])}, [target(0), target(1)])
    (cells,) = routing_figure(statistics.results(), ["x", "y"]).axes[1].images
    assert cells.get_clim() == pytest.approx((-0.1, 0.1))
    (low, zero, high) = (np.array(cells.to_rgba(value)[:3]) for value in (-0.1, 0.0, 0.1))
    assert zero.min() > 0.95
    assert low.argmax() == 2
    assert high.argmax() == 0
    bar = routing_figure(statistics.results(), ["x", "y"]).axes[1].child_axes[0]
    assert [text.get_text() for text in bar.get_xticklabels()] == ["-0.1", "0", "0.1"]
    assert "red: more, blue: less" in bar.get_xlabel()


GATES = {"input": 8, "filter": 8, "position": 9}


@pytest.mark.parametrize(
    ("num_layers", "units", "num_classes"),
    [(1, 1, 1), (1, 2, 1), (12, 4, 6), (9, 4, 80), (12, GATES, 6), (4, GATES | {"expert": 4}, 3)],
)
def test_all_texts_lie_in_the_figure_and_no_part_of_it_is_empty(num_layers: int, units: Any, num_classes: int) -> None:
    layers = {f"model.backbone.stage_p{n}.blocks.{n}.conv{n}.conv": units for n in range(num_layers)}
    statistics = RoutingStatistics(layers, num_classes)
    num_units = units if isinstance(units, int) else sum(units.values())
    routing_weights = {name: torch.rand(num_classes, num_units) for name in layers}
    statistics.add(routing_weights, [target(n) for n in range(num_classes)])
    figure = routing_figure(
        statistics.results(), [f"the {name} with a very long name" for name in ["class 猫"] * num_classes]
    )
    assert_texts_inside(figure)
    assert_texts_apart(figure.axes[0], figure.axes[1])
    if num_layers == 12:
        pixels = rendered(figure)
        quarters = [part for half in np.array_split(pixels, 2) for part in np.array_split(half, 2, axis=1)]
        assert all((part < 250).any(axis=2).mean() > 0.05 for part in quarters)


def test_gates_without_experts_are_shown_by_their_variation() -> None:
    statistics = RoutingStatistics({"a": {"input": 2, "filter": 2}, "b": {"filter": 1}}, num_classes=2)
    rows = {"a": torch.tensor([[1.0, 1.0, 0.5, 1.0], [1.0, 1.0, 1.5, 1.2]]), "b": torch.tensor([[1.0], [2.0]])}
    statistics.add(rows, [target(0), target(1)])
    results = {name: replace(routing, kernel_variation=0.25) for name, routing in statistics.results().items()}
    means, by_class = routing_figure(results, ["x", "y"]).axes
    assert [text.get_text() for text in means.get_xticklabels()] == ["input", "filter"]
    np.testing.assert_allclose(means.images[0].get_array().filled(np.nan), [[0, 0.3], [np.nan, 0.5]], atol=1e-6)
    words = texts(means)
    assert words[words.index("filter variation") + 1 :][:2] == ["0.300", "0.500"]
    assert words[words.index("filter image share") + 1 :][:2] == [f"{0.13 / (0.13 + 0.0025):.2f}", "1.00"]
    assert words[words.index("rho") + 1 :][:2] == ["0.250", "0.250"]
    assert "entropy" not in words
    assert "compare kinds of layers by it" in words[-1]
    distance = (0.5**2 / 2 + 0.1**2 / 2) ** 0.5  # from the mean, of the units 0.5 and 1.0 of the first class
    cells = by_class.images[0].get_array().filled(np.nan)
    np.testing.assert_allclose(cells, [[0, distance, 0, distance], [np.nan, 0.5, np.nan, 0.5]], atol=1e-6)
    assert [text.get_text() for text in by_class.get_xticklabels()] == ["i", "f", "i", "f"]


def test_signed_routing_weights_have_a_diverging_scale() -> None:
    statistics = RoutingStatistics({"a": 2}, num_classes=0)
    statistics.add({"a": torch.tensor([[-0.5, 0.5], [0.1, 0.3]])})
    (means,) = routing_figure(statistics.results(), []).axes
    assert means.images[0].get_clim() == (-1, 1)
