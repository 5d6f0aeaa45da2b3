"""Loading weights into detectors with other classes and other layers, and the report of it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detector import build_detector
from detector.weights.files import read_weights, save_weights
from detector.weights.info import Weights, WeightsInfo
from detector.weights.load import LoadReport, build_from, load_into

TINY = {"width": 0.125, "depth": 0.33}
LISTS = ("loaded", "upcycled", "copied_rows", "rebuilt", "mismatched", "missing")


def trained(
    variant: str = "yolo26_n",
    names: tuple[str, ...] = ("cat", "dog", "bird"),
    known: bool = True,
    overrides: dict[str, Any] | None = None,
) -> Weights:
    """Return weights that differ from all initial ones."""
    torch.manual_seed(1)
    detector = build_detector(variant, len(names), **(overrides or {}))
    state_dict = {k: v + 0.01 * torch.rand_like(v) if v.is_floating_point() else v for k, v in detector.state_dict().items()}
    info = WeightsInfo(variant, overrides or {}, class_names=list(names) if known else None)
    return Weights(state_dict, info, Path("w.pt"), "random")


def outputs(model: nn.Module) -> dict[str, Tensor]:
    images = torch.linspace(0, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64)
    with torch.no_grad():
        raw = model.eval()(images)
    return {f"{branch} {kind}": raw[branch][kind] for branch in ("one2one", "one2many") for kind in ("boxes", "scores")}


def assert_complete_lists(report: LoadReport, detector: nn.Module) -> None:
    """Assert that every weight of the detector is in exactly one list."""
    names = [name for kind in LISTS for name in getattr(report, kind)]
    assert sorted(names) == sorted(detector.state_dict())


def test_the_same_classes_load_whole() -> None:
    weights, detector = trained(), build_detector("yolo26_n", 3)
    report = load_into(detector, weights, ["cat", "dog", "bird"])
    assert_complete_lists(report, detector)
    assert len(report.loaded) == len(detector.state_dict())
    assert report.complete
    assert all(torch.equal(value, weights.state_dict[name]) for name, value in detector.state_dict().items())
    built = build_from(weights)
    assert not built.training
    expected = outputs(built)
    assert all(torch.equal(value, expected[name]) for name, value in outputs(detector).items())


def test_rows_of_classes_with_the_same_name_are_copied() -> None:
    """The scores of a common class do not change, whatever the number of classes."""
    weights = trained()
    for names in (["dog", "fish"], ["bird", "cat", "dog"], ["fish", "cat", "ox", "yak"]):
        detector = build_detector("yolo26_n", len(names))
        initial = {name: value.clone() for name, value in detector.state_dict().items()}
        report = load_into(detector, weights, names)
        assert_complete_lists(report, detector)
        assert report.complete
        assert len(report.copied_rows) == 12  # weight and bias, 3 levels, 2 branches
        expected, actual = outputs(build_from(weights)), outputs(detector)
        for branch in ("one2one", "one2many"):
            torch.testing.assert_close(actual[f"{branch} boxes"], expected[f"{branch} boxes"])
            for row, name in enumerate(names):
                key = f"head.{branch}.cls.1.4.weight"
                if name in weights.info.class_names:
                    their_row = weights.info.class_names.index(name)
                    their_scores = expected[f"{branch} scores"][:, their_row]
                    torch.testing.assert_close(actual[f"{branch} scores"][:, row], their_scores)
                    assert torch.equal(detector.state_dict()[key][row], weights.state_dict[key][their_row])
                else:
                    assert torch.equal(detector.state_dict()[key][row], initial[key][row])
                    assert name in report.new_classes
        assert f"rows of {', '.join(report.known_classes)}" in str(report)


def test_other_classes_leave_the_last_class_layers_as_initialized() -> None:
    detector = build_detector("yolo26_n", 3)
    report = load_into(detector, trained(), ["a", "b", "c"])  # as many, but others: no class may get the row of another
    assert_complete_lists(report, detector)
    assert len(report.rebuilt) == 12
    assert not report.copied_rows
    assert report.new_classes == ["a", "b", "c"]


def test_rows_are_not_copied_if_the_layers_before_them_are_not() -> None:
    weights = trained(names=tuple("abcdefghij" * 8))  # 80 classes: class towers of 80 channels
    detector = build_detector("yolo26_n", 2)
    report = load_into(detector, weights, ["a", "z"])
    assert_complete_lists(report, detector)
    assert report.complete
    assert (report.copied_rows, report.known_classes) == ([], [])
    assert all(".cls." in name for name in report.rebuilt)
    wide = build_detector("yolo26_n", 2, **weights.overrides_for("yolo26_n", 2))
    assert len(load_into(wide, weights, ["a", "z"]).copied_rows) == 12


def test_classes_without_names_are_taken_in_order() -> None:
    weights = trained(known=False)
    assert len(load_into(build_detector("yolo26_n", 3), weights, ["x", "y", "z"]).loaded) == len(weights.state_dict)
    assert len(load_into(build_detector("yolo26_n", 2), weights, ["x", "y"]).rebuilt) == 12


KINDS: list[dict[str, Any]] = [
    {"kind": "mixture", "routing": "sigmoid"},
    {"kind": "mixture", "routing": "softmax"},
    {"kind": "omni"},
    {"kind": "omni", "num_experts": 2, "gates": ["position"], "router_norm": "layer"},
    {"kind": "residual", "gates": ["filter"]},
]


@pytest.mark.parametrize("dynamic", KINDS, ids=str)
def test_plain_weights_make_dynamic_layers_of_the_same_function(dynamic: dict[str, Any]) -> None:
    weights = trained(overrides=TINY)
    detector = build_detector("dyn_n", 3, **TINY, dynamic=dynamic)
    report = load_into(detector, weights)
    assert_complete_lists(report, detector)
    assert report.complete
    assert report.upcycled
    assert all(".conv." in name and name.startswith("backbone.stage") for name in report.upcycled)
    expected = outputs(build_from(weights))
    for name, value in outputs(detector).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dynamic", KINDS, ids=str)
def test_dynamic_weights_are_not_upcycled_again(dynamic: dict[str, Any]) -> None:
    """A layer with one kernel beside its gates has the kernel of a plain one, under the same name."""
    weights = trained("dyn_n", overrides=TINY | {"dynamic": dynamic})
    detector = build_detector("dyn_n", 3, **weights.info.overrides)
    report = load_into(detector, weights)
    assert len(report.loaded) == len(detector.state_dict())
    assert all(torch.equal(value, weights.state_dict[name]) for name, value in detector.state_dict().items())


def test_weights_of_another_kind_are_refused() -> None:
    weights = trained("dyn_n", overrides=TINY | {"dynamic": {"kind": "omni", "gates": ["input"]}})
    with pytest.raises(ValueError, match=r"(?s)not in the file, as initialized: \S+delta.*'kind': 'omni'"):
        load_into(build_detector("dyn_n", 3, **TINY, dynamic={"kind": "residual", "gates": ["input"]}), weights)


@pytest.mark.parametrize("dynamic", KINDS, ids=str)
def test_last_class_layers_of_every_kind_are_fine_tuned(dynamic: dict[str, Any]) -> None:
    """From dynamic weights, known classes keep their scores. From plain ones, layers with several experts start anew."""
    overrides = TINY | {"dynamic": dynamic | {"where": r"head\..*\.cls\.\d\.4"}}
    for weights in (trained("dyn_n", overrides=overrides), trained(overrides=TINY)):
        detector = build_detector("dyn_n", 2, **overrides)
        report = load_into(detector, weights, ["bird", "fish"])
        assert report.complete
        is_kept = "dynamic" in weights.info.overrides or detector.head.one2one.cls[0][4].weight.ndim == 4
        assert report.known_classes == (["bird"] if is_kept else [])
        expected, actual = outputs(build_from(weights)), outputs(detector)
        for name in [name for name in actual if "scores" in name and is_kept]:
            torch.testing.assert_close(actual[name][:, 0], expected[name][:, 2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("target", "reason"), [("yolo26_s", "of another shape in the file"), ("yolo26_n-p2", "not in the file")]
)
def test_weights_of_another_model_are_refused_as_a_whole(target: str, reason: str) -> None:
    detector = build_detector(target, 3)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with pytest.raises(ValueError, match=rf"(?s)w\.pt.*{reason}.*nothing was loaded.*yolo26_n"):
        load_into(detector, trained())
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())
    report = load_into(detector, trained(), strict=False)
    assert_complete_lists(report, detector)
    assert not report.complete
    assert reason in str(report)


def test_a_missing_and_an_unexpected_weight_are_errors() -> None:
    weights, detector = trained(), build_detector("yolo26_n", 3)
    del weights.state_dict["backbone.stem.norm.bias"]
    weights.state_dict["backbone.stem.norm.biass"] = torch.zeros(16)
    with pytest.raises(ValueError, match=r"(?s)not in the file.*stem\.norm\.bias\n.*not in this detector: .*norm\.biass"):
        load_into(detector, weights)
    report = load_into(detector, weights, strict=False)
    assert (report.missing, report.unexpected) == (["backbone.stem.norm.bias"], ["backbone.stem.norm.biass"])


@pytest.mark.parametrize("variant", ["yolo26_n", "dyn_n"])
@pytest.mark.parametrize("names", [("cat", "dog", "bird"), ("dog", "fish")], ids=["same classes", "other classes"])
def test_no_single_weight_may_be_missing_or_of_another_shape(variant: str, names: tuple[str, ...]) -> None:
    """Some of every part; the rest of the file fits."""
    weights, detector = trained(variant, overrides=TINY), build_detector(variant, len(names), **TINY)
    for name in [*list(weights.state_dict)[::97], "head.one2one.cls.1.2.norm.bias", "head.one2many.cls.2.4.weight"]:
        state_dict = {key: value for key, value in weights.state_dict.items() if key != name}
        with pytest.raises(ValueError, match=rf"1 not in the file, as initialized: {re.escape(name)}\n"):
            load_into(detector, replace(weights, state_dict=state_dict), names)
        with pytest.raises(ValueError, match=rf"1 in the file, but not in this detector: {re.escape(name)}s\n"):
            load_into(detector, replace(weights, state_dict=weights.state_dict | {f"{name}s": torch.ones(1)}), names)
        with pytest.raises(ValueError, match=rf"of another shape in the file, as initialized: {re.escape(name)}"):
            load_into(detector, replace(weights, state_dict=weights.state_dict | {name: torch.ones(5, 5, 5)}), names)


def test_a_class_layer_of_another_shape_is_an_error() -> None:
    """The last class layers are checked, too, not only the layers that all classes share."""
    weights = trained()
    key = "head.one2one.cls.1.4.weight"
    for wrong in (torch.zeros(3, 7, 1, 1), torch.zeros(1, 64, 1, 1)):
        weights.state_dict[key] = wrong
        with pytest.raises(ValueError, match=rf"of another shape in the file, as initialized: {key}"):
            load_into(build_detector("yolo26_n", 2), weights, ["bird", "fish"])
    del weights.state_dict["head.one2many.cls.0.1.norm.weight"]
    with pytest.raises(ValueError, match=r"not in the file, as initialized: head\.one2many\.cls\.0\.1\.norm\.weight"):
        load_into(build_detector("yolo26_n", 2), weights, ["bird", "fish"])


@pytest.mark.parametrize("where", ["all", r"backbone\.stem\.conv", r"head\..*\.cls\.\d\.4"])
def test_dynamic_layers_anywhere_load_and_are_fine_tuned(where: str, tmp_path: Path) -> None:
    """The shape of a dynamic kernel shows neither its channels nor the number of classes."""
    torch.manual_seed(0)
    overrides = {"dynamic": {"where": where}}
    detector = build_detector("yolo26_n", 80, **overrides)
    names = [f"class {i}" for i in range(79)] + ["cat"]
    save_weights(tmp_path / "w.safetensors", detector.state_dict(), WeightsInfo("yolo26_n", overrides, class_names=names))
    weights = read_weights(tmp_path / "w.safetensors")
    expected, actual = outputs(detector), outputs(build_from(weights))
    assert all(torch.equal(value, actual[name]) for name, value in expected.items())
    overrides = weights.overrides_for("yolo26_n", 20)
    assert overrides["class_channels"] == 80
    few = [*names[:19], "cat"]
    tuned = build_detector("yolo26_n", 20, **overrides)
    report = load_into(tuned, weights, few)
    assert report.complete
    assert len(report.copied_rows) == 12
    assert report.known_classes == few
    for name, value in outputs(tuned).items():  # a known class has the scores that it had
        rows = [names.index(label) for label in few] if "scores" in name else slice(None)
        torch.testing.assert_close(value, expected[name][:, rows], msg=name)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"dynamic": {"num_experts": 10**9}}, "make no detector: dynamic: num_experts is 1000000000; .* at most 1024"),
        ({"width": "wide"}, "make no detector"),
        ({"depth": 1e9}, "depth is 1"),
        ({"color": 3}, "color"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_the_weights_are_refused_before_anything_is_built(overrides: dict, reason: str) -> None:
    weights = trained()
    weights = replace(weights, info=replace(weights.info, overrides=overrides))
    with pytest.raises(ValueError, match=f"w.pt: its settings .*{reason}"):
        build_from(weights)
