"""The class of a block by its import path, and its arguments."""

import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from detector.network.replace.own_class import BlockFactory
from tests.detector.network.replace.blocks import Fresh, SqueezeExcitation, WithParts

BLOCKS = "tests.detector.network.replace.blocks"


def factory(class_path: str, **arguments: Any) -> BlockFactory:
    return BlockFactory({"where": ["all"], "layer": {"class_path": class_path, "init_args": arguments}}, "replace[0]")


def test_the_class_is_called_with_the_module_and_its_arguments() -> None:
    conv = nn.Conv2d(4, 8, 3)
    block = factory(f"{BLOCKS}.SqueezeExcitation", reduction="2")(conv)  # text that is a number, as on a command line
    assert type(block) is SqueezeExcitation
    assert block.conv is conv
    assert block.squeeze.out_channels == 4


def test_a_class_method_like_makes_the_block() -> None:
    block = factory(f"{BLOCKS}.Fresh", size=5)(nn.Conv2d(4, 8, 3, stride=2))
    assert type(block) is Fresh
    assert block.conv.kernel_size == (5, 5)
    assert block.conv.stride == (2, 2)


def test_settings_behind_keyword_arguments_are_known() -> None:
    block = factory("detector.DynamicConv2d", kind="residual", num_experts=2)(nn.Conv2d(4, 8, 3, padding=1))
    assert (block.kind, block.num_experts, block.kernel_shape) == ("residual", 2, (8, 4, 3, 3))


def test_modules_as_arguments_are_new_for_every_block() -> None:
    linear = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 3}}
    make = factory(f"{BLOCKS}.WithParts", act="torch.nn.SiLU", inner=linear, depth=2)
    first, second = make(nn.Identity()), make(nn.Identity())
    assert type(first) is WithParts
    assert type(first.act) is nn.SiLU
    assert first.inner.out_features == 3
    assert first.inner is not second.inner
    assert first.rest == {"depth": 2}


@pytest.mark.parametrize(
    ("class_path", "arguments", "message"),
    [
        ("SqueezeExcitation", {}, "has no module; give the whole import path, as my_blocks.SqueezeExcitation"),
        ("my blocks.X", {}, "is no import path"),
        ("my_blocs.X", {}, r"no module my_blocs; did you mean my_blocks \(.*my_blocks.py\)\? .* Looked in"),
        (f"{BLOCKS}.Fres", {}, "unknown class of .*blocks.py.*'Fres'; did you mean Fresh"),
        (f"{BLOCKS}.NoModule", {}, "no subclass of torch.nn.Module"),
        ("torch.cuda.is_available", {}, "is a function, and is not called"),
        ("os.system", {}, "is not imported: os cannot hold a block"),
        ("antigravity.Module", {}, "is not imported"),
        ("__main__.Block", {}, "put the class into a file of its own"),
        (f"{BLOCKS}.TakesNothing", {}, "takes no module; its first argument must be"),
        (f"{BLOCKS}.SqueezeExcitation", {"reducton": 4}, "'reducton'; did you mean reduction"),
        (f"{BLOCKS}.SqueezeExcitation", {"reduction": "a"}, "reduction is 'a'; expected a whole number"),
        (f"{BLOCKS}.SqueezeExcitation", {"conv": None}, "conv is the replaced module, .*; leave it out in init_args"),
        (f"{BLOCKS}.Fresh", {"mode": "c"}, "unknown mode 'c'; choose one of a, b"),
        (f"{BLOCKS}.Fresh", {"in_channels": 4}, "unknown argument .* 'in_channels'"),
        (
            f"{BLOCKS}.WithParts",
            {"inner": {"class_path": "antigravity.Module"}},
            "init_args: .*antigravity.* is not imported",
        ),
        (f"{BLOCKS}.WithParts", {"call": {"class_path": "subprocess.Popen"}}, "not imported: subprocess"),
        (f"{BLOCKS}.WithParts", {"act": "os.system"}, "init_args: act"),
        (f"{BLOCKS}.WithParts", {"function": "os.system"}, "init_args has <built-in function system>; expected classes of"),
    ],
)
def test_mistakes_are_refused_with_a_remedy(
    class_path: str, arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_blocks.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"(?s)^replace.0.: .*{message}"):
        factory(class_path, **arguments)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import no_such_package", "own_broken needs no_such_package"),
        ("def f(:", r"importing own_broken failed: SyntaxError: .*own_broken.py, line 1"),
        ("x = 1\nraise SystemExit(3)", r"importing own_broken failed: SystemExit: 3 \(.*own_broken.py, line 2\)"),
    ],
)
def test_a_module_that_cannot_be_imported(code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_broken.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("own_broken", None)
    with pytest.raises(ValueError, match=message):
        factory("own_broken.X")


def test_an_error_of_the_constructor_names_its_line() -> None:
    with pytest.raises(
        ValueError, match=r"Fails\(module, early=True\) failed for the Conv2d .*too early .*blocks.py, line \d+"
    ):
        factory(f"{BLOCKS}.Fails", early=True)(nn.Conv2d(1, 1, 1))


def test_a_block_that_expects_no_module_is_told_what_it_gets() -> None:
    message = r"failed for the Sequential: AttributeError.*; its first argument is the replaced module itself"
    with pytest.raises(ValueError, match=message):
        factory(f"{BLOCKS}.SqueezeExcitation")(nn.Sequential())
