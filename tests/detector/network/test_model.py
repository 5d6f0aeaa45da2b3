"""The network against the golden numbers; sizes, branches and deployment."""

import zlib

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from detector import VARIANTS, build_detector
from detector.dynamic import dynamic_layers
from detector.network.head import BRANCHES
from detector.weights.reference import convert_reference
from tests.golden_values import hashed, load, reference_weights

ARCHITECTURE = load("architecture")
FORWARD = load("forward")
SHAPES = ["n", "s", "m", "l", "x", "n-p2", "n-p6"]


def golden_detector(case: dict) -> torch.nn.Module:
    ending = case["variant"].removeprefix("yolo26")
    shapes = load(f"state_dict_{case['scale']}{ending}")
    detector = build_detector(f"yolo26_{case['scale']}{ending}", case["nc"])
    detector.load_state_dict(convert_reference(reference_weights(shapes, case["nc"])))
    return detector


@pytest.mark.parametrize("name", SHAPES)
def test_every_reference_weight_is_converted(name: str) -> None:
    reference = {key: torch.empty(shape, device="meta") for key, shape in load(f"state_dict_{name}")}
    converted = {key: tuple(value.shape) for key, value in convert_reference(reference).items()}
    with torch.device("meta"):
        ours = build_detector(f"yolo26_{name}", 80).state_dict()
    assert converted == {key: tuple(value.shape) for key, value in ours.items()}


