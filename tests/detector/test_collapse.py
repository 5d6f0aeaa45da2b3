"""Dynamic layers made plain."""

import pytest
import torch
from torch import nn

from detector import build_detector
from detector.blocks.dynamic import DynamicConv2d, dynamic_layers
from detector.collapse import collapse, plain_convolution
from detector.exchange import upcycle_state_dict
from tests.detector.test_lightning_module import Rectangles, collate


def batches(number: int = 2) -> list[dict]:
    pictures = Rectangles(2 * number)
    return [collate([pictures[2 * i], pictures[2 * i + 1]]) for i in range(number)]


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
    collapsed = collapse(detector, batches())
    assert not dynamic_layers(collapsed.detector)
    assert dynamic_layers(detector)
    assert all(sum(shares) == pytest.approx(2) for shares in collapsed.mixtures.values())
    images = torch.rand(2, 3, 64, 64)
    got, expected = collapsed.detector(images)["one2one"], detector(images)["one2one"]
    torch.testing.assert_close(got["scores"], expected["scores"], rtol=1e-4, atol=1e-5)
    if not deployed:
        plain.load_state_dict(collapsed.detector.state_dict())
    assert list(collapsed.after) == (["one2one"] if deployed else ["one2one", "one2many"])
    assert str(collapsed).startswith(f"{len(collapsed.mixtures)} dynamic layers")


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
    assert collapse(detector, data).mixtures[name] == pytest.approx(expected.tolist(), abs=1e-6)


def test_the_lost_ap_is_that_of_the_detections(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that finds every object scores 1 before and after, whatever the labels."""

    class Perfect(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = DynamicConv2d(3, 1, 1)
            self.answers = []

        def forward(self, images: torch.Tensor) -> dict:
            self.layer(images)
            boxes, labels = self.answers[0]
            self.answers = [*self.answers[1:], self.answers[0]]
            scores = torch.full((len(images), 2, 1), -9.0)
            scores[range(len(images)), labels, 0] = 9.0
            points, strides = torch.zeros(1, 2), torch.ones(1)
            raw = {"boxes": (boxes * torch.tensor([-1, -1, 1, 1]))[..., None], "scores": scores}
            return {"one2one": raw, "points": points, "strides": strides}

    data, detector = [], Perfect()
    for index in range(2):
        boxes = torch.tensor([[4.0, 8.0, 40.0, 30.0 + index], [10.0, 3.0, 60.0, 50.0]])
        targets = [{"boxes": boxes[:1], "labels": torch.tensor([index])}, {"boxes": boxes[1:], "labels": torch.tensor([1])}]
        data.append({"images": torch.zeros(2, 3, 64, 64, dtype=torch.uint8), "targets": targets})
        detector.answers.append((boxes, [index, 1]))
    result = collapse(detector, data)
    assert result.before["one2one"].metrics["AP"] == result.after["one2one"].metrics["AP"] == pytest.approx(1.0)
    assert result.after["one2one"].num_images == 4


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="no dynamic layer"):
        collapse(build_detector("yolo26_n", 2), batches())
    with pytest.raises(ValueError, match="no images"):
        collapse(build_detector("dyn_n", 2), [])
    with pytest.raises(ValueError, match="only once"):
        collapse(build_detector("dyn_n", 2), iter(batches()))
