"""Routing statistics against values worked out by hand and by running each image alone."""

import csv
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from matplotlib.axes import Axes
from torch import nn
from torch.utils.data import DataLoader

from detector.callbacks.routing_log import RoutingLog, routing_figure
from detector.dynamic.conv2d import DynamicConv2d, dynamic_layers
from detector.dynamic.routing import RoutingStatistics
from tests.detector.dynamic.test_routing import target
from tests.detector.imaging.layout import assert_texts_apart, assert_texts_inside, rendered
from tests.detector.training.test_module import Rectangles, collate, loader, module, trainer
from tests.processes import Processes


def expected_routing_weights(network: torch.nn.Module, num_images: int) -> dict[str, torch.Tensor]:
    seen: dict[str, list[torch.Tensor]] = {}
    for name, layer in dynamic_layers(network).items():
        layer.register_forward_pre_hook(
            lambda layer, inputs, name=name: seen.setdefault(name, []).append(layer.routing_weights(inputs[0]))
        )
    images = Rectangles(num_images)
    with torch.no_grad():
        for i in range(num_images):
            network.eval()(images[i][0][None] / 255)
    return {f"model.{name}": torch.cat(rows) for name, rows in seen.items()}


def test_validation_logs_and_draws(tmp_path: Path) -> None:
    net, log = module(), RoutingLog()
    judge = trainer(tmp_path, callbacks=[log], logger=CSVLogger(tmp_path, "", ""))
    judge.validate(net, loader(5, 2), verbose=False)
    expected = expected_routing_weights(module().model, 5)
    assert list(log.results) == list(expected)
    for name, routing_weights in expected.items():
        torch.testing.assert_close(log.results[name].mean, routing_weights.mean(dim=0), rtol=0, atol=1e-5)
        torch.testing.assert_close(log.results[name].std, routing_weights.std(dim=0, correction=0), rtol=0, atol=1e-4)
        reds = routing_weights[[0, 4]]  # of Rectangles: 2 is empty
        torch.testing.assert_close(log.results[name].by_class[0], reds.mean(dim=0), rtol=0, atol=1e-5)
    layer = "backbone.stage_p2.blocks.0.conv1"
    row = next(r for r in csv.DictReader((tmp_path / "metrics.csv").open()) if r.get(f"routing/{layer}/entropy"))
    mean = expected[f"model.{layer}.conv"][:, 0].mean().item()
    assert float(row[f"routing/{layer}/expert0"]) == pytest.approx(mean, abs=1e-5)
    assert cv2.imread(str(tmp_path / "routing.png")).shape[0] > 200
    assert not any(layer.router._forward_hooks for layer in dynamic_layers(net).values())


class Tiny(L.LightningModule):
    """Two dynamic layers, the first of which is used twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        twice = DynamicConv2d(3, 3, 1)
        self.model = nn.Sequential(twice, twice, DynamicConv2d(3, 2, 3))
        self.class_names = ["red", "green"]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.model(batch["images"] / 255)


@pytest.mark.parametrize("compiled", [False, True])
def test_compiled_networks_and_layers_that_run_twice(compiled: bool, tmp_path: Path) -> None:
    tiny, log = Tiny(), RoutingLog()
    x = torch.stack([Rectangles(4)[i][0] for i in range(4)]) / 255
    with torch.no_grad():
        first, last = tiny.model[0], tiny.model[2]
        expected = (first.routing_weights(x) + first.routing_weights(first(x))) / 2, last.routing_weights(first(first(x)))
    if compiled:
        tiny.model.compile(backend="eager")
        tiny.model.eval()(x[:2])  # compiled before anybody listens
    trainer(tmp_path, callbacks=[log]).validate(tiny, loader(4, 2), verbose=False)
    for routing, routing_weights in zip(log.results.values(), expected, strict=True):
        torch.testing.assert_close(routing.mean, routing_weights.mean(dim=0), rtol=0, atol=1e-5)


def test_a_plain_network_logs_nothing(tmp_path: Path) -> None:
    trainer(tmp_path, callbacks=[RoutingLog()]).validate(module(variant="yolo26_n"), loader(2, 2), verbose=False)
    assert not (tmp_path / "routing.png").exists()


def test_collapsed_and_identical_experts_are_warned_of(tmp_path: Path) -> None:
    net = module(lr=0.0, warmup_epochs=0, warmup_bias_lr=0.0)
    first, second = list(dynamic_layers(net).values())[:2]
    with torch.no_grad():
        first.router.bias.copy_(torch.tensor([-9.0, 9.0, -9.0, -9.0]))
        second.weight.copy_(second.weight[:1].expand_as(second.weight))
    with pytest.warns(UserWarning, match="expert") as caught:
        trainer(tmp_path, callbacks=[RoutingLog()], max_epochs=2).fit(net, loader(4, 4), loader(4, 4))
    said = [str(w.message) for w in caught if "expert" in str(w.message)]
    assert len(said) == 2
    assert "conv1.conv: expert 1 has 100% of the routing weight" in said[0]
    assert "conv2.conv: its experts are alike (distance 0.000" in said[1]


def test_many_layers_with_identical_experts_are_one_warning(tmp_path: Path) -> None:
    net = module()
    for layer in dynamic_layers(net).values():
        layer.weight.data.copy_(layer.weight[:1].expand_as(layer.weight))
    count = len(dynamic_layers(net))
    with pytest.warns(UserWarning, match=rf"experts of {count} of {count} layers are alike .*0\.000 in model\.") as caught:
        RoutingLog().on_fit_end(trainer(tmp_path), net)
    assert len(caught) == 1


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
    assert "at 0 the layer is a plain convolution" in table[7]
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


@pytest.mark.parametrize(("num_layers", "num_experts", "num_classes"), [(1, 1, 1), (1, 2, 1), (12, 4, 6), (9, 4, 80)])
def test_all_texts_lie_in_the_figure_and_no_part_of_it_is_empty(num_layers: int, num_experts: int, num_classes: int) -> None:
    layers = {f"model.backbone.stage_p{n}.blocks.{n}.conv{n}.conv": num_experts for n in range(num_layers)}
    statistics = RoutingStatistics(layers, num_classes)
    routing_weights = {name: torch.rand(num_classes, num_experts) for name in layers}
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


class Rank(L.Callback):
    """Keeps what the log of the first process holds."""

    def __init__(self, path: Path, log: RoutingLog) -> None:
        self.path, self.routing = path, log

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            torch.save({name: r.mean for name, r in self.routing.results.items()}, self.path)


@pytest.mark.filterwarnings("ignore")
def test_two_processes_count_together(tmp_path: Path, processes: Processes) -> None:
    def run(**many: Any) -> dict[str, torch.Tensor]:
        path, log = tmp_path / "means.pt", RoutingLog()
        judge = trainer(tmp_path, callbacks=[log, Rank(path, log)], use_distributed_sampler=True, **many)
        judge.validate(module(), DataLoader(Rectangles(4), batch_size=2, collate_fn=collate), verbose=False)
        return torch.load(path, weights_only=True)

    one, two = run(), run(**processes(2))
    for name, mean in one.items():
        torch.testing.assert_close(two[name], mean, rtol=0, atol=1e-6)
