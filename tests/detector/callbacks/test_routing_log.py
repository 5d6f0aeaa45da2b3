"""Routing statistics against values worked out by hand and by running each image alone."""

import csv
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import lightning as L
import pytest
import timm
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

from detector.callbacks.routing_log import RoutingLog, _class_names, _targets
from detector.dynamic import make_dynamic, record_routing
from detector.dynamic.conv2d import DynamicConv2d, dynamic_layers
from detector.dynamic.diagnostics import image_share, variation
from detector.dynamic.routing import RoutingStatistics
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


def test_labels_of_a_classifier_give_means_by_class() -> None:
    """Of more classes than a figure could show, there are none."""
    statistics = RoutingStatistics({"layer": 2}, 3)
    rows = torch.tensor([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    statistics.add({"layer": rows}, _targets({"images": torch.zeros(3), "labels": torch.tensor([2, 0, 2])}))
    by_class = statistics.results()["layer"].by_class
    torch.testing.assert_close(by_class[[0, 2]], torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    assert by_class[1].isnan().all()
    assert [len(_class_names(Mock(class_names=["a"] * n))) for n in (1000, 1001)] == [1000, 0]


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


class Classifier(L.LightningModule):
    """A network of timm with batches (images, labels), without class names; one layer sees regions, not images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = timm.create_model("test_efficientnet", num_classes=3)
        make_dynamic(self.network, r"blocks\.1\.0\.conv_exp", kind="omni")
        make_dynamic(self.network, r"blocks\.2\.0\.conv_exp", kind="residual", gates=["filter"])
        self.of_regions = DynamicConv2d(3, 2, 1)
        for layer in dynamic_layers(self).values():
            for parameter in layer.parameters():
                nn.init.normal_(parameter, std=0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.of_regions(images[:1])
        return self.network(images)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])


def test_any_network_and_dataloader(tmp_path: Path) -> None:
    images = torch.rand(5, 3, 32, 32) * torch.linspace(0.1, 4, 5)[:, None, None, None]
    log, net = RoutingLog(), Classifier()
    judge = trainer(tmp_path, callbacks=[log], logger=CSVLogger(tmp_path, "", ""))
    with pytest.warns(UserWarning, match="1 dynamic layer did not run once for each image of a batch, e.g. of_regions"):
        judge.validate(net, DataLoader(list(zip(images, range(5))), batch_size=3), verbose=False)
    gated, residual = log.results.values()
    assert min(gated.variation, residual.variation) > 0.01
    layers = [layer for name, layer in dynamic_layers(net).items() if name in log.results]
    with torch.no_grad(), record_routing(net) as records:
        net.eval()(images)
    (row,) = csv.DictReader((tmp_path / "metrics.csv").open())
    for name, layer in zip(log.results, layers, strict=True):
        (routing_weights,) = records[name]
        each = layer.full_kernels(routing_weights).flatten(1)
        expected = float((each - each.mean(dim=0)).square().sum() / each.square().sum())
        assert float(row[f"routing/{name}/kernel_variation"]) == pytest.approx(expected, rel=1e-3, abs=1e-9)
        filters = layer.gate_weights(routing_weights)["filter"]
        assert float(row[f"routing/{name}/filter_variation"]) == pytest.approx(variation(filters), abs=1e-5)
        assert float(row[f"routing/{name}/filter_image_share"]) == pytest.approx(image_share(filters), abs=1e-3)
    experts = layers[1].gate_weights(routing_weights)["expert"]
    prefix = f"routing/{list(log.results)[1]}"
    assert float(row[f"{prefix}/variation"]) == pytest.approx(variation(experts), abs=1e-5)
    assert float(row[f"{prefix}/expert3"]) == pytest.approx(float(experts[:, 3].mean()), abs=1e-5)
    assert not [key for key in row if "filter0" in key or "of_regions" in key]
    assert (tmp_path / "routing.png").exists()
    assert "expert" not in gated.units
    assert residual.by_class.shape == (0, 4 + residual.units["filter"])


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
    with pytest.warns(
        UserWarning, match=rf"experts of {count} of {count} layers are alike .*0\.000 of their size in model\."
    ) as caught:
        RoutingLog().on_fit_end(trainer(tmp_path), net)
    assert len(caught) == 1


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