def test_foreign_weights_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="last layer has index 5"):
        convert_reference({"model.5.conv.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"backbone\.fc\.weight"):
        convert_reference({"model.23.cv2.0.2.bias": torch.zeros(4), "backbone.fc.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    ("dtype", "eval_tolerance", "train_tolerance"), [(torch.float64, 1e-6, 1e-6), (torch.float32, 1e-4, 2e-3)]
)
@pytest.mark.parametrize("case", FORWARD, ids=lambda c: f"{c['scale']}-{c['variant']}-{c['nc']}-{c['input']}")
def test_raw_outputs(case: dict, dtype: torch.dtype, eval_tolerance: float, train_tolerance: float) -> None:
    detector = golden_detector(case).to(dtype)
    images = (hashed("input", case["input"]) + 0.5).to(dtype)
    for mode, tolerance in (("eval", eval_tolerance), ("train", train_tolerance)):
        with torch.no_grad():
            outputs = detector.train(mode == "train")(images)
        for branch, maps in case[mode].items():
            if not isinstance(maps, dict):
                continue
            for kind, golden in case[mode][branch].items():
                got = outputs[branch][kind]
                assert list(got.shape) == golden["shape"]
                scale = golden["abs_mean"]
                assert abs(got.mean().item() - golden["mean"]) <= tolerance * scale
                sample = got.flatten()[golden["index"]].double()
                expected = torch.tensor(golden["value"], dtype=torch.float64)
                torch.testing.assert_close(sample, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("case", [c for c in FORWARD if c["eval"].get("detections_top10") or c.get("detections_top10")])
def test_nms_free_detections(case: dict) -> None:
    golden = case["eval"].get("detections_top10") or case["detections_top10"]
    detector = golden_detector(case).double().eval()
    detections = detector.detect((hashed("input", case["input"]) + 0.5).double(), score_threshold=0.0)
    for of_image, rows in zip(detections, torch.tensor(golden), strict=True):
        torch.testing.assert_close(of_image["boxes"][:10], rows[:, :4], rtol=0, atol=1e-3)
        torch.testing.assert_close(of_image["scores"][:10], rows[:, 4], rtol=0, atol=1e-5)
        assert of_image["labels"][:10].tolist() == rows[:, 5].long().tolist()


@pytest.mark.parametrize("variant", ["yolo26_n", "yolo26_n-p2", "yolo26_n-p6", "dyn_n"])
def test_any_size_that_is_a_multiple_of_the_largest_stride(variant: str) -> None:
    detector = build_detector(variant, 2).eval()
    largest = detector.strides[-1]
    before = {key: value.shape for key, value in detector.state_dict().items()}
    for height, width in ((largest, 2 * largest), (3 * largest, largest)):
        boxes = detector(torch.zeros(1, 3, height, width))["one2one"]["boxes"]
        assert boxes.shape[2] == sum(height * width // s**2 for s in detector.strides)
    assert {key: value.shape for key, value in detector.state_dict().items()} == before
    with pytest.raises(ValueError, match=f"multiples of {largest}"):
        detector(torch.zeros(1, 3, largest, largest + 8))


def test_the_one_to_one_branch_has_no_gradient_to_the_features() -> None:
    detector = build_detector("dyn_n", 2)
    outputs = detector(torch.rand(2, 3, 64, 64))["one2one"]
    (outputs["boxes"].sum() + outputs["scores"].sum()).backward()
    with_gradient = {name for name, p in detector.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, _ in detector.named_parameters() if name.startswith("head.one2one.")}


def test_both_branches_start_equal() -> None:
    head = build_detector("yolo26_n", 3).head
    for a, b in zip(head.one2many.state_dict().values(), head.one2one.state_dict().values()):
        assert torch.equal(a, b)


def _with_running_statistics(variant: str, num_classes: int = 3) -> torch.nn.Module:
    torch.manual_seed(0)
    detector = build_detector(variant, num_classes)
    with torch.no_grad():
        for _ in range(3):
            detector.train()(torch.rand(4, 3, 64, 64))
        for module in detector.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    return detector.eval()


@pytest.mark.parametrize("variant", ["yolo26_n", "dyn_n"])
@pytest.mark.parametrize("branch", BRANCHES)
def test_deploying_does_not_change_the_outputs(variant: str, branch: str) -> None:
    detector = _with_running_statistics(variant).double()
    images = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    deployed = detector.deploy(branch)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in deployed.modules())
    with torch.no_grad():
        expected, got = detector(images), deployed(images)
    assert set(got) == {branch, "points", "strides"}
    for kind in ("boxes", "scores"):
        torch.testing.assert_close(got[branch][kind], expected[branch][kind], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.startswith("dyn")])
def test_dynamic_variants_have_dynamic_backbone_bottlenecks(variant: str) -> None:
    with torch.device("meta"):
        names = set(dynamic_layers(build_detector(variant, 80)))
        plain = build_detector(variant.replace("dyn", "yolo26"), 80)
    expected = {
        name
        for name, m in plain.named_modules()
        if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3) and name.startswith("backbone.stage_")
    }
    assert names == expected
    assert names


def test_errors_name_the_choice() -> None:
    with pytest.raises(ValueError, match=r"unknown variant 'yolo27'.*dyn_n"):
        build_detector("yolo27", 80)
    with pytest.raises(ValueError, match="num_classes is 0"):
        build_detector("yolo26_n", 0)
    with pytest.raises(ValueError, match="unknown override 'depht'; did you mean depth"):
        build_detector("yolo26_n", 80, depht=1.0)
    with pytest.raises(ValueError, match=r"unknown override 'num_experts'; did you mean dynamic\.num_experts"):
        build_detector("dyn_n", 80, num_experts=8)
    with pytest.raises(
        ValueError, match=r"dynamic: unknown field 'experts'; did you mean num_experts.*where, num_experts, routing"
    ):
        build_detector("dyn_n", 80, dynamic={"experts": 8})
    with pytest.raises(ValueError, match="names no convolution"):
        build_detector("dyn_n", 80, dynamic={"where": "nowhere"})


OURS = load("ours")


def summary(variant: str) -> dict[str, int | str]:
    """Return a checksum of the names and shapes of the weights, and the costs of the network."""
    with torch.device("meta"):
        detector = build_detector(variant, 80).eval()
        images = torch.empty(1, 3, 640, 640)
    shapes = [f"{name} {tuple(value.shape)}" for name, value in sorted(detector.state_dict().items())]
    numbers = {"keys": len(shapes), "keys_crc32": zlib.crc32("\n".join(shapes).encode())}
    for kind, model in (("trained", detector), ("deployed", detector.deploy())):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(images)
        numbers[f"parameters_{kind}"] = sum(p.numel() for p in model.parameters())
        numbers[f"multiply_adds_640_{kind}"] = counter.get_total_flops() // 2
    return numbers


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_sizes_and_costs(variant: str) -> None:
    """All variants stay as they were; the plain ones cost as much as the reference.

    A change breaks checkpoints of users or published numbers: raise the version and name it in the changelog.
    """
    numbers = summary(variant)
    assert numbers == OURS[variant]
    if (golden := ARCHITECTURE.get(variant.replace("_", ""))) is None:
        assert variant.startswith("dyn_")
        return
    assert numbers["parameters_trained"] == golden["parameters"]
    assert numbers["parameters_deployed"] == golden["deployed_parameters"]
    assert numbers["multiply_adds_640_trained"] == golden["macs_640_both_branches"]
    assert numbers["multiply_adds_640_deployed"] == golden["macs_640_deployed"]


def test_every_golden_architecture_has_its_variant() -> None:
    assert {name.replace("yolo26", "yolo26_") for name in ARCHITECTURE} <= set(VARIANTS)
