"""Training with dynamic layers: upcycled experts become different; freezing, averaging, compiling, mixed precision."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn

from detector import DetectorModule, build_detector
from detector.callbacks.ema import RampedEMA, update_average
from detector.dynamic import router
from detector.dynamic.conv2d import DynamicConv2d, dynamic_layers
from detector.dynamic.convert import upcycle_state_dict
from detector.training.batch_size import random_batch, step
from tests.detector.training.test_module import NAMES, loader, trainer


def upcycled(routing: str) -> DetectorModule:
    torch.manual_seed(0)
    half = {"width": 0.125}
    plain = build_detector("yolo26_n", len(NAMES), **half)
    overrides = half | {"dynamic": {"routing": routing}}
    module = DetectorModule("dyn_n", NAMES, overrides=overrides, nominal_batch=8, warmup_epochs=0.0)
    module.model.load_state_dict(upcycle_state_dict(module.model, plain.state_dict()))
    return module


def nearest_experts(module: torch.nn.Module) -> dict[str, float]:
    """Return the smallest distance between two experts of each layer, divided by the mean norm of its experts."""
    layers = dynamic_layers(module).items()
    return {n: (torch.pdist(w := layer.weight.detach()).min() / w.norm(dim=1).mean()).item() for n, layer in layers}


class ExpertDistances(L.Callback):
    """Records, for every step, the distances after it, and the smallest gradient norm of the last layers of the routers."""

    def __init__(self) -> None:
        self.distances: list[dict[str, float]] = []
        self.gradients: list[float] = []

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: object) -> None:
        routers = [list(layer.router.parameters())[-2] for layer in dynamic_layers(pl_module).values()]
        self.gradients.append(min(p.grad.norm().item() for p in routers))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        self.distances.append(nearest_experts(pl_module))


@pytest.mark.parametrize("routing", ["sigmoid", "softmax"])
def test_upcycled_experts_become_different(routing: str, tmp_path: Path) -> None:
    """Any two experts of a layer are equal at first, differ after one step, and at least twice as much after twenty."""
    module, record = upcycled(routing), ExpertDistances()
    assert set(nearest_experts(module).values()) == {0.0}
    trainer(tmp_path, max_epochs=10, callbacks=[record]).fit(module, loader(16, 8))
    assert len(record.distances) == 20
    # In the first step the experts are equal, and the gradient of a softmax router is 0.
    assert min(record.gradients[1:]) > 0
    for name, last in record.distances[-1].items():
        assert last > 2 * record.distances[0][name] > 0, name


def test_frozen_layers_and_their_averages_stay(tmp_path: Path) -> None:
    module = upcycled("sigmoid")
    names = list(dynamic_layers(module))
    frozen = {name: value.clone() for name, value in module.state_dict().items() if name.startswith(tuple(names))}
    for name in names:
        module.get_submodule(name).requires_grad_(False)
    fitted = trainer(tmp_path, max_epochs=2, callbacks=[RampedEMA(tau=2)], enable_checkpointing=True)
    fitted.fit(module, loader(8, 8))
    checkpoint = torch.load(fitted.checkpoint_callback.best_model_path, weights_only=True)
    for name, value in frozen.items():
        assert torch.equal(module.state_dict()[name], value)
        assert torch.equal(checkpoint["state_dict"][name], value)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_lower_precision_trains(precision: str, tmp_path: Path) -> None:
    module = upcycled("softmax")
    fitted = trainer(tmp_path, precision=precision, max_epochs=1)
    fitted.fit(module, loader(8, 8), loader(2, 2))
    assert fitted.callback_metrics["train/total"].isfinite()
    assert fitted.callback_metrics["val/total"].isfinite()


@pytest.mark.parametrize("routing", ["sigmoid", "softmax"])
@pytest.mark.parametrize("case", [{"kernel_size": 3, "padding": 1, "groups": 2}, {"kernel_size": 1, "bias": False}], ids=str)
@pytest.mark.parametrize("batch", [1, 4])
def test_compiled_layers_compute_the_same_in_one_graph(case: dict, batch: int, routing: str) -> None:
    torch.manual_seed(0)
    layer = DynamicConv2d(8, 8, routing=routing, **case)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=False)
    x = torch.randn(batch, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    got, expected = compiled(x), layer(x)
    torch.testing.assert_close(got, expected)
    parameters = list(layer.parameters())
    gradients = torch.autograd.grad(got.square().sum(), parameters), torch.autograd.grad(expected.square().sum(), parameters)
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


KINDS: dict[str, dict[str, Any]] = {
    "omni": {"kind": "omni"},
    "omni all": {"kind": "omni", "num_experts": 2, "gates": ["input", "filter", "position"]},
    "residual": {"kind": "residual", "num_experts": 2, "gates": ["input"]},
}


@pytest.mark.parametrize(("kind", "batch"), [("omni", 3), ("omni all", 3), ("residual", 1)])
def test_compiled_layers_of_every_kind(kind: str, batch: int) -> None:
    """In training, where the router of a single image has a way of its own."""
    torch.manual_seed(0)
    layer = DynamicConv2d(4, 4, 3, padding=1, **KINDS[kind])
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(batch, 4, 6, 6)
    expected = deepcopy(layer)(x)
    torch.compiler.reset()  # there is a limit of graphs for one function
    torch.compiler.reset()  # there is a limit of graphs for one function
    got = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=False)(x)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", [KINDS["omni all"], KINDS["residual"]], ids=["omni", "residual"])
def test_the_norm_of_a_router(settings: dict[str, Any]) -> None:
    """A single image leaves its statistics alone, and gives the same as in evaluation; several images change them."""
    torch.manual_seed(0)
    layer = DynamicConv2d(4, 4, 3, padding=1, **settings)
    x = torch.randn(3, 4, 6, 6)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    alone = layer(x[:1])
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    torch.testing.assert_close(alone, deepcopy(layer).eval()(x[:1]))
    layer(x)
    buffers = dict(layer.named_buffers())
    assert buffers
    assert not any(torch.equal(value, before[name]) for name, value in buffers.items())
    average = deepcopy(layer)
    layer(x + 1)
    expected = {
        name: (average.get_buffer(name) + value) / 2 for name, value in layer.named_buffers() if value.is_floating_point()
    }
    update_average(average, layer, 0.5)
    assert all(torch.allclose(average.get_buffer(name), value) for name, value in expected.items())


@pytest.mark.parametrize("freeze", ["norms", "backbone"])
def test_norms_of_routers_are_frozen_like_others(freeze: str) -> None:
    overrides = {"width": 0.125, "dynamic": KINDS["residual"]}
    model = DetectorModule("dyn_n", NAMES, overrides=overrides, freeze=[freeze]).train().model
    norms = [m for layer in dynamic_layers(model).values() for m in layer.router.modules() if isinstance(m, nn.BatchNorm1d)]
    assert len(norms) == 2 * len(dynamic_layers(model))
    assert not any(norm.training for norm in norms)
    assert not any(p.requires_grad for norm in norms for p in norm.parameters())


def test_a_step_of_one_image(tmp_path: Path) -> None:
    """Batches of one in bfloat16, accumulated, with a sanity validation; then the step that measures memory."""
    overrides = {"width": 0.125, "depth": 0.33, "dynamic": KINDS["omni all"] | {"temperature": 5}}
    module = DetectorModule("dyn_n", NAMES, overrides=overrides, nominal_batch=2)
    module.model.backbone.stage_p2.blocks[0].conv1.conv.router.norm.running_mean.fill_(0.5)
    fitted = trainer(tmp_path, max_epochs=1, num_sanity_val_steps=1, precision="bf16-mixed", callbacks=[RampedEMA(tau=2)])
    fitted.fit(module, loader(2, 1), loader(1, 1))
    assert fitted.callback_metrics["train/total"].isfinite()
    assert (module.model.backbone.stage_p2.blocks[0].conv1.conv.router.norm.running_mean == 0.5).all()
    step(module.train(), random_batch(1, (64, 64), "cpu"), "32-true")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_norm_with_statistics_of_several_processes_is_called_for_one_image_too(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other processes wait for its statistics; a norm of one process uses the running ones, which are 0 and 1."""
    monkeypatch.setattr(router.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(router.distributed, "get_world_size", lambda group: processes)
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", lambda norm, x: x + 1)
    norm, x = nn.SyncBatchNorm(3, eps=0.0, affine=False), torch.ones(1, 3)
    torch.testing.assert_close(router._normalize(norm.train(), x), x if processes == 1 else x + 1)
