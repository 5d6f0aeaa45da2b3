"""Places of a Detector by name or pattern."""

import pytest
import torch

from detector.network.model import Detector, build_detector
from detector.network.replace.places import find_modules, places


@pytest.fixture(scope="module")
def detector() -> Detector:
    with torch.device("meta"):
        return build_detector("dyn_n", 2)


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("backbone.stage_p4.blocks.*", ["backbone.stage_p4.blocks.0"]),  # the outermost of nested matches
        ("backbone.stage_p[23].split", ["backbone.stage_p2.split", "backbone.stage_p3.split"]),
        (r"backbone\.(sppf|stage_p5)", ["backbone.stage_p5", "backbone.sppf"]),  # a regular expression
        ("backbone.stage_p5.*", [f"backbone.stage_p5.{part}" for part in ("split", "blocks.0", "merge")]),  # no ModuleList
        ("neck", ["neck"]),
        ("sppf", ["backbone.sppf"]),
        ("stage_p3", ["backbone.stage_p3"]),
        ("attention", ["backbone.attention.blocks.0.attention", "neck.bottom_up.1.blocks.0.1.attention"]),
        ("attention-blocks", ["backbone.attention.blocks.0", "neck.bottom_up.1.blocks.0.1"]),
        ("backbone-blocks", [f"backbone.stage_p{level}.blocks.0" for level in (2, 3, 4, 5)]),
        ("class-towers", [f"head.{branch}.cls.{level}" for branch in ("one2many", "one2one") for level in range(3)]),
        ("downsample", [f"backbone.down_p{level}.conv" for level in (2, 3, 4, 5)]),
    ],
)
def test_names_and_patterns(detector: Detector, where: str, names: list[str]) -> None:
    assert find_modules(detector, where) == names


def test_every_place_can_be_replaced(detector: Detector) -> None:
    sizes = {name: len(find_modules(detector, name)) for name in places(detector)}
    assert sizes == {
        "backbone-bottlenecks": 12,  # dynamic already, and still a place
        "neck-bottlenecks": 14,
        "downsample": 4,
        "pointwise": 31,
        "all": 113,
        "bottlenecks": 13,
        "attention": 2,
        "attention-blocks": 2,
        "sppf": 1,
        "neck-stages": 4,
        "norms": sizes["norms"],
        "backbone-blocks": 4,
        "neck-blocks": 4,
        "neck": 1,
        "box-towers": 6,
        "class-towers": 6,
        **{f"stage_p{level}": 1 for level in (2, 3, 4, 5)},
    }


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            "stagep4",
            "names no part of the detector; did you mean stage_p4.* Places: backbone-bottlenecks, .*Or give the name",
        ),
        ("*.nrm", "names no part of the detector; "),
        ("backbone.(stage", r"names no part of the detector \(as a regular expression: missing \)"),
        ("backbone.stage_p4.blocks", "is a ModuleList, which only holds modules; give those in it, as .*blocks.0"),
        ("head", "'head' cannot be replaced as a whole; replace box-towers or class-towers"),
        ("*", "'.' means backbone, which cannot be replaced as a whole"),
    ],
)
def test_other_names_are_refused(detector: Detector, where: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_modules(detector, where)
