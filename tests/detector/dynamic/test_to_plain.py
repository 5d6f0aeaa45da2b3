"""Networks without their dynamic layers: kernels that are the mean over images, and recomputed norms."""

import pytest
import torch

from detector import build_detector
from detector.dynamic.conv2d import DynamicConv2d, dynamic_layers
from detector.dynamic.convert import upcycle_state_dict
from detector.dynamic.to_plain import collapse, plain_convolution
from tests.detector.training.test_module import Rectangles, collate


def batches(number: int = 2) -> list[dict]:
    images = Rectangles(2 * number)
    return [collate([images[2 * i], images[2 * i + 1]]) for i in range(number)]


@pytest.mark.parametrize("case", [{}, {"groups": 2, "stride": 2}, {"bias": False}], ids=str)
def test_a_plain_convolution_equals_the_layer_at_its_routing_weights(case: dict) -> None:
    layer = DynamicConv2d(4, 8, 3, padding=1, num_experts=3, **case)
    layer.fold(torch.rand(8), torch.rand(8))
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(plain_convolution(layer, layer.routing_weights(x)[0])(x), layer(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("deployed", [False, True])
def test_collapse_loses_nothing_if_all_experts_are_equal(deployed: bool) -> None:
    torch.manual_seed(0)
    plain, detector = build_detector("yolo26_n", 2), build_detector("dyn_n", 2)
    detector.load_state_dict(upcycle_state_dict(detector, plain.state_dict()))
    detector = detector.deploy() if deployed else detector.eval()
    collapsed, routing_weights = collapse(detector, batches())
    assert not dynamic_layers(collapsed)
    assert dynamic_layers(detector)
    assert all(float(weights.sum()) == pytest.approx(2) for weights in routing_weights.values())
    images = torch.rand(2, 3, 64, 64)
    got, expected = collapsed(images)["one2one"], detector(images)["one2one"]
    torch.testing.assert_close(got["scores"], expected["scores"], rtol=1e-4, atol=1e-5)
    if not deployed:
        plain.load_state_dict(collapsed.state_dict())


def test_collapse_takes_the_mean_routing_weights() -> None:
    torch.manual_seed(0)
    detector = build_detector("dyn_n", 2).eval()
    data = batches(2)
    name, layer = next(iter(dynamic_layers(detector).items()))
    recorded: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda module, inputs: recorded.append(module.routing_weights(inputs[0])))
    for batch in data:
        detector(batch["images"] / 255)
    expected = torch.cat(recorded).mean(dim=0)
    torch.testing.assert_close(collapse(detector, data)[1][name], expected, rtol=0, atol=1e-6)


def test_collapse_needs_dynamic_layers_and_images() -> None:
    with pytest.raises(ValueError, match="no dynamic layer"):
        collapse(build_detector("yolo26_n", 2), batches())
    with pytest.raises(ValueError, match="no images"):
        collapse(build_detector("dyn_n", 2), [])
