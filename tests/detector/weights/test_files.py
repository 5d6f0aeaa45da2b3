"""Weights files of this project: written, read back, refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from detector import DetectorModule, build_detector, load_detector
from detector.network.config import complete_overrides
from detector.weights import WeightsInfo, metadata, read_weights, save_weights
from tests.detector.reference_files import some_weights, write_checkpoint

INFO = WeightsInfo(
    variant="dyn_n",
    overrides=complete_overrides("dyn_n", {"dynamic": {"num_experts": 2}}),
    class_names=["Zelle", "größer, \"kleiner\""],
    category_ids=[7, 9],
    image_size=(64, 96),
    sixteen_bit_range=(0, 4095),
    license="CC-BY-4.0",
    provenance="random",
    metrics={"val/AP": 0.25},
    best_f1_thresholds={"one2one": 0.01237, "one2many": None},
)  # fmt: skip


def state_dict() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build_detector("dyn_n", 2, dynamic={"num_experts": 2}).to(memory_format=torch.channels_last).state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_written_weights_are_read_back(tmp_path: Path, dtype: torch.dtype) -> None:
    original = state_dict()
    save_weights(tmp_path / "w.safetensors", original, INFO, dtype)
    weights = read_weights(tmp_path / "w.safetensors")
    assert weights.info == INFO
    assert set(weights.state_dict) == set(original)
    for name, value in weights.state_dict.items():
        assert value.dtype == (dtype if original[name].is_floating_point() else torch.int64)
        assert torch.equal(value, original[name].to(value.dtype))
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        assert file.metadata()["format_version"] == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_unknown_facts_stay_unknown(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", build_detector("yolo26_n", 2).state_dict(), WeightsInfo("yolo26_n"))
    assert read_weights(tmp_path / "w.safetensors").info == WeightsInfo("yolo26_n")


def test_a_value_too_large_is_not_turned_into_infinity(tmp_path: Path) -> None:
    original = state_dict()
    original["backbone.stem.norm.running_var"][0] = 1e5
    with pytest.raises(ValueError, match=r"backbone\.stem\.norm\.running_var has values up to 100000"):
        save_weights(tmp_path / "w.safetensors", original, INFO, torch.float16)
    assert not list(tmp_path.iterdir())
    save_weights(tmp_path / "w.safetensors", original, INFO, torch.bfloat16)


def test_safetensors_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, state_dict(), INFO)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"w\.safetensors: not a readable safetensors file"):
        read_weights(path)
    save_file({"a": torch.zeros(1)}, path, metadata(INFO) | {"format_version": "3"})
    with pytest.raises(ValueError, match=r"format version 3; this version reads 2"):
        read_weights(path)
    save_file({"a": torch.zeros(1)}, path, metadata(INFO))
    with pytest.raises(ValueError, match=r"not a detector of this project\. .* as --model\.backbone_weights"):
        read_weights(path)
    save_file({"backbone.stem.norm.weight": torch.tensor(1.0)}, path)
    with pytest.raises(ValueError, match=r"w\.safetensors: .*backbone\.stem\.norm\.weight.*a tensor with dimensions"):
        read_weights(path)
    save_weights(path, state_dict(), replace(INFO, overrides={"widht": 2}))
    with pytest.raises(ValueError, match=r"w\.safetensors: .*widht"):
        read_weights(path)
    save_file({"a": torch.zeros(1)}, path, {"format_version": "1"})
    with pytest.raises(ValueError, match=r"w\.safetensors: its metadata lack category_ids, class_names"):
        read_weights(path)
    save_weights(path, state_dict(), replace(INFO, variant="dyn_q"))
    with pytest.raises(ValueError, match=r"w\.safetensors: unknown variant 'dyn_q'"):
        read_weights(path)


def test_names_without_metadata(tmp_path: Path) -> None:
    """A state dict written by torch.save, or by safetensors without metadata."""
    original = {name: value.contiguous() for name, value in state_dict().items()}
    torch.save(original, tmp_path / "w.pt")
    save_file(original, tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        weights = read_weights(tmp_path / name)
        assert (weights.info.variant, weights.info.overrides["dynamic"]["num_experts"]) == ("dyn_n", 2)
        assert weights.info.class_names is None


@pytest.mark.parametrize(
    "value",
    [torch.ones(2).to(torch.int8), torch.zeros(1).expand(2), torch.ones(2).to_sparse(), torch.ones(2, device="meta"), 3],
    ids=["int8", "expanded", "sparse", "meta", "number"],
)
def test_other_than_dense_floating_point_tensors_are_refused(tmp_path: Path, value: object) -> None:
    """Quantized weights would be loaded without their scale; an expanded tensor in a small file can need any memory."""
    content = {"pytorch-lightning_version": "2.6", "hyper_parameters": {"variant": "dyn_n", "class_names": ["a", "b"]}}
    odd = {"model.head.one2many.cls.0.4.bias": value}
    torch.save({**content, "state_dict": odd}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"a\.ckpt: 'head\.one2many\.cls\.0\.4\.bias' is a .*; expected a dense"):
        read_weights(tmp_path / "a.ckpt")


WRONG_TYPES = {
    "variant": 3,
    "overrides": [1],
    "class_names": ["cat", 4],
    "category_ids": [1, 2.5],
    "image_size": [64],
    "license": ["MIT"],
    "provenance": [0],
    "metrics": {"val/AP": "high"},
    "best_f1_thresholds": {"one2one": "low"},
}


@pytest.mark.parametrize(("name", "value"), WRONG_TYPES.items(), ids=WRONG_TYPES)
def test_a_fact_of_a_wrong_type_is_refused_with_its_name_and_value(tmp_path: Path, name: str, value: object) -> None:
    settings = {"variant": "dyn_n", "class_names": ["a", "b"]}
    facts = {}
    (settings if name in ("variant", "overrides", "class_names", "category_ids", "image_size") else facts)[name] = value
    weights = {f"model.{key}": value for key, value in state_dict().items()}
    content = {"pytorch-lightning_version": "2.6", "hyper_parameters": settings, "weights_info": facts}
    torch.save({**content, "state_dict": weights}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=rf"(?i)a\.ckpt: .*{name}.*expected") as refusal:
        read_weights(tmp_path / "a.ckpt")
    assert str(value) in str(refusal.value)


def test_files_without_thresholds_are_read(tmp_path: Path) -> None:
    """Those of earlier versions have none."""
    entries = metadata(INFO)
    del entries["best_f1_thresholds"]
    save_file({name: value.contiguous() for name, value in state_dict().items()}, tmp_path / "w.safetensors", entries)
    assert read_weights(tmp_path / "w.safetensors").info == replace(INFO, best_f1_thresholds={})


def test_a_checkpoint_keeps_the_range_of_16_bit_images(tmp_path: Path) -> None:
    settings = {"variant": "dyn_n", "class_names": ["a", "b"], "overrides": {"dynamic": {"num_experts": 2}}}
    weights = {f"model.{name}": value for name, value in state_dict().items()}
    for sample_range, expected in (([0, 4095], (0, 4095)), (None, None)):
        settings["sixteen_bit_range"] = sample_range
        content = {"pytorch-lightning_version": "2.6", "hyper_parameters": settings, "state_dict": weights}
        torch.save(content, tmp_path / "a.ckpt")
        assert read_weights(tmp_path / "a.ckpt").info.sixteen_bit_range == expected
    settings["sixteen_bit_range"] = [5]
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"a\.ckpt: sixteen_bit_range is \[5\]; expected"):
        read_weights(tmp_path / "a.ckpt")


def test_a_license_is_read_in_its_old_spelling(tmp_path: Path) -> None:
    """Older checkpoints, and safetensors of format version 1, have the key "licence"."""
    settings = {"variant": "dyn_n", "class_names": ["a", "b"], "overrides": {"dynamic": {"num_experts": 2}}}
    content = {"pytorch-lightning_version": "2.6", "hyper_parameters": settings, "weights_info": {"licence": "CC-BY-4.0"}}
    weights = {f"model.{name}": value for name, value in state_dict().items()}
    torch.save({**content, "state_dict": weights}, tmp_path / "a.ckpt")
    entries = metadata(INFO)
    del entries["license"]
    contiguous = {name: value.contiguous() for name, value in state_dict().items()}
    save_file(contiguous, tmp_path / "w.safetensors", entries | {"format_version": "1", "licence": "CC-BY-4.0"})
    for name in ("a.ckpt", "w.safetensors"):
        assert read_weights(tmp_path / name).info.license == "CC-BY-4.0"


TINY = {"width": 0.125, "depth": 0.33}
NAMES = ["red", "green", "blue"]
KINDS = ["training checkpoint", "safetensors", "bare state dict", "bare safetensors", "reference", "bare reference"]
Change = Callable[[dict[str, torch.Tensor], str], object]
CHANGES: dict[str, Change] = {
    "one missing": lambda weights, name: weights.pop(name),
    "one too many": lambda weights, name: weights.update({f"{name}s": weights[name].clone()}),
    "another shape": lambda weights, name: weights.update({name: weights[name][1:]}),
    "another dtype": lambda weights, name: weights.update({name: weights[name].to(torch.int32)}),
}


LACKS_ONE = r"1 not in the file, as initialized: neck\.down\.0\.conv\.weight\n"


def write_changed(folder: Path, kind: str, change: Change) -> Path:
    """Write complete weights for NAMES, except that ``change`` is made to one kernel of the neck."""
    if "reference" in kind:
        weights = {key: value.float() if value.is_floating_point() else value for key, value in some_weights().items()}
        change(weights, "model.17.conv.weight")
        if kind == "reference":
            return write_checkpoint(folder / "w.pt", weights, NAMES, half=False)
        torch.save(weights, folder / "w.pt")
        return folder / "w.pt"
    overrides = {} if "bare" in kind else TINY  # without overrides the variant is inferred
    weights = {name: value.contiguous() for name, value in build_detector("yolo26_n", 3, **overrides).state_dict().items()}
    change(weights, "neck.down.0.conv.weight")
    if kind == "training checkpoint":
        settings = {"variant": "yolo26_n", "class_names": NAMES, "overrides": TINY}
        content = {"pytorch-lightning_version": "2.6", "hyper_parameters": settings}
        torch.save(content | {"state_dict": {f"model.{name}": value for name, value in weights.items()}}, folder / "w.ckpt")
        return folder / "w.ckpt"
    if kind == "bare state dict":
        torch.save(weights, folder / "w.pt")
        return folder / "w.pt"
    info = metadata(WeightsInfo("yolo26_n", TINY, NAMES))
    save_file(weights, folder / "w.safetensors", info if kind == "safetensors" else None)
    return folder / "w.safetensors"


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_lacks_one_tensor_is_refused(tmp_path: Path, kind: str) -> None:
    path = write_changed(tmp_path, kind, CHANGES["one missing"])
    with pytest.raises(ValueError, match=LACKS_ONE):
        load_detector(path)


@pytest.mark.parametrize("class_names", [NAMES, ["red", "cyan"]], ids=["same classes", "other classes"])
def test_no_training_starts_from_a_file_that_lacks_one_tensor(tmp_path: Path, class_names: list[str]) -> None:
    path = write_changed(tmp_path, "safetensors", CHANGES["one missing"])
    with pytest.raises(ValueError, match=LACKS_ONE):
        DetectorModule(class_names=class_names, weights=path)


@pytest.mark.parametrize("change", ["one too many", "another shape", "another dtype"])
@pytest.mark.parametrize("kind", ["training checkpoint", "safetensors"])
def test_a_file_with_one_tensor_that_does_not_fit_is_refused(tmp_path: Path, kind: str, change: str) -> None:
    with pytest.raises(ValueError, match=r"w\.\w+(?s:.*)neck\.down\.0\.conv\.weight"):
        load_detector(write_changed(tmp_path, kind, CHANGES[change]))


def test_a_file_of_the_reference_with_one_tensor_too_many_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not in this detector: neck\.down\.0\.conv\.weights"):
        load_detector(write_changed(tmp_path, "bare reference", CHANGES["one too many"]))


@pytest.mark.parametrize("content", [{1: torch.zeros(1)}, {"ema": torch.zeros(2), "model": None}], ids=["keys", "ema"])
def test_files_of_other_types_are_refused_by_name(tmp_path: Path, content: dict) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: "):
        read_weights(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.ckpt", "w.safetensors"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match="is a Git LFS pointer instead of the file; run git lfs pull"):
        read_weights(tmp_path / name)


def test_deployed_weights_are_not_saved(tmp_path: Path) -> None:
    deployed = build_detector("yolo26_n", 2).deploy()
    with pytest.raises(ValueError, match=r"w\.safetensors: .* deployed detector"):
        save_weights(tmp_path / "w.safetensors", deployed.state_dict(), WeightsInfo("yolo26_n"))


def test_weights_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    original = state_dict()
    original["backbone.stem.norm.bias"] = original["backbone.stem.norm.weight"]
    save_weights(tmp_path / "w.safetensors", original, INFO)
    assert torch.equal(read_weights(tmp_path / "w.safetensors").state_dict["backbone.stem.norm.bias"], torch.ones(16))


def test_checkpoints_of_other_modules_are_refused(tmp_path: Path) -> None:
    torch.save({"pytorch-lightning_version": "2.6", "state_dict": {}, "hyper_parameters": {"lr": 1}}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"a\.ckpt: is a Lightning checkpoint, but not of DetectorModule"):
        read_weights(tmp_path / "a.ckpt")
