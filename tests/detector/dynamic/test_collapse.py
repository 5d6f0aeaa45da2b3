"""Dynamic layers made plain."""

import pytest
import torch

from detector import build_detector
from detector.dynamic.conv2d import DynamicConv2d, dynamic_layers
from detector.dynamic.convert import collapse, plain_convolution, upcycle_state_dict
from tests.detector.training.test_module import Rectangles, collate


def batches(number: int = 2) -> list[dict]:
    images = Rectangles(2 * number)
    return [collate([images[2 * i], images[2 * i + 1]]) for i in range(number)]


@pytest.mark.parametrize("case", [{}, {"groups": 2, "stride": 2}, {"bias": False}], ids=str)
def test_a_plain_convolution_is_the_layer_at_its_mixture(case: dict) -> None:
    layer = DynamicConv2d(4, 8, 3, padding=1, num_experts=3, **case)
    layer.fold(torch.rand(8), torch.rand(8))
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(plain_convolution(layer, layer.mixture(x)[0])(x), layer(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("deployed", [False, True])
def test_where_every_mixture_gives_one_kernel_nothing_is_lost(deployed: bool) -> None:
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


def test_the_average_mixture_is_taken() -> None:
    torch.manual_seed(0)
    detector = build_detector("dyn_n", 2).eval()
    data = batches(2)
    name, layer = next(iter(dynamic_layers(detector).items()))
    seen: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda module, inputs: seen.append(module.mixture(inputs[0])))
    for batch in data:
        detector(batch["images"] / 255)
    expected = torch.cat(seen).mean(dim=0)
    torch.testing.assert_close(collapse(detector, data)[1][name], expected, rtol=0, atol=1e-6)


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="no dynamic layer"):
        collapse(build_detector("yolo26_n", 2), batches())
    with pytest.raises(ValueError, match="no images"):
        collapse(build_detector("dyn_n", 2), [])
