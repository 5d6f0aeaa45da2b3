"""MuSGD against its golden numbers, and who is in which group."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from detector import build_detector
from detector.dynamic.conv2d import DynamicConv2d
from detector.training.musgd import MuSGD, orthogonalize
from detector.training.optimizer import build_optimizer, group_table, parameter_groups
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


def test_float32_orthogonalization_is_close() -> None:
    for name, p in golden_run(torch.float32).items():
        torch.testing.assert_close(p.detach().flatten(), torch.tensor(GOLDEN["after"][name]), rtol=0, atol=2e-4)


def test_flat_matrices_take_a_shorter_way_to_the_same() -> None:
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


@pytest.mark.parametrize("variant", ["yolo26_n", "dyn_n"])
def test_every_parameter_is_in_exactly_one_group(variant: str) -> None:
    model = build_detector(variant, 5)
    model.backbone.stem.requires_grad_(False)
    groups = parameter_groups(model, lr=0.01, weight_decay=5e-4)
    members = [id(p) for group in groups for p in group["params"]]
    assert len(members) == len(set(members))
    assert set(members) == {id(p) for p in model.parameters() if p.requires_grad}
    assert all(group["params"] for group in groups)
    for group in groups:
        assert f"{group['name']} " in group_table(groups)
        if group["muon"]:
            assert [n * r * c for n, r, c, _ in group["matrices"]] == [p.numel() for p in group["params"]]


def test_who_is_treated_how() -> None:
    model = build_detector("dyn_n", 5)
    where = {id(p): group for group in parameter_groups(model, lr=0.01, weight_decay=5e-4) for p in group["params"]}
    for name, p in model.named_parameters():
        group = where[id(p)]
        assert group["base_lr"] == pytest.approx(0.03 if ".cls." in name else 0.01), name
        is_kernel = p.ndim == 4 or name.endswith("conv.weight")
        assert group["muon"] == is_kernel, name
        assert bool(group["weight_decay"]) == (is_kernel or name.endswith("router.weight")), name
        assert group["bias"] == name.endswith("bias"), name


def test_everything_frozen_is_an_error() -> None:
    with pytest.raises(ValueError, match="no trainable parameter"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), 0.1, 0.0)


@pytest.mark.parametrize("name", ["musgd", "sgd", "adamw"])
def test_state_survives_saving(name: str) -> None:
    """Two steps, or one, save, load, and one more: the same weights to the bit."""

    def fresh(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), DynamicConv2d(4, 4, 3))
        return model, build_optimizer(name, parameter_groups(model, 0.1, 0.01, name == "musgd"), 0.9)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()

    model, optimizer = fresh()
    step(model, optimizer, 1)
    weights, state = deepcopy(model.state_dict()), deepcopy(optimizer.state_dict())
    resumed, resumed_optimizer = fresh(seed=9)
    resumed.load_state_dict(weights)
    resumed_optimizer.load_state_dict(state)
    for pair in ((model, optimizer), (resumed, resumed_optimizer)):
        step(*pair, seed=2)
    for a, b in zip(model.parameters(), resumed.parameters()):
        assert torch.equal(a, b)


def test_matrices_of_one_shape_are_orthogonalized_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    import detector.training.musgd as optim

    calls = []
    original = optim.orthogonalize
    monkeypatch.setattr(optim, "orthogonalize", lambda m, precision: calls.append(tuple(m.shape)) or original(m, precision))
    model = build_detector("dyn_n", 5)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    groups = parameter_groups(model, 0.01, 0.0)
    MuSGD(groups).step()
    shapes = [shape[1:] for shape in calls]
    assert len(shapes) == len(set(shapes))
    assert sum(shape[0] for shape in calls) == sum(m[0] for group in groups if group["muon"] for m in group["matrices"])
