"""The temperature of experts' weights."""

import math
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch._dynamo.testing import CompileCounter

from detector import DetectorModule, load_detector
from detector.dynamic import DynamicConv2d
from detector.dynamic.temperature import FallingTemperature, set_temperature
from detector.weights import read_weights, save_weights

NAMES = ["a", "b"]
WARM = {"width": 0.125, "depth": 0.33, "dynamic": {"kind": "omni", "num_experts": 2, "temperature": 30}}


def test_it_falls_to_one_in_a_tenth_of_the_steps() -> None:
    temperatures = FallingTemperature(30.0, 200)
    assert [temperatures.at(step) for step in (0, 5, 10, 20, 21, 200)] == [30.0, 22.75, 15.5, 1.0, 1.0, 1.0]
    assert str(temperatures) == "temperature of the experts' weights: 30 at first, 1 after 20 of 200 steps"
    with pytest.raises(ValueError, match=r"has no end; give trainer\.max_epochs, or leave out the temperature"):
        FallingTemperature(30.0, math.inf)


def test_gates_keep_theirs() -> None:
    """Their heads start at zero: a temperature would only slow them down."""
    layer = DynamicConv2d(4, 4, 3, kind="omni", num_experts=3)
    for parameter in layer.router.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(5, 4, 6, 6)
    layer.eval()
    before = layer.gate_weights(layer.routing_weights(x))
    set_temperature(layer, 1e6)
    after = layer.gate_weights(layer.routing_weights(x))
    assert all(torch.equal(before[gate], after[gate]) for gate in ("input", "filter"))
    torch.testing.assert_close(after["expert"], torch.full((5, 3), 1 / 3), rtol=0, atol=1e-4)


def test_a_falling_temperature_does_not_compile_the_network_in_every_step() -> None:
    network = torch.nn.Sequential(*(DynamicConv2d(2, 2, 1, kind="omni", num_experts=2) for _ in range(2))).eval()
    counter = CompileCounter()
    torch.compiler.reset()
    compiled = torch.compile(network, backend=counter)
    for temperature in (9.0, 8.0, 7.0, 6.0, 5.0, 1.0, 1.0):
        set_temperature(network, temperature)
        compiled(torch.ones(2, 2, 4, 4))
    assert counter.frame_count <= 3  # the first value, any value, and 1


def training(num_steps: float = 100) -> DetectorModule:
    module = DetectorModule("dyn_n", NAMES, overrides=WARM)
    trainer = Mock(
        world_size=1, num_nodes=1, accumulate_grad_batches=1, max_epochs=10, max_steps=-1, num_training_batches=10
    )
    trainer.configure_mock(current_epoch=0, estimated_stepping_batches=num_steps, callback_metrics={})
    trainer.state.fn = TrainerFn.FITTING
    trainer.train_dataloader.batch_size = 64
    module._trainer = trainer
    trainer.optimizers = [module.configure_optimizers()]
    return module


def temperatures(module: DetectorModule) -> set[float]:
    return {round(m.router.temperature, 9) for m in module.modules() if isinstance(m, DynamicConv2d)}


def test_training_sets_it_by_the_step_alone() -> None:
    """In training and in validation; a resumed run has the same; later validations and predictions have 1."""
    module, resumed = training(), training()
    for step, expected in ((0, 30.0), (3, 21.3), (10, 1.0), (50, 1.0)):
        module.trainer.global_step = resumed.trainer.global_step = step
        module.on_train_batch_start({}, 0)
        assert temperatures(module) == {expected}
        set_temperature(module, 99.0)
        module.on_validation_start()
        resumed.on_train_batch_start({}, 0)
        assert temperatures(resumed) == temperatures(module) == {expected}
    module.trainer.global_step, module.trainer.state.fn = 0, TrainerFn.VALIDATING
    module.on_validation_start()
    assert temperatures(module) == {1.0}
    with pytest.raises(ValueError, match="has no end"):
        training(math.inf)


def test_weights_of_the_first_steps_keep_it(tmp_path: Path) -> None:
    """Detections are those that were validated. A training from these weights starts at 1."""
    module = training()
    module.trainer.global_step = 5
    module.on_train_batch_start({}, 0)
    checkpoint = {"pytorch-lightning_version": "2.5.0", "hyper_parameters": dict(module.hparams)}
    checkpoint["state_dict"] = module.state_dict()
    module.on_save_checkpoint(checkpoint)
    path = tmp_path / "early.ckpt"
    torch.save(checkpoint, path)
    weights = read_weights(path)
    save_weights(tmp_path / "early.safetensors", weights.state_dict, weights.info)
    models = load_detector(path).model, load_detector(tmp_path / "early.safetensors").model
    assert [temperatures(model) for model in models] == [temperatures(module), temperatures(module)] == 2 * [{15.5}]
    assert temperatures(DetectorModule.load_from_checkpoint(path, weights_only=True)) == {15.5}
    assert DetectorModule(None, NAMES, weights=path).hparams.overrides["dynamic"]["temperature"] == 1.0
