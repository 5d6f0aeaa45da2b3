"""Training with dynamic layers: upcycled experts become different; freezing, averaging, compiling, mixed precision."""

from pathlib import Path

import lightning as L
import pytest
import torch

from detector import DetectorModule, build_detector
from detector.callbacks.ema import RampedEMA
from detector.dynamic.conv2d import DynamicConv2d, dynamic_layers
from detector.dynamic.convert import upcycle_state_dict
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
