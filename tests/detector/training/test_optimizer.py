"""Parameter groups, and the state of the optimizers."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from detector import build_detector
from detector.dynamic.conv2d import DynamicConv2d, dynamic_layers
from detector.training.optimizer import build_optimizer, group_table, parameter_groups
from tests.detector.network.replace.blocks import Fresh


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


@pytest.mark.parametrize("routing", ["sigmoid", "softmax"])
def test_learning_rate_decay_and_muon_of_every_parameter(routing: str) -> None:
    model = build_detector("dyn_n", 5, dynamic={"routing": routing})
    router_weights = {id(p) for layer in dynamic_layers(model).values() for p in layer.router.parameters() if p.ndim > 1}
    group_of = {id(p): group for group in parameter_groups(model, lr=0.01, weight_decay=5e-4) for p in group["params"]}
    for name, p in model.named_parameters():
        group = group_of[id(p)]
        assert group["base_lr"] == pytest.approx(0.03 if ".cls." in name else 0.01), name
        is_kernel = p.ndim == 4 or name.endswith("conv.weight")
        assert group["muon"] == is_kernel, name
        assert group["weight_decay"] == (5e-4 if is_kernel or id(p) in router_weights else 0), name
        assert group["bias"] == name.endswith("bias"), name


@pytest.mark.parametrize("muon", [True, False])
@pytest.mark.parametrize(
    ("settings", "matrices"),
    [
        ({"kind": "omni", "gates": ["input", "position"]}, {"weight": 1}),
        ({"kind": "omni", "num_experts": 3, "router_norm": "layer"}, {"weight": 3}),
        ({"kind": "residual", "num_experts": 2, "gates": ["filter"]}, {"weight": 1, "delta": 2}),
    ],
    ids=lambda value: value.get("kind"),
)
def test_groups_of_every_kind_of_dynamic_layer(settings: dict, matrices: dict[str, int], muon: bool) -> None:
    """Kernels are matrices, one each; matrices of the router decay without Muon steps; its norm does not decay."""
    layer = DynamicConv2d(4, 6, 3, groups=2, **settings)
    groups = parameter_groups(nn.ModuleDict({"conv": layer}), 0.01, 5e-4, muon, lr_ratios={"*.router": 0.5})
    group_of = {id(p): group for group in groups for p in group["params"]}
    for name, p in layer.named_parameters():
        group = group_of[id(p)]
        in_router = name.startswith("router.")
        decays = name in matrices or (in_router and p.ndim > 1)
        assert group["weight_decay"] == (5e-4 if decays else 0), name
        assert group["muon"] == (muon and name in matrices), name
        assert group["bias"] == name.endswith("bias"), name
        assert group["lr"] == (0.005 if in_router or name == "delta" else 0.01), name  # 2 changes: half of the rate each
    assert {"*.router norms", "*.router routers", "*.router biases"} < {group["name"] for group in groups}
    if muon:
        stacks = [stack for group in groups if group["muon"] for stack in group["matrices"]]
        assert stacks == [(count, 6, 2 * 3 * 3, 1.0) for count in matrices.values()]


def test_whatever_is_in_a_router_takes_no_muon_step() -> None:
    """A router of another kind, with a convolution and a parameter of its own, is no kernel either."""
    layer = DynamicConv2d(4, 4, 3)
    layer.router = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ModuleDict({"conv": nn.Linear(4, 4)}))
    layer.router.register_parameter("weight", nn.Parameter(torch.ones(2, 3)))
    groups = {group["name"]: group for group in parameter_groups(nn.ModuleDict({"conv": layer}), 0.01, 5e-4)}
    routers = {id(p) for p in layer.router.parameters()}
    assert not routers & {id(p) for group in groups.values() if group["muon"] for p in group["params"]}
    assert [id(p) for p in groups["kernels"]["params"]] == [id(layer.weight)]
    assert groups["routers"]["weight_decay"] == 5e-4


def test_parameters_of_blocks_of_the_user_are_in_one_group_and_take_a_step() -> None:
    """Kernels of layers in them are kernels; their own parameters, of any shape, neither decay nor take Muon steps."""
    block = Fresh(4, 8, 1, 3)
    model = nn.ModuleDict({"block": block, "line": nn.Conv1d(4, 4, 3), "head": nn.ModuleDict({"one2one": nn.Module()})})
    model["head"]["one2one"].cls = nn.Linear(4, 4)
    groups = parameter_groups(model, lr=0.01, weight_decay=5e-4)
    names = {id(p): name for name, p in model.named_parameters()}
    assert {group["name"]: [names[id(p)] for p in group["params"]] for group in groups} == {
        "norms": ["block.experts", "block.scale", "block.tables.0"],
        "kernels": [
            "block.conv.weight",
            "block.cls.weight",
            "line.weight",
        ],  # a name of the user's does not make it a class branch
        "biases": ["block.conv.bias", "block.cls.bias", "line.bias"],
        "class kernels": ["head.one2one.cls.weight"],
        "class biases": ["head.one2one.cls.bias"],
    }
    before = [p.detach().clone() for p in block.parameters()]
    block(torch.randn(2, 4, 5, 5)).square().sum().backward()
    build_optimizer("musgd", groups, 0.9).step()
    assert not any(torch.equal(old, new) for old, new in zip(before, block.parameters(), strict=True))


def test_the_momentum_reaches_every_optimizer() -> None:
    first = {}
    for name in ("musgd", "sgd", "adamw"):
        groups = parameter_groups(nn.Conv2d(2, 2, 1), 0.1, 0.0, name == "musgd")
        first[name] = build_optimizer(name, groups, 0.7).param_groups[0]
    assert first["musgd"]["momentum"] == first["sgd"]["momentum"] == 0.7
    assert first["sgd"]["nesterov"]
    assert first["adamw"]["betas"] == (0.7, 0.999)


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
