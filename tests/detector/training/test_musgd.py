"""MuSGD against its golden numbers and against singular value decompositions."""

import pytest
import torch
from torch import nn

from detector import build_detector
from detector.dynamic.conv2d import DynamicConv2d
from detector.training import musgd
from detector.training.musgd import MuSGD, orthogonalize
from detector.training.optimizer import parameter_groups
from tests.golden_values import hashed, load

GOLDEN = load("musgd")


def golden_run(precision: torch.dtype) -> dict[str, torch.Tensor]:
    """Take the three golden steps, matrices and vectors together."""
    shapes = GOLDEN["shapes"] | {name: [size] for name, size in GOLDEN["vectors"].items()}
    params = {name: nn.Parameter(hashed(f"musgd.{name}", shape)) for name, shape in shapes.items()}
    matrices = [params[name] for name in GOLDEN["shapes"]]
    vectors = [params[name] for name in GOLDEN["vectors"]]
    groups = [{"params": matrices, "muon": True, "weight_decay": GOLDEN["weight_decay"]}, {"params": vectors}]
    optimizer = MuSGD(groups, lr=GOLDEN["lr"], momentum=GOLDEN["momentum"], muon_scale=GOLDEN["muon"], precision=precision)
    for step in range(GOLDEN["steps"]):
        for name, p in params.items():
            p.grad = hashed(f"musgd.{name}.grad{step}", list(p.shape))
        optimizer.step()
    return params


def test_three_steps_equal_the_golden_ones() -> None:
    for name, p in golden_run(torch.bfloat16).items():
        torch.testing.assert_close(p.detach().flatten(), torch.tensor(GOLDEN["after"][name]), rtol=0, atol=1e-5)


def test_two_steps_equal_the_formula() -> None:
    """The SGD step follows the Muon step, so it decays the weights that the Muon step has left."""
    torch.manual_seed(0)
    b, lr, decay = 0.5, 0.1, 2.0
    p = nn.Parameter(torch.randn(3, 5))
    expected, m, s = p.detach().clone(), torch.zeros(3, 5), torch.zeros(3, 5)
    optimizer = MuSGD([{"params": [p], "muon": True}], lr=lr, momentum=b, weight_decay=decay)
    for _ in range(2):
        p.grad = g = torch.randn(3, 5)
        optimizer.step()
        m = b * m + (1 - b) * g
        expected = expected - 0.2 * lr * orthogonalize((b * m + (1 - b) * g)[None])[0]
        decayed = g + decay * expected
        s = b * s + decayed
        expected = expected - lr * (decayed + b * s)
    torch.testing.assert_close(p.detach(), expected)


def test_float32_orthogonalization_is_close() -> None:
    for name, p in golden_run(torch.float32).items():
        torch.testing.assert_close(p.detach().flatten(), torch.tensor(GOLDEN["after"][name]), rtol=0, atol=2e-4)


def test_iterating_on_the_gram_matrix_gives_the_same() -> None:
    torch.manual_seed(0)
    for matrices in (torch.randn(3, 16, 144), torch.randn(2, 40, 9), torch.ones(1, 4, 30), torch.zeros(1, 4, 30)):
        exact = orthogonalize(matrices.double(), torch.float64)
        torch.testing.assert_close(orthogonalize(matrices, torch.float32), exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 9, 9)])
def test_singular_values_end_near_one(shape: tuple) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    result = orthogonalize(matrices, torch.float32)
    assert torch.linalg.svdvals(result).min() > 0.3
    assert torch.linalg.svdvals(result).max() < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    assert nn.functional.cosine_similarity(result.flatten(1), (u @ v).flatten(1)).min() > 0.95


@pytest.mark.parametrize("kernel_size", [3, (3, 1)])
def test_experts_are_orthogonalized_one_by_one_like_plain_kernels(kernel_size: int | tuple[int, int]) -> None:
    torch.manual_seed(0)
    dynamic = DynamicConv2d(6, 4, kernel_size, bias=False, num_experts=3)
    plains = [nn.Conv2d(6, 4, kernel_size, bias=False) for _ in range(3)]
    for plain, expert in zip(plains, dynamic.weight):
        plain.weight.data.copy_(expert.view_as(plain.weight))
        plain.weight.grad = torch.randn_like(plain.weight)
    dynamic.weight.grad = torch.stack([plain.weight.grad.flatten() for plain in plains])
    for module in (dynamic, nn.ModuleList(plains)):
        MuSGD(parameter_groups(module, lr=0.1, weight_decay=0.01)).step()
    for plain, expert in zip(plains, dynamic.weight):
        torch.testing.assert_close(expert, plain.weight.flatten())


def test_matrices_of_one_shape_are_orthogonalized_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = musgd.orthogonalize
    monkeypatch.setattr(musgd, "orthogonalize", lambda m, precision: calls.append(tuple(m.shape)) or original(m, precision))
    model = build_detector("dyn_n", 5)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    groups = parameter_groups(model, 0.01, 0.0)
    MuSGD(groups).step()
    shapes = [shape[1:] for shape in calls]
    assert len(shapes) == len(set(shapes))
    assert sum(shape[0] for shape in calls) == sum(m[0] for group in groups if group["muon"] for m in group["matrices"])
