"""Every kind of dynamic layer in mixed precision, compiled, and on devices other than the CPU."""

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from detector.dynamic import DynamicConv2d
from detector.dynamic.experts import ExpertsConv2d
from tests.detector.dynamic.test_experts import KINDS, layer_of


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_routing_and_mixing_are_in_float32_under_autocast(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer, x = layer_of(settings), torch.randn(3, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    mixed: list[torch.Tensor] = []
    mix = layer.mix_kernels
    monkeypatch.setattr(layer, "mix_kernels", lambda weights: mixed.append(mix(weights)) or mixed[-1])
    expected, routing_weights = layer(x), layer.routing_weights(x)
    with torch.autocast("cpu", torch.bfloat16):
        got = layer(x)
        assert torch.equal(layer.routing_weights(x), routing_weights)
    assert got.dtype == torch.bfloat16
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got.float(), expected, rtol=0.05, atol=0.05 * expected.std().item())
    assert len(mixed) == (0 if layer.has_constant_kernel else 2)
    assert all(torch.equal(kernels, mixed[0]) for kernels in mixed)


@pytest.mark.parametrize("device", ["cuda", "meta"])
@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_all_tensors_are_on_the_device_of_the_layer(settings: dict[str, Any], device: str) -> None:
    """Fake tensors of two devices cannot meet, also on a machine without a GPU. Gradients of CUDA would need one."""
    with FakeTensorMode(allow_non_fake_inputs=True):  # counts of batches are made without the mode
        with torch.device(device):
            layer = DynamicConv2d(8, 12, 3, padding=1, **settings)
        for batch in (1, 3):
            x = torch.empty(batch, 8, 6, 6, device=device)
            y, exported = layer.train()(x), ExpertsConv2d(layer.eval())(x)
            assert (y.device.type, exported.device.type) == (device, device)
            assert y.shape == exported.shape == (batch, 12, 6, 6)
            if device == "meta":
                y.sum().backward()
                assert all(p.grad.device.type == device for p in layer.parameters())


@pytest.mark.parametrize("name", ["omni", "residual, all gates"])
def test_a_compiled_layer_is_one_graph_for_each_temperature(name: str) -> None:
    layer, x = layer_of(KINDS[name]).train(), torch.randn(3, 8, 6, 6)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(layer, backend=backend, fullgraph=True, dynamic=False)
    for temperature in (1.0, 1.0, 3.0, 3.0):  # it is a number in the graph: another one compiles again
        layer.router.temperature = temperature
        torch.testing.assert_close(compiled(x), layer(x))
    assert len(graphs) == (1 if "expert" not in layer.units else 2)
