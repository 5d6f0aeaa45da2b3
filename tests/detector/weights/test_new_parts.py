"""Weights beside new parts: blocks of the user in place of modules, and parts that are said to be new."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from detector.network.model import Detector, build_detector
from detector.network.replace.entries import check_entries
from detector.predict import load_detector
from detector.training.network_settings import variant_and_overrides
from detector.weights import Weights, WeightsInfo, build_from, load_into, read_weights, save_weights

BLOCKS = "tests.detector.network.replace.blocks"
ENTRIES = check_entries(
    [
        {"where": "backbone.stage_p2.blocks.0.conv?.conv", "layer": f"{BLOCKS}.SqueezeExcitation"},
        {"where": "neck.down.0.conv", "layer": f"{BLOCKS}.Fresh"},
    ]
)
SQUEEZED = "backbone.stage_p2.blocks.0.conv1.conv"


def weights_of(detector: Detector, entries: list[Any] | None = None, **facts: Any) -> Weights:
    info = WeightsInfo("yolo26_n", overrides={"replace": entries} if entries else {}, class_names=["a", "b"], **facts)
    return Weights(detector.state_dict(), info, Path("w.ckpt"), "training checkpoint")


@pytest.fixture(scope="module")
def plain() -> Detector:
    return build_detector("yolo26_n", 2)


@pytest.fixture(scope="module")
def own() -> Detector:
    return build_detector("yolo26_n", 2, replace=ENTRIES)


@pytest.fixture(autouse=True)
def as_they_were(plain: Detector, own: Detector) -> Any:
    states = [{name: value.clone() for name, value in detector.state_dict().items()} for detector in (plain, own)]
    yield
    plain.load_state_dict(states[0])
    own.load_state_dict(states[1])


def test_everything_else_is_loaded_and_counted(plain: Detector, own: Detector) -> None:
    for value in plain.parameters():
        value.data += 1
    before = own.get_submodule(SQUEEZED).squeeze.weight.clone()
    report = load_into(own, weights_of(plain))
    # A block that goes on to use the convolution gets its kernel; its own layers start as they were.
    assert torch.equal(own.get_submodule(SQUEEZED).conv.weight, plain.get_submodule(SQUEEZED).weight)
    assert torch.equal(own.get_submodule(SQUEEZED).squeeze.weight, before)
    assert torch.equal(own.head.one2one.box[0][2].bias, plain.head.one2one.box[0][2].bias)
    squeezed = [f"{SQUEEZED}.{name}.{kind}" for name in ("squeeze", "excite") for kind in ("weight", "bias")]
    fresh = [f"neck.down.0.conv.{name}" for name in own.get_submodule("neck.down.0.conv").state_dict()]
    assert report.new == [*squeezed, *[name.replace("conv1", "conv2") for name in squeezed], *fresh]
    assert report.new_parts == [SQUEEZED, SQUEEZED.replace("conv1", "conv2"), "neck.down.0.conv"]
    assert report.left_out == ["neck.down.0.conv.weight"]
    assert len(report.loaded) + len(report.new) == len(own.state_dict())
    assert len(report.loaded) + len(report.left_out) == len(plain.state_dict())
    assert report.complete
    assert "    16 of new parts, as initialized: backbone.stage_p2.blocks.0.conv1.conv, " in str(report)
    assert "     1 in the file, of modules that are not the same here, left out: neck.down.0.conv.weight" in str(report)


@pytest.mark.parametrize("name", ["backbone.sppf.merge.conv.weight", f"{SQUEEZED}x.weight"])
def test_anything_else_that_is_missing_is_refused(plain: Detector, own: Detector, name: str) -> None:
    weights = weights_of(plain)
    state = weights.state_dict
    state = {n: v for n, v in state.items() if n != name} if name in state else state | {name: torch.zeros(1)}
    with pytest.raises(ValueError, match=r"nothing was loaded.*or name the parts that are to start untrained"):
        load_into(own, replace(weights, state_dict=state))
    if name in weights.state_dict:
        report = load_into(own, replace(weights, state_dict=state), new_parts=["sppf"])
        assert name in report.new
        assert report.new_parts[-1] == "backbone.sppf"
        report = load_into(own, replace(weights, state_dict=state), new_parts=["backbone.*"])
        assert report.new_parts == ["neck.down.0.conv", "backbone.stage_p2", "backbone.sppf"]  # not each module in them
    with pytest.raises(ValueError, match=r"new_parts: where: 'spfp' names no part .* did you mean sppf"):
        load_into(own, weights, new_parts=["spfp"])


def test_weights_with_the_same_blocks_must_be_whole(plain: Detector, own: Detector) -> None:
    weights = weights_of(own, ENTRIES)
    report = load_into(own, weights)
    assert report.loaded == list(own.state_dict())
    state = {name: value for name, value in weights.state_dict.items() if "squeeze.bias" not in name}
    with pytest.raises(ValueError, match="2 not in the file"):
        load_into(own, replace(weights, state_dict=state))
    with pytest.raises(ValueError, match="nothing was loaded"):  # a plain detector from weights with blocks
        load_into(plain, weights)
    assert load_into(plain, weights, new_parts=[f"{SQUEEZED[:-10]}*", "neck.down.0"]).left_out
    # Named places mean the same modules after a replacement.
    assert len(load_into(own, weights_of(plain, ENTRIES), new_parts=["backbone-bottlenecks", "neck.down.0"]).new) == 16


def test_blocks_come_with_the_weights_unless_the_user_gives_others(own: Detector) -> None:
    weights = weights_of(own, ENTRIES)
    other = check_entries([{"where": "sppf", "layer": nn.Identity}])

    def replaced(**settings: Any) -> Any:
        return (variant_and_overrides(None, settings.pop("overrides", None), weights, 2, **settings)[1] or {}).get("replace")

    assert replaced() == ENTRIES
    assert replaced(replace=other) == replaced(overrides={"replace": other}) == other
    assert replaced(replace=[]) is replaced(overrides={"replace": []}) is None
    with pytest.raises(ValueError, match="replace is given twice"):
        replaced(overrides={"replace": other}, replace=other)


def test_own_class_towers_start_anew_for_other_classes(plain: Detector) -> None:
    entries = check_entries([{"where": "class-towers", "layer": f"{BLOCKS}.WithParts"}])
    with_towers = build_detector("yolo26_n", 2, replace=entries)
    weights = weights_of(with_towers, entries)
    assert weights.num_classes == 2
    assert load_into(with_towers, weights, ["a", "b"]).loaded == list(with_towers.state_dict())
    report = load_into(with_towers, weights, ["b", "a"])
    assert report.rebuilt == [name for name in with_towers.state_dict() if ".cls." in name]
    assert report.new_classes == ["b", "a"]
    assert len(load_into(with_towers, weights_of(plain), ["a", "b"]).loaded) == len(plain.state_dict())


def test_safetensors_name_the_blocks_and_load_where_they_are(own: Detector, tmp_path: Path) -> None:
    files = {BLOCKS: {"path": "/home/me/study/blocks.py", "sha256": "0" * 64}}
    weights = weights_of(own, ENTRIES, block_files=files)
    save_weights(tmp_path / "w.safetensors", weights.state_dict, weights.info)
    info = read_weights(tmp_path / "w.safetensors").info
    assert info.overrides == {"replace": ENTRIES}
    assert info.block_files == {BLOCKS: {"path": "blocks.py", "sha256": "0" * 64}}  # no folder of the author
    with pytest.warns(UserWarning, match="is not that of the training any more"):
        loaded = load_detector(tmp_path / "w.safetensors").model
    assert loaded.get_submodule("neck.down.0.conv").index.tolist() == [0, 1, 2]  # a buffer that is no floating point
    torch.testing.assert_close(loaded.state_dict(), own.state_dict())


@pytest.mark.parametrize(
    ("class_path", "message"),
    [
        (
            "not_here.Block",
            "Python finds no module not_here, and its file in training, not_here.py, is not here. Put .* PYTHONPATH",
        ),
        ("os.system", "'os.system' is not imported"),
        ("antigravity.Block", "'antigravity.Block' is not imported"),
        ("torch.save", "is a function, and is not called"),
    ],
)
def test_elsewhere_the_error_names_what_is_missing_and_nothing_is_run(own: Detector, class_path: str, message: str) -> None:
    entries = [{**ENTRIES[0], "layer": {"class_path": class_path, "init_args": {}}}, ENTRIES[1]]
    with pytest.raises(ValueError, match=rf"^w.ckpt: .*{message}"):
        build_from(weights_of(own, entries, block_files={"not_here": {"path": "not_here.py", "sha256": "0" * 64}}))
    assert not {"not_here", "antigravity"} & sys.modules.keys()


def test_a_deployed_detector_with_blocks_is_not_saved(tmp_path: Path) -> None:
    entries = check_entries([{"where": "class-towers", "layer": nn.Identity}])
    state = {"head.one2one.box.0.0.conv.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match="deployed"):
        save_weights(tmp_path / "w.safetensors", state, WeightsInfo("yolo26_n", {"replace": entries}))
