"""Our own weights files: what is written is what is read."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from detector import build_detector
from detector.weights.files import metadata, read_weights, save_weights
from detector.weights.info import Weights, WeightsInfo

INFO = WeightsInfo(
    variant="dyn_n",
    overrides={"dynamic": {"num_experts": 2}},
    class_names=["Zelle", "größer, \"kleiner\""],
    category_ids=[7, 9],
    image_size=(64, 96),
    license="CC-BY-4.0",
    provenance="drawn by lot",
    metrics={"val/AP": 0.25},
)  # fmt: skip


def state_dict() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build_detector("dyn_n", 2, dynamic={"num_experts": 2}).to(memory_format=torch.channels_last).state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_written_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    given = state_dict()
    save_weights(tmp_path / "w.safetensors", given, INFO, dtype)
    weights = read_weights(tmp_path / "w.safetensors")
    assert weights.info == INFO
    assert set(weights.state_dict) == set(given)
    for name, value in weights.state_dict.items():
        assert value.dtype == (dtype if given[name].is_floating_point() else torch.int64)
        assert torch.equal(value, given[name].to(value.dtype))
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        assert file.metadata()["format_version"] == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_what_is_not_known_stays_unknown(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", build_detector("yolo26_n", 2).state_dict(), WeightsInfo("yolo26_n"))
    assert read_weights(tmp_path / "w.safetensors").info == WeightsInfo("yolo26_n")


def test_a_value_too_large_is_not_turned_into_infinity(tmp_path: Path) -> None:
    given = state_dict()
    given["backbone.stem.norm.running_var"][0] = 1e5
    with pytest.raises(ValueError, match=r"backbone\.stem\.norm\.running_var has values up to 100000"):
        save_weights(tmp_path / "w.safetensors", given, INFO, torch.float16)
    assert not list(tmp_path.iterdir())
    save_weights(tmp_path / "w.safetensors", given, INFO, torch.bfloat16)


def test_safetensors_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, state_dict(), INFO)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"w\.safetensors: not a whole safetensors file"):
        read_weights(path)
    save_file({"a": torch.zeros(1)}, path, metadata(INFO) | {"format_version": "3"})
    with pytest.raises(ValueError, match=r"format version 3; this version reads 2"):
        read_weights(path)
    save_file({"a": torch.zeros(1)}, path, metadata(INFO))
    with pytest.raises(ValueError, match="not a detector of this project"):
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
    """A plain torch.save of our state dict, and safetensors of somebody else's making."""
    given = {name: value.contiguous() for name, value in state_dict().items()}
    torch.save(given, tmp_path / "w.pt")
    save_file(given, tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        weights = read_weights(tmp_path / name)
        assert (weights.info.variant, weights.info.overrides["dynamic"]["num_experts"]) == ("dyn_n", 2)
        assert weights.info.class_names is None


@pytest.mark.parametrize(
    "value",
    [torch.ones(2).to(torch.int8), torch.zeros(1).expand(2), torch.ones(2).to_sparse(), torch.ones(2, device="meta"), 3],
    ids=["int8", "expanded", "sparse", "meta", "number"],
)
def test_what_is_no_ordinary_tensor_is_refused(tmp_path: Path, value: object) -> None:
    """Quantized weights would be taken as they stand; an expanded tensor can ask for any memory in a small file."""
    content = {"pytorch-lightning_version": "2.6", "hyper_parameters": {"variant": "dyn_n", "class_names": ["a", "b"]}}
    odd = {"model.head.one2many.cls.0.4.bias": value}
    torch.save({**content, "state_dict": odd}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"a\.ckpt: 'head\.one2many\.cls\.0\.4\.bias' is a .*; expected a dense"):
        read_weights(tmp_path / "a.ckpt")


@pytest.mark.parametrize("content", [{1: torch.zeros(1)}, {"ema": torch.zeros(2), "model": None}], ids=["keys", "ema"])
def test_files_of_other_types_are_refused_by_name(tmp_path: Path, content: dict) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: "):
        read_weights(tmp_path / "a.pt")


def test_deployed_weights_are_not_saved(tmp_path: Path) -> None:
    deployed = build_detector("yolo26_n", 2).deploy()
    with pytest.raises(ValueError, match=r"w\.safetensors: .* deployed detector"):
        save_weights(tmp_path / "w.safetensors", deployed.state_dict(), WeightsInfo("yolo26_n"))


def test_weights_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    given = state_dict()
    given["backbone.stem.norm.bias"] = given["backbone.stem.norm.weight"]
    save_weights(tmp_path / "w.safetensors", given, INFO)
    assert torch.equal(read_weights(tmp_path / "w.safetensors").state_dict["backbone.stem.norm.bias"], torch.ones(16))


def test_checkpoints_of_other_modules_are_refused(tmp_path: Path) -> None:
    torch.save({"pytorch-lightning_version": "2.6", "state_dict": {}, "hyper_parameters": {"lr": 1}}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"a\.ckpt: is a Lightning checkpoint, but not of DetectorModule"):
        read_weights(tmp_path / "a.ckpt")


def test_class_towers_keep_their_width() -> None:
    """80 classes make towers of 80 channels in the small variants: those trained for them can go on with fewer classes."""
    weights = Weights(build_detector("yolo26_n", 80).state_dict(), WeightsInfo("yolo26_n"), Path("w"), "")
    assert weights.overrides_for("yolo26_n", 80) == {}
    assert weights.overrides_for("dyn_n", 3) == {"class_channels": 80}
    wide = build_detector("yolo26_n", 3, class_channels=80).state_dict()
    assert wide["head.one2one.cls.0.4.weight"].shape == (3, 80, 1, 1)
