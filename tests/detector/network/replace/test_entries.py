"""Entries of ``replace`` as plain values."""

from typing import Any

import pytest
from torch import nn

from detector.network.replace.entries import check_entries

LAYER = {"class_path": "my_blocks.X", "init_args": {"size": 3}}


def test_short_forms_are_written_in_full() -> None:
    full = [{"where": ["sppf"], "layer": {"class_path": "torch.nn.modules.linear.Identity", "init_args": {}}}]
    assert check_entries([{"where": "sppf", "layer": nn.Identity}]) == full
    assert check_entries([{"where": ("sppf",), "layer": {"class_path": nn.Identity, "init_args": None}}]) == full
    assert check_entries(full) == full
    assert check_entries([{"where": ["a", "b"], "layer": "my_blocks.X"}])[0]["layer"]["class_path"] == "my_blocks.X"
    assert check_entries([{"where": "a", "layer": LAYER | {"init_args": {"sizes": (1, [2.5, None])}}}])[0]["layer"][
        "init_args"
    ] == {"sizes": [1, [2.5, None]]}
    assert check_entries(None) == check_entries([]) == []


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"where": "sppf", "layer": LAYER}, "replace is .* expected a list of entries"),
        (["sppf"], r"replace\[0\] is 'sppf'; expected a mapping with where and layer"),
        ([{"were": "sppf", "layer": LAYER}], "unknown key of replace.0.: 'were'; did you mean where"),
        ([{"layer": LAYER}], "replace.0. has no where"),
        ([{"where": "sppf"}], "replace.0. has no layer"),
        ([{"where": [], "layer": LAYER}], "replace.0..where is .*; expected a name"),
        ([{"where": 3, "layer": LAYER}], "replace.0..where is 3"),
        ([{"where": "sppf", "layer": LAYER | {"args": 1}}], "unknown key of replace.0..layer: 'args'"),
        ([{"where": "sppf", "layer": {"init_args": {}}}], "class_path is None"),
        ([{"where": "sppf", "layer": LAYER | {"init_args": [3]}}], r"init_args is \[3\]; expected a mapping"),
        ([{"where": "sppf", "layer": LAYER | {"init_args": {"a": object()}}}], "init_args.a is <object"),
    ],
)
def test_other_forms_are_refused(entries: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_entries(entries)
