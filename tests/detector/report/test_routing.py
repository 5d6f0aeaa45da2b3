"""Tables about dynamic layers."""

import json
import re
from pathlib import Path

import pytest

from detector.report.routing import ap_table, layer_table, routing_table
from detector.report.run_folder import read_run
from tests.detector.report.runs import make_run

DIAGNOSIS = {
    "checkpoint": "best.ckpt",
    "images": 87,
    "layers": {
        "backbone.a.conv": {
            "kind": "residual",
            "gates": {"filter": {"variation": 0.25, "image_share": 0.5}, "expert": {"variation": 0.125, "image_share": 1.0}},
            "rho": 0.0625,
            "output_effect": 0.5,
            "experts": {"distance": float("inf"), "cosine": None},
            "source": {},
            "class": {"name": "<cell>", "information_share": 0.25, "p": 0.02},
        },
        "b": {"kind": "omni", "gates": {"filter": {"variation": 0, "image_share": 0}}, "rho": 0, "output_effect": 0,
              "experts": {}, "source": {}, "class": {}},
    },
    "ap": {"as is": {"all": 0.5}, "shuffled": {"all": 0.25}},
    "ap_sd": {"shuffled": {"all": 0.0125}},
    "drops": {"shuffled": {"all": {"value": 0.25, "low": 0.1, "high": 0.4}}},
}  # fmt: skip


def test_columns_of_experts_gates_and_kernels_in_their_order() -> None:
    experts = {"expert10": 0.1, "expert2": 0.5, "entropy": 0.75, "variation": 0.0625, "image_share": 0.25}
    old = {f"routing/a/{key}": value for key, value in experts.items() if key != "image_share"}
    new = {f"routing/b/{key}": value for key, value in experts.items()}
    new |= {"routing/b/kernel_variation": 0.125, "routing/b/filter_image_share": 1.0, "routing/b/filter_variation": 0.5}
    table = routing_table({0: old, 1: new | {"routing/b/other": 7.0}})
    assert table.head[:3] == ["layer", "expert 2", "expert 10"]
    assert table.head[3:6] == ["entropy", "image share", "variation"]
    assert table.head[6:] == ["filter variation", "filter image share", "rho"]
    assert table.rows[0] == ["a", "0.500", "0.100", "0.750", "", "0.062", "", "", ""]
    assert table.rows[1] == ["b", "0.500", "0.100", "0.750", "0.250", "0.062", "0.500", "1.000", "0.125"]
    assert routing_table({0: {"val/AP": 0.5}}).rows == []


def test_tables_of_a_diagnosis() -> None:
    table = layer_table(DIAGNOSIS)
    gates = ["filter variation", "filter image share", "expert variation", "expert image share"]
    assert table.head == ["layer", *gates, "rho", "output", "d", "class", "of class", "p of class"]
    assert table.rows[0] == (
        "backbone.a",
        "0.250",
        "0.500",
        "0.125",
        "1.000",
        "0.062",
        "0.500",
        "inf",
        "<cell>",
        "0.250",
        "0.020",
    )
    assert table.rows[1] == ("b", "0.000", "0.000", "", "", "0.000", "0.000", "", "", "", "")
    assert ap_table(DIAGNOSIS).rows == [
        ["as is", "all", "0.5000", "", "", ""],
        ["shuffled", "all", "0.2500", "0.0125", "0.2500", "0.1000 to 0.4000"],
    ]


def test_a_file_that_is_no_diagnosis_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert read_run(run).diagnosis == {}
    (run / "routing.json").write_text(json.dumps(DIAGNOSIS))
    assert list(read_run(run).diagnosis["layers"]) == ["backbone.a.conv", "b"]
    for text in ("{}", json.dumps({"layers": [], "ap": {}})):
        (run / "routing.json").write_text(text)
        with pytest.raises(ValueError, match=re.escape("routing.json: has no layers, ") + ".*run benchmarks.routing again"):
            read_run(run)
