"""The form of dynamic layers for exported graphs: every kind in PyTorch, ONNX Runtime, OpenVINO and torch.export."""

import copy
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detector.dynamic import DynamicConv2d
from detector.dynamic.experts import ExpertsConv2d
from detector.dynamic.router import BottleneckRouter

GATES = ("input", "filter", "position")
KINDS = {
    "mixture": {"num_experts": 3},
    "mixture of one": {"num_experts": 1, "routing": "softmax"},
    "omni": {"kind": "omni"},
    "omni, position, no norm": {"kind": "omni", "gates": ["filter", "position"], "router_norm": "none"},
    "omni, all gates": {"kind": "omni", "gates": GATES, "num_experts": 3},
    "omni, experts only": {"kind": "omni", "gates": [], "num_experts": 2},
    "residual": {"kind": "residual"},
    "residual of one": {"kind": "residual", "num_experts": 1, "routing": "softmax", "gates": ["input"]},
    "residual, all gates": {
        "kind": "residual",
        "num_experts": 2,
        "routing": "sigmoid",
        "gates": GATES,
        "router_norm": "layer",
    },
}
SHAPES = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": (2, 1), "dilation": (2, 1), "groups": 4, "bias": False},
    {"kernel_size": (3, 5), "padding": (1, 2), "stride": (2, 1), "dilation": (1, 2), "groups": 2},
    {"kernel_size": 3, "padding": "same", "stride": 2, "dilation": 3},
    {"kernel_size": 2, "padding": "same"},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 3, "padding": 1, "groups": 8, "out_channels": 8},  # depthwise: a filter gate is left out
]


def layer_of(settings: dict[str, Any], shape: dict[str, Any] = SHAPES[0]) -> DynamicConv2d:
    """Build a layer with 8 input channels in evaluation mode; its routing and statistics are not those of the start."""
    layer = DynamicConv2d(8, **({"out_channels": 12} | shape), **settings)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    for norm in (m for m in layer.modules() if isinstance(m, nn.BatchNorm1d)):
        nn.init.normal_(norm.running_mean, std=0.1)
        nn.init.uniform_(norm.running_var, 0.1, 0.5)
    return layer.eval()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_constant_kernels_compute_the_same(settings: dict, shape: dict) -> None:
    torch.manual_seed(0)
    layer = layer_of(settings, shape).double()
    for _ in range(2):  # as trained, and with a folded normalization
        for size in ((9, 8), (8, 12)):
            x = torch.randn(3, 8, *size, dtype=torch.float64)
            torch.testing.assert_close(ExpertsConv2d(layer)(x), layer(x), rtol=0, atol=1e-10)
        layer.fold(*torch.rand(2, layer.out_channels, dtype=torch.float64))


IN_GRAPH = {
    "mixture": 0,
    "omni": 3,
    "omni, position, no norm": 1,
    "omni, all gates": 2,
    "residual": 5,
    "residual, all gates": 0,
}


class Layers(nn.Module):
    """Layers of several kinds and shapes side by side, as in an exported graph: images (B, 8, H, W) -> their outputs."""

    def __init__(self, kinds: Iterable[str] = IN_GRAPH) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(layer_of(KINDS[kind], SHAPES[IN_GRAPH[kind]]) for kind in kinds)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer(x) for layer in self.layers)

    def for_export(self) -> nn.Module:
        """Return a copy with folded routers, in the form for any batch."""
        copied = copy.deepcopy(self)
        for router in (m for m in copied.modules() if isinstance(m, BottleneckRouter)):
            router.fuse()
        copied.layers = nn.ModuleList(la if la.has_constant_kernel else ExpertsConv2d(la) for la in copied.layers)
        return copied.requires_grad_(False)


@pytest.fixture(scope="module")
def layers() -> Layers:
    return Layers()


def assert_same(layers: Layers, run: Any, images: Tensor) -> None:
    results = run(images)
    assert len(results) == len(layers.layers)
    for result, expected in zip(results, layers(images)):
        torch.testing.assert_close(torch.as_tensor(np.array(result)), expected.detach(), rtol=1e-4, atol=1e-4)


def test_one_graph_for_any_batch(layers: Layers) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    openvino, file = pytest.importorskip("openvino"), io.BytesIO()
    axes = {"images": {0: "batch", 2: "height", 3: "width"}}
    settings = {"input_names": ["images"], "dynamic_axes": axes, "opset_version": 18, "dynamo": False}
    torch.onnx.export(layers.for_export(), torch.randn(2, 8, 8, 10), file, **settings)
    graph = onnx.load_from_string(file.getvalue()).graph
    constants = {tensor.name for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == len(layers.layers)
    assert all(node.input[1] in constants for node in convolutions)
    assert not [node for node in graph.node if node.op_type == "BatchNormalization"]
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(file.getvalue()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch, size in ((1, (8, 10)), (2, (10, 8)), (5, (12, 14))):
        images = torch.randn(batch, 8, *size)
        assert_same(layers, lambda x: session.run(None, {"images": x.numpy()}), images)
        assert_same(layers, lambda x: list(compiled(x.numpy()).values()), images)


def test_torch_export_and_torchscript() -> None:
    layers, images = Layers(["omni, all gates", "residual"]), torch.randn(2, 8, 8, 10)
    graph = layers.for_export()
    program = torch.export.export(graph, (images,), dynamic_shapes={"x": {0: torch.export.Dim("batch")}}).module()
    traced = torch.jit.trace(graph, images)
    assert_same(layers, traced, images)
    for batch in (2, 5):
        assert_same(layers, program, torch.randn(batch, 8, 8, 10))


def test_half_precision(layers: Layers) -> None:
    images = torch.randn(2, 8, 8, 10)
    for graph in (copy.deepcopy(layers), layers.for_export()):
        for result, expected in zip(graph.half()(images.half()), layers(images)):
            assert result.dtype == torch.float16
            torch.testing.assert_close(result.float(), expected, rtol=0.02, atol=0.05)


def test_the_layout_stays(layers: Layers) -> None:
    images = torch.randn(2, 8, 8, 10).contiguous(memory_format=torch.channels_last)
    for graph in (layers, layers.for_export()):
        for result, expected in zip(graph(images), layers(images.contiguous())):
            if graph is layers:
                assert result.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
