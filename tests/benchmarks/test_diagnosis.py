"""Diagnosis of dynamic layers on a tiny set: AP with other routing against evaluations by hand."""

import json
from pathlib import Path
from unittest.mock import Mock

import lightning as L
import numpy as np
import pytest
import torch

from benchmarks import diagnosis, routing
from benchmarks.diagnosis import EvaluationSet, detect, diagnose, donors
from benchmarks.diagnosis_layers import Recording, class_numbers, expert_numbers, output_effects
from benchmarks.routing import main, read_sources
from data import CocoDataModule
from detector import DetectorModule
from detector.dynamic import DynamicConv2d, collapse, dynamic_layers, recompute_norms, record_routing
from detector.dynamic.kernels import KernelStatistics
from detector.dynamic.routing import record_router_inputs
from tests.conftest import TRAIN_IMAGES, VAL_IMAGES, write_coco
from tests.detector.training.test_module import TINY

SOURCES = {201: "a", 202: "b", 203: "b", 204: "a", 205: "b"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a set laid out as in configs/data/bccd.yaml, with sources in the validation images."""
    root = tmp_path_factory.mktemp("set")
    for split, images, first_id in (("train", TRAIN_IMAGES, 101), ("val", VAL_IMAGES, 201)):
        write_coco(root, split, images, first_id)
        content = json.loads((root / f"annotations/{split}.json").read_text())
        for image in content["images"]:
            image |= {"source": SOURCES[image["id"]]} if split == "val" else {}
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
        (root / split).symlink_to(root / "images" / split)
    return root


def data(root: Path, batch_size: int = 2) -> CocoDataModule:
    files = {f"{split}_annotations": f"annotations/instances_{split}.json" for split in ("train", "val")}
    return CocoDataModule(
        str(root), **files, train_images="train", val_images="val", image_size=64, batch_size=batch_size, num_workers=0
    )


@pytest.fixture(scope="module")
def module(root: Path) -> DetectorModule:
    """A detector whose routing varies strongly, and whose scores are high enough to be detections."""
    torch.manual_seed(0)
    overrides = TINY | {"dynamic": {"kind": "residual", "gates": ["filter"]}}
    part = data(root)
    names = {"class_names": part.class_names, "category_ids": part.category_ids}
    module = DetectorModule(variant="yolo26_n", overrides=overrides, image_size=64, **names).eval()
    for layer in dynamic_layers(module.model).values():
        torch.nn.init.normal_(layer.delta, std=0.1)
        torch.nn.init.normal_(layer.router.fc.weight)
        torch.nn.init.normal_(layer.router.filter.weight)
    module.double()  # the order of a sum must not matter
    recompute_norms(module.model, part.eval_dataloader("train"))  # else an untrained network gives the same for all images
    return module


def recorded(network: torch.nn.Module, images: EvaluationSet) -> tuple[np.ndarray, Recording]:
    with record_routing(network) as routing, record_router_inputs(network) as inputs:
        rows = detect(network, images, "one2one")
    return rows, Recording.of(routing, inputs, np.concatenate([places for places, _ in images]))


def by_image(rows: np.ndarray) -> np.ndarray:
    return rows[np.argsort(rows[:, 0], kind="stable")]


def test_batches_do_not_matter_and_each_image_gets_the_routing_of_its_donor(root: Path, module: DetectorModule) -> None:
    two, five = (EvaluationSet(data(root, size), module, SOURCES) for size in (2, 5))
    five._batches = [{"images": b["images"].flip(0), "targets": b["targets"][::-1]} for b in five._batches]
    rows, recording = recorded(module.model, two)
    other_rows, other = recorded(module.model, five)
    np.testing.assert_allclose(by_image(rows), by_image(other_rows), atol=0.01)
    for name, (run,) in recording.routing.items():
        torch.testing.assert_close(run, other.routing[name][0], rtol=1e-3, atol=1e-4)
    chosen = donors(two.sources, "all", [0])
    shuffled = by_image(detect(module.model, two, "one2one", recording.routing, chosen))
    np.testing.assert_allclose(shuffled, by_image(detect(module.model, five, "one2one", other.routing, chosen)), atol=0.01)
    assert not np.array_equal(shuffled, by_image(rows))
    same = detect(module.model, two, "one2one", recording.routing, np.arange(5))
    np.testing.assert_allclose(same, rows, atol=1e-6)


def test_donors_are_other_images_of_all_of_the_same_or_of_another_source() -> None:
    sources = np.array([0, 0, 0, 1, 1, 2])
    for seed in range(20):
        everywhere, within, across = (donors(sources, way, [seed, 0]) for way in ("all", "within", "across"))
        assert sorted(everywhere) == list(range(6))
        assert (everywhere != np.arange(6)).all()
        assert (sources[within] == sources).all()
        assert within[:5].tolist() != list(range(5))
        assert within[5] == 5
        assert (sources[across] != sources).all()
    assert len({tuple(donors(sources, "all", [0, n])) for n in range(10)}) > 5


def test_a_diagnosis_has_the_ap_of_every_condition_and_its_drop(
    root: Path, module: DetectorModule, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "detect", with_objects(diagnosis.detect))
    recompute = Mock(wraps=recompute_norms)
    monkeypatch.setattr(diagnosis, "recompute_norms", recompute)
    numbers = diagnose(module, data(root), SOURCES, num_orders=2, num_train=4, num_draws=20)
    json.dumps(numbers, allow_nan=False)
    shuffles = ["shuffled", "shuffled within source", "shuffled across sources"]
    assert list(numbers["ap"]) == ["as is", "averaged", "averaged, norms recomputed", *shuffles]
    assert list(numbers["ap_sd"]) == shuffles
    assert numbers["ap_sd"]["shuffled"]["all"] > 0  # the orders differ
    assert numbers["sources"] == {"a": 2, "b": 3}
    aps = numbers["ap"]["as is"]
    assert 0 < aps["all"] < 1
    assert aps["macro"] == pytest.approx((aps["source a"] + aps["source b"]) / 2)
    for name, drops in numbers["drops"].items():
        for part, drop in drops.items():
            assert drop["value"] == pytest.approx(aps[part] - numbers["ap"][name][part])
            assert drop["low"] <= drop["high"]
    assert numbers["layers"].keys() == dynamic_layers(module.model).keys()
    assert recompute.call_args.kwargs["after"].keys() == numbers["layers"].keys()  # only norms behind a mean kernel
    assert sorted(recompute.call_args.args[1].sampler) == [0, 2, 5, 7]  # spread: images often come source by source
    first = next(iter(numbers["layers"].values()))
    assert first["gates"].keys() == {"filter", "expert"}
    assert first["rho"] > 0.001
    assert 0 < first["source"]["p"] <= 1


def with_objects(detect):
    """Return ``detect`` with the objects beside the detections, at a score that depends on these: AP is then above 0."""

    def detect_more(network, images, *args):
        rows, truth = detect(network, images, *args), []
        for a in images.coco.dataset["annotations"]:
            mean = rows[rows[:, 0] == a["image_id"], 1:5].mean()
            truth.append([a["image_id"], *(np.array(a["bbox"]) + mean % 7), 0.9 + a["id"] / 1000, a["category_id"]])
        return np.concatenate((rows, np.array(truth)))

    return detect_more


def test_runs_of_a_layer_are_told_apart_from_batches() -> None:
    """A layer that runs twice on each of two batches: records are in the order of batches, then of runs."""
    parts = [torch.tensor(rows)[:, None] for rows in ([30.0, 10.0], [31.0, 11.0], [20.0], [21.0])]
    recording = Recording.of({"a": parts}, {"a": parts}, np.array([2, 0, 1]))
    assert [run.flatten().tolist() for run in recording.routing["a"]] == [[10, 20, 30], [11, 21, 31]]
    assert recording.mean_routing("a").flatten().tolist() == recording.inputs["a"].flatten().tolist() == [10.5, 20.5, 30.5]


def test_a_class_is_present_by_its_objects_and_not_by_crowds(root: Path, module: DetectorModule) -> None:
    images = EvaluationSet(data(root), module, {})
    expected = [[any(box[0] == id_ for box in boxes) for id_ in module.category_ids] for _, _, boxes in VAL_IMAGES]
    assert images.presence().tolist() == expected
    images.coco.dataset["annotations"][0]["iscrowd"] = 1  # the only object of the first image
    assert images.presence().tolist() == [[False] * 3, *expected[1:]]


def test_output_effect_and_experts_equal_a_loop() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(DynamicConv2d(3, 4, 3, kind="residual"), torch.nn.Conv2d(4, 1, 1)).double().eval()
    layer = net[0]
    torch.nn.init.normal_(layer.delta, std=0.1)
    x = torch.randn(5, 3, 6, 6, dtype=torch.float64) + torch.randn(5, 3, 1, 1, dtype=torch.float64)
    statistics = KernelStatistics(layer)
    routing_weights = layer.routing_weights(x).detach()
    statistics.add(routing_weights)
    got = output_effects(net, [x[:2], x[2:]], {"0": statistics})["0"]
    with torch.no_grad():
        y, z = layer(x), collapse(layer, [x])[0](x)
    expected = (y - z).square().sum() / (y - y.mean(dim=(0, 2, 3), keepdim=True)).square().sum()
    assert got == pytest.approx(float(expected))
    sizes = [sum(a * d for a, d in zip(row, layer.delta)).norm() / layer.weight.norm() for row in routing_weights]
    assert expert_numbers(layer, routing_weights)["relative_size"] == pytest.approx(float(sum(sizes) / 5))


def test_rare_classes_are_left_out_and_the_best_is_named() -> None:
    generator = torch.Generator().manual_seed(0)
    rare, seen, other = torch.zeros(60).bool(), torch.arange(60) % 2 == 0, torch.rand(60, generator=generator) > 0.5
    rare[:3] = True
    routing = seen[:, None] + 0.1 * torch.rand(60, 2, generator=generator)
    numbers = class_numbers(routing, {"rare": rare, "other": other, "seen": seen}, None)
    assert numbers["name"] == "seen"
    assert numbers["information_share"] > 0.8
    assert numbers["p"] == pytest.approx(1 / 101)
    assert class_numbers(routing, {"rare": rare}, None) == {}


def test_the_command_passes_its_options_on_and_writes_the_numbers(
    root: Path, module: DetectorModule, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def stub(*arguments, log):
        calls.append(arguments)
        layers = {"a": {"gates": {"filter": {"variation": 0.25, "image_share": 0.5}}, "rho": 0.125}}
        return {"images": 5, "layers": layers, "ap": {"as is": {"all": 0.5}}, "ap_sd": {}, "drops": {}}

    monkeypatch.setattr(routing, "diagnose", stub)
    monkeypatch.setitem(module.hparams, "sixteen_bit_range", [0, 4095])
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(module)
    module.trainer = trainer
    trainer.save_checkpoint(tmp_path / "best.ckpt")
    options = ["--branch", "one2many", "--orders", "3", "--train_images", "4", "--image_size", "96"]
    main([str(tmp_path / "best.ckpt"), "--root", str(root), *options])
    main([str(tmp_path / "best.ckpt"), "--root", str(root), "--out", str(tmp_path / "other.json"), "--source_key", "height"])
    files = {f"{split}_annotations": f"annotations/instances_{split}.json" for split in ("train", "val")}
    of_run = {"root": str(root), **files, "train_images": "train", "val_images": "val", "batch_size": 3, "single_cls": False}
    (tmp_path / "config.yaml").write_text(json.dumps({"data": {"root": "elsewhere"}}))
    (tmp_path / "config-2.yaml").write_text(json.dumps({"data": of_run}))  # of a resumed training
    main([str(tmp_path / "best.ckpt")])
    of_val = {"val_annotations": files["train_annotations"], "val_images": "train"}
    (tmp_path / "mine.yaml").write_text(json.dumps({"data": of_val}))
    configs = [f"--config={tmp_path / name}" for name in ("config-2.yaml", "mine.yaml")]
    main([str(tmp_path / "best.ckpt"), *configs, "--out", str(tmp_path / "other.json")])
    held_out = {"root": str(root), "train_annotations": files["val_annotations"], "train_images": "val", "val_split": 0.4}
    (tmp_path / "mine.yaml").write_text(json.dumps({"data": held_out | {"val_annotations": None, "val_images": None}}))
    main([str(tmp_path / "best.ckpt"), "--config", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "other.json")])
    _, part, of_part, *_ = calls.pop()
    assert part.val_split == 0.4
    assert of_part == SOURCES
    (_, first, *rest), (_, second, sources, *_), (_, of_training, same, *_), (_, given, none, *_) = calls
    assert (of_training.ground_truth("val"), same) == (first.ground_truth("val"), SOURCES)
    assert (given.ground_truth("val")["images"], none) == (first.ground_truth("train")["images"], {})
    assert (first.size, first.sixteen_bit_range, *rest) == ((96, 96), (0, 4095), SOURCES, "one2many", 3, 4)
    assert (second.size, sources[203]) == ((64, 64), "70")
    assert json.loads((tmp_path / "routing.json").read_text())["ap"] == {"as is": {"all": 0.5}}
    assert (tmp_path / "other.json").exists()
    assert "as is" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([str(tmp_path / "best.ckpt"), "--root", str(root), "--source_key", "camera"])
    assert "has 'camera'; leave out --source_key" in capsys.readouterr().err


def test_mistakes_are_named_before_any_work(root: Path, module: DetectorModule, tmp_path: Path, capsys) -> None:
    with pytest.raises(ValueError, match=r"3 of 5 images have no source, e.g. \[203, 204, 205\]; give all of them one"):
        EvaluationSet(data(root), module, {201: "a", 202: "b"})
    plain = DetectorModule(variant="yolo26_n", overrides=TINY, class_names=["x"])
    with pytest.raises(ValueError, match="the network has no dynamic layer, so there is no routing to diagnose"):
        diagnose(plain, data(root))
    for split in ("train", "val"):
        write_coco(tmp_path, split, VAL_IMAGES[:1], 1)
    files = {f"{split}_annotations": f"annotations/{split}.json" for split in ("train", "val")}
    alone = CocoDataModule(str(tmp_path), **files, train_images="images/train", val_images="images/val", image_size=64)
    with pytest.raises(ValueError, match="there is one validation image; expected at least 2"):
        diagnose(module, alone)
    assert read_sources(root / "annotations/instances_val.json") == SOURCES
    assert read_sources(root / "annotations/instances_val.json", "camera") == {}
    checkpoint = tmp_path / "best.ckpt"
    with pytest.raises(ValueError, match=r"has no config\.yaml that names the data; give --root DIR or --config FILE"):
        routing.data_settings(None, [], tmp_path)
    with pytest.raises(ValueError, match=r"given twice, as --root a and as --config b\.yaml; leave out one of them"):
        routing.data_settings(Path("a"), [Path("b.yaml")], tmp_path)
    (tmp_path / "model.yaml").write_text("model: {lr: 0.1}")
    with pytest.raises(ValueError, match=r"model\.yaml has no data\.root; give the file that has it, too"):
        routing.data_settings(None, [tmp_path / "model.yaml"], tmp_path)
    several = {"root": str(root), "val_annotations": ["a.json", "b.json"]}
    assert routing.sources_of_validation(several, "source") == {}
    with pytest.raises(ValueError, match="which has no single COCO file for validation, has 'camera'; leave out"):
        routing.sources_of_validation(several, "camera")
    for options, message in (
        ([], f"{checkpoint} is no checkpoint of a training; expected a file such as runs/dyn_n/best.ckpt"),
        (["--out", str(tmp_path)], "is a folder; give the name of a file in it"),
        (["--out", str(tmp_path / "no/x.json")], "no such folder; make it first"),
        (["--orders", "0"], "--orders and --train_images are at least 1"),
        (["--branch", "one"], "--branch is one of one2one, one2many"),
    ):
        with pytest.raises(SystemExit):
            main([str(checkpoint), "--root", str(root), *options])
        assert message in capsys.readouterr().err
