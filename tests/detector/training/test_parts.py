"""Parts of a model by name: patterns, freezing, learning rates."""

import pytest
import torch

from detector import build_detector
from detector.training.optimizer import group_table, parameter_groups
from detector.training.parts import find_parts, freeze_parts, frozen_text, innermost_parts


@pytest.fixture
def model() -> torch.nn.Module:
    with torch.device("meta"):
        return build_detector("dyn_n", 2)


def test_names_and_patterns(model: torch.nn.Module) -> None:
    assert find_parts(model, "backbone") == ["backbone"]
    assert find_parts(model, "backbone.stage_p[23]") == ["backbone.stage_p2", "backbone.stage_p3"]
    assert len(find_parts(model, "head.*.norm")) == 36
    for pattern, hint in (("backbon", "backbone"), ("backbone.stage_p9", r"backbone\.stage_p\d"), ("?", "backbone, ")):
        with pytest.raises(ValueError, match=hint):
            find_parts(model, pattern)


def test_freezing(model: torch.nn.Module) -> None:
    names = freeze_parts(model, ["backbone.stem", "neck"])
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith(("backbone.stem.", "neck."))}
    assert names[:2] == ["backbone.stem", "backbone.stem.conv"]
    with pytest.raises(ValueError, match="nothing is left to train"):
        freeze_parts(model, ["backbone", "head"])


def test_the_pattern_of_the_innermost_part_counts(model: torch.nn.Module) -> None:
    parts = innermost_parts(model, ["backbone.stage_p3", "backbone", "*.norm"])
    assert parts["backbone.stage_p3.split.conv"] == "backbone.stage_p3"
    assert parts["backbone.stage_p3.split.norm"] == "*.norm"
    assert parts["backbone.stem.conv"] == "backbone"
    assert parts["neck.down.0.conv"] is None


def test_learning_rates_by_part(model: torch.nn.Module) -> None:
    freeze_parts(model, ["backbone.stem"])
    ratios = {"backbone": 0.1, "backbone.stage_p5": 0.5, "head": 2.0}
    groups = parameter_groups(model, 0.01, 0.0, class_lr_ratio=3.0, lr_ratios=ratios)
    rate_of = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(rate_of)  # each in exactly one
    for name, p in model.named_parameters():
        if name.startswith("backbone.stem."):
            assert id(p) not in rate_of
            continue
        expected = 0.05 if "stage_p5" in name else 0.1 if name.startswith("backbone") else 1.0
        expected = {0.05: 0.005, 0.1: 0.001, 1.0: 0.01}[expected]
        if name.startswith("head"):
            expected = 0.06 if ".cls." in name else 0.02
        assert rate_of[id(p)] == pytest.approx(expected), name
    assert groups[0]["name"] == "kernels"  # the plain rate first: it is the one that is logged
    table = group_table(groups)
    for name in ("backbone kernels", "backbone.stage_p5 routers", "head class biases"):
        assert name in table
    assert [group["name"] for group in parameter_groups(model, 0.01, 0.0)] == [
        "kernels", "norms", "biases", "routers", "class kernels", "class norms", "class biases",
    ]  # fmt: skip


def test_what_is_frozen_is_listed(model: torch.nn.Module) -> None:
    patterns = ["backbone.stem", "head.one2one.box.0"]
    freeze_parts(model, patterns)
    total, stem, box = frozen_text(model, patterns).splitlines()
    counts = {part: [p.numel() for p in model.get_submodule(part).parameters()] for part in patterns}
    number, tensors = sum(map(sum, counts.values())), sum(map(len, counts.values()))
    assert total == f"frozen: {number:,} parameters in {tensors} tensors of {sum(p.numel() for p in model.parameters()):,}"
    # 16 x 3 x 3 x 3 weights of a convolution, and weight and bias of its normalization
    assert stem == "    backbone.stem: 464 parameters in 3 tensors; 1 normalization layer keeps its statistics"
    assert box.endswith(f"in {len(counts[patterns[1]])} tensors; 2 normalization layers keep their statistics")
