"""CocoDataModule as a whole: batches, random streams, the end of mosaic, resuming."""

import contextlib
import io
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from data import Augmentation, CocoDataModule
from data.sampler import SampleKey
from detector.batch import Batch
from detector.imaging.letterbox import to_original
from tests.conftest import write_coco

PLAIN = Augmentation(mosaic=0, hsv=(0, 0, 0))
Arguments = dict[str, Any]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


def fingerprint(batch: Batch) -> list[tuple]:
    """Return for each image its id and checksums of pixels and boxes."""
    return [
        (target["image_id"], zlib.crc32(image.numpy().tobytes()), zlib.crc32(target["boxes"].numpy().tobytes()))
        for image, target in zip(batch["images"], batch["targets"])
    ]


def test_every_process_needs_an_image_to_evaluate(tiny_arguments: Arguments) -> None:
    data = CocoDataModule(**tiny_arguments)
    data.trainer = fake_trainer(world_size=6)
    with pytest.raises(ValueError, match="val has 5 images for 6 processes; use as many"):
        data.eval_dataloader("val")


def test_training_batches_keep_the_contract(tiny_arguments: Arguments) -> None:
    batches = list(CocoDataModule(**tiny_arguments | {"image_size": (64, 96), "batch_size": 3}).train_dataloader())
    assert [len(batch["targets"]) for batch in batches] == [3, 3, 2]
    for batch in batches:
        images = batch["images"]
        assert images.dtype == torch.uint8
        assert images.shape == (len(batch["targets"]), 3, 64, 96)
        assert images.is_contiguous()
        for target in batch["targets"]:
            boxes, labels = target["boxes"], target["labels"]
            assert boxes.dtype == torch.float32
            assert labels.dtype == torch.int64
            assert boxes.shape == (len(labels), 4)
            assert (boxes[:, 2:] - boxes[:, :2] > 2).all()
            assert (boxes >= 0).all()
            assert (boxes <= torch.tensor([96, 64, 96, 64])).all()
            assert isinstance(target["image_id"], int)


def test_evaluation_batches_map_back_to_the_annotation_file(tiny_arguments: Arguments) -> None:
    data = CocoDataModule(**tiny_arguments | {"image_size": (64, 96), "val_batch_size": 5})
    (batch,) = list(data.val_dataloader())
    assert batch["images"].shape == (5, 3, 64, 96)
    truth = data.ground_truth("val")["annotations"]
    for target in batch["targets"]:
        expected = [a for a in truth if a["image_id"] == target["image_id"] and not a["iscrowd"]]
        boxes = to_original(target["boxes"], target["letterbox"])
        boxes[:, 2:] -= boxes[:, :2]
        np.testing.assert_allclose(boxes, np.array([a["bbox"] for a in expected]).reshape(-1, 4), atol=1e-3)
        assert [data.category_ids[label] for label in target["labels"]] == [a["category_id"] for a in expected]


def test_labels_are_the_colors_of_the_objects(tiny_arguments: Arguments) -> None:
    """Through the whole training pipeline: the middle of each box has the color of its class (R, G or B is largest)."""
    data = CocoDataModule(**tiny_arguments | {"augment": Augmentation(hsv=(0, 0.2, 0.2))})
    loader, num_boxes = data.train_dataloader(), 0
    for _ in range(5):
        for batch in loader:
            for image, target in zip(batch["images"], batch["targets"]):
                for (x1, y1, x2, y2), label in zip(target["boxes"].tolist(), target["labels"].tolist()):
                    assert int(image[:, int((y1 + y2) / 2), int((x1 + x2) / 2)].argmax()) == label
                    num_boxes += 1
    assert num_boxes > 50


def test_a_painted_rectangle_stays_in_its_box(tmp_path: Path, tiny_arguments: Arguments, tiny_coco: Path) -> None:
    """One bright rectangle with soft edges; its centroid is measured in the images that the training step gets."""
    for path in (tiny_coco / "images/train").iterdir():
        height, width = cv2.imread(str(path)).shape[:2]
        cv2.imwrite(str(path), np.full((height, width, 3), 114, np.uint8))
    image = np.full((64, 64, 3), 114, np.float32)
    image[20:44, 20:44] = 200
    cv2.imwrite(str(tiny_coco / "images/train/image_4.png"), cv2.GaussianBlur(image, (0, 0), 1.5))
    arguments = tiny_arguments | {"batch_size": 1, "augment": Augmentation(mosaic=0, hsv=(0.015, 0.7, 0.4))}
    loader, offsets = CocoDataModule(**arguments).train_dataloader(), []
    for _ in range(40):
        for batch in loader:
            (target,) = batch["targets"]
            box = target["boxes"][0] if len(target["boxes"]) else torch.zeros(4)
            if target["image_id"] != 105 or box.min() < 4 or box.max() > 60:
                continue
            weight = batch["images"][0, 0].double()
            weight = weight - weight.median()
            weight[weight < 4] = 0
            center = torch.arange(64) + 0.5
            centroid = torch.stack([(weight.sum(0) * center).sum(), (weight.sum(1) * center).sum()]) / weight.sum()
            offsets.append(centroid - (box[:2] + box[2:]) / 2)
    assert len(offsets) > 10
    assert torch.stack(offsets).abs().max() < 0.1


@pytest.mark.parametrize("augment", [Augmentation(scale=0), Augmentation(mosaic=0)])
def test_objects_are_as_large_in_training_as_in_validation(tmp_path: Path, augment: Augmentation) -> None:
    """On images from 32 to 240 pixels, with objects a fifth as large as the image.

    With both zoom and mosaic, which are not tested here, the median is about 0.75 times as large: zooming out to half shows
    more of the mosaic, and so four times as many objects.
    """
    sizes = [(32, 48), (60, 80), (120, 90), (240, 160), (200, 240), (48, 48), (100, 150), (90, 60)]
    images = [(h, w, [(7, w // 8, h // 3, w // 5, h // 5), (22, w // 2, h // 4, w // 5, h // 4)]) for h, w in sizes]
    for split in ("train", "val"):
        write_coco(tmp_path, split, images, first_id=1)
    names = ("annotations/train.json", "images/train", "annotations/val.json", "images/val")
    data = CocoDataModule(str(tmp_path), *names, image_size=64, num_workers=0, augment=augment)
    train = data.train_dataloader()
    trained = torch.cat([side_lengths(batch) for _ in range(20) for batch in train])
    evaluated = torch.cat([side_lengths(batch) for batch in data.val_dataloader()])
    assert 0.7 <= trained.median() / evaluated.median() <= 1.4


def side_lengths(batch: Batch) -> Tensor:
    boxes = torch.cat([target["boxes"] for target in batch["targets"]])
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()


def test_samples_do_not_depend_on_the_number_of_workers(tiny_arguments: Arguments, own_transforms: list) -> None:
    """Not even with transforms of the user's own that draw from the global generators of Python, NumPy, torch and OpenCV."""
    runs = []
    arguments = tiny_arguments | {"batch_size": 2, "transforms": own_transforms}
    for workers in (0, 1, 4):
        loader = CocoDataModule(**arguments | {"num_workers": workers}).train_dataloader()
        runs.append([fingerprint(batch) for _ in range(2) for batch in loader])
    assert runs[0] == runs[1] == runs[2]


def test_random_streams_differ_by_image_epoch_and_seed(tiny_arguments: Arguments, tiny_coco: Path) -> None:
    """All images are made equal, so samples differ only by the random numbers."""
    image = cv2.imread(str(tiny_coco / "images/train/image_4.png"))
    for path in (tiny_coco / "images/train").iterdir():
        height, width = cv2.imread(str(path)).shape[:2]
        cv2.imwrite(str(path), cv2.resize(image, (width, height)))
    sums = []
    for seed in (0, 1):
        loader = CocoDataModule(**tiny_arguments | {"seed": seed, "augment": PLAIN, "num_workers": 2}).train_dataloader()
        sums += [row[1] for _ in range(3) for batch in loader for row in fingerprint(batch)]
    assert len(set(sums)) == len(sums) == 2 * 3 * 8


def test_processes_draw_the_same_samples_as_one_alone(tiny_arguments: Arguments) -> None:
    def one_epoch(world_size: int, rank: int) -> list[tuple]:
        data = CocoDataModule(**tiny_arguments)
        data.trainer = fake_trainer(world_size=world_size, global_rank=rank)
        return [row for batch in data.train_dataloader() for row in fingerprint(batch)]

    parts = [one_epoch(2, rank) for rank in range(2)]
    assert not set(parts[0]) & set(parts[1])
    assert sorted(parts[0] + parts[1]) == sorted(one_epoch(1, 0))


def fake_trainer(**attributes: Any) -> Any:
    return SimpleNamespace(**{"max_epochs": 3, "num_nodes": 1, "global_rank": 0} | attributes)


class Recorder(lightning.LightningModule):
    """Records the batches of every epoch, and the numbers of colors in their images."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.batches: dict[int, list] = {}
        self.colors: dict[int, list[int]] = {}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.batches.setdefault(self.current_epoch, []).append(fingerprint(batch))
        counts = [len(torch.unique(image.flatten(1), dim=1).T) for image in batch["images"]]
        self.colors.setdefault(self.current_epoch, []).extend(counts)
        return self.layer(torch.ones(1, 1)).mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(
    arguments: Arguments, folder: Path, epochs: int, checkpoint: Path | None = None, interval: float = 1.0, **save: Any
) -> Recorder:
    module = Recorder()
    callback = ModelCheckpoint(dirpath=folder, filename="{epoch}-{step}", save_top_k=-1, **save)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
        val_check_interval=interval,
    )
    trainer.fit(module, datamodule=CocoDataModule(**arguments), ckpt_path=checkpoint)
    return module


SAVES = {
    "in validation": ({"save_on_train_epoch_end": False}, "epoch=1-step=8.ckpt", 2),
    "after the epoch": ({"save_on_train_epoch_end": True}, "epoch=1-step=8.ckpt", 2),
    "within the epoch": ({"every_n_train_steps": 3}, "epoch=1-step=6.ckpt", 1),
    "in validation within the epoch": ({"save_on_train_epoch_end": False}, "epoch=1-step=6.ckpt", 1),
}


@pytest.mark.parametrize("when", SAVES)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:.*", "error:.*decoded")
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(
    tiny_arguments: Arguments, own_transforms: list, tmp_path: Path, when: str, workers: int
) -> None:
    """Order, augmentation, transforms of the user's own, and the end of mosaic, which comes with epoch 3."""
    save, name, first = SAVES[when]
    save = save | {"interval": 0.5 if "validation within" in when else 1.0}
    arguments = tiny_arguments | {"num_workers": workers, "batch_size": 2, "augment": Augmentation(close_mosaic=1)}
    arguments["transforms"] = own_transforms
    straight = fit(arguments, tmp_path / "a", epochs=4, **save)
    assert {epoch: len(batches) for epoch, batches in straight.batches.items()} == dict.fromkeys(range(4), 4)
    assert len({row for batches in straight.batches.values() for batch in batches for row in batch}) == 4 * 8
    resumed = fit(arguments, tmp_path / "b", 4, tmp_path / "a" / name, **save)
    assert sorted(resumed.batches) == list(range(first, 4))
    expected = {epoch: straight.batches[epoch] for epoch in range(first, 4)}
    if first == 1:
        expected[1] = expected[1][2:]  # the first two batches were before the checkpoint
    assert resumed.batches == expected


def test_the_middle_of_an_epoch_is_resumed_with_the_same_batches_alone(tiny_arguments: Arguments) -> None:
    data = CocoDataModule(**tiny_arguments)
    state = {"epoch": 2, "samples": 4, "step_batch": 4}
    data.trainer = fake_trainer(world_size=2, overfit_batches=0, state=SimpleNamespace(fn="fit"))
    with pytest.raises(ValueError, match=r"middle of epoch 2, with 4 images in a batch .* they are 4 x 2\. Resume"):
        data.load_state_dict(state)
    data.load_state_dict(state | {"samples": 0})  # the end of an epoch
    data.load_state_dict(state | {"step_batch": 8, "samples": 8})
    assert data._resume_position == (2, 4)  # four samples of each process
    data.trainer.overfit_batches = 2
    with pytest.raises(ValueError, match="overfit_batches always starts with the first image"):
        data.load_state_dict(state | {"step_batch": 8, "samples": 8})


@pytest.mark.filterwarnings("ignore:.*")
def test_a_finished_run_can_be_extended(tiny_arguments: Arguments, tmp_path: Path) -> None:
    straight = fit(tiny_arguments, tmp_path / "a", epochs=4)
    fit(tiny_arguments, tmp_path / "b", epochs=2)
    extended = fit(tiny_arguments, tmp_path / "c", 4, tmp_path / "b" / "epoch=1-step=4.ckpt")
    # close_mosaic counts from the end of the run; here it is longer than both runs, so there is no mosaic at all.
    assert extended.batches == {epoch: straight.batches[epoch] for epoch in (2, 3)}


@pytest.mark.filterwarnings("ignore:.*")
def test_evaluating_a_checkpoint_does_not_move_a_later_fit(tiny_arguments: Arguments, tmp_path: Path) -> None:
    straight = fit(tiny_arguments, tmp_path / "a", epochs=1)
    data, module = CocoDataModule(**tiny_arguments), Recorder()
    options = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_epochs=1, enable_model_summary=False, **options)
    trainer.validate(module, datamodule=data, ckpt_path=tmp_path / "a" / "epoch=0-step=2.ckpt", verbose=False)
    trainer.fit(module, datamodule=data)
    assert module.batches == straight.batches


def paint_flat(root: Path) -> None:
    """Fill every training image with a color of its own, so that the number of colors is that of the mixed images."""
    for number in range(8):
        path = root / f"images/train/image_{number}.png"
        height, width = cv2.imread(str(path)).shape[:2]
        cv2.imwrite(str(path), np.full((height, width, 3), 30 * number + 10, np.uint8))


@pytest.mark.filterwarnings("ignore:.*")
def test_overfit_batches_repeats_the_same_images(tiny_arguments: Arguments) -> None:
    """Lightning replaces our sampler by one that yields plain indices, which mean epoch 0."""
    module = Recorder()
    options = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    lightning.Trainer(max_epochs=2, overfit_batches=1, **options).fit(module, datamodule=CocoDataModule(**tiny_arguments))
    assert len(module.batches[0]) == 1
    assert module.batches[0] == module.batches[1]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("epochs", "close", "open_epochs"), [(3, 1, {0, 1}), (2, 0, {0, 1}), (2, 5, set())])
@pytest.mark.filterwarnings("ignore:.*")
def test_mosaic_ends_inside_the_workers(
    tiny_arguments: Arguments, tiny_coco: Path, tmp_path: Path, workers: int, epochs: int, close: int, open_epochs: set
) -> None:
    paint_flat(tiny_coco)
    augment = Augmentation(close_mosaic=close, scale=0, translate=0, hsv=(0, 0, 0))
    module = fit(tiny_arguments | {"num_workers": workers, "augment": augment}, tmp_path / "run", epochs)
    for epoch, colors in module.colors.items():
        num_images = max(colors) - 1  # gray is one of the colors
        assert num_images >= 3 if epoch in open_epochs else num_images <= 1


def test_mosaic_never_ends_without_a_trainer_or_an_end(tiny_arguments: Arguments) -> None:
    data = CocoDataModule(**tiny_arguments)
    assert data.train_dataloader().dataset.dataset.close_epoch is None
    data.trainer = fake_trainer(world_size=1, max_epochs=-1)
    assert data.train_dataloader().dataset.dataset.close_epoch is None
    data.trainer = fake_trainer(world_size=1, max_epochs=10)
    assert data.train_dataloader().dataset.dataset.close_epoch == 0  # so no epoch has mosaic, as in the 10-epoch experiment


def test_workers_use_one_thread_and_stay(tiny_arguments: Arguments) -> None:
    data = CocoDataModule(**tiny_arguments | {"num_workers": 1})
    loader = data.train_dataloader()
    assert loader.persistent_workers
    loader.collate_fn = lambda samples: (cv2.getNumThreads(), torch.get_num_threads())
    assert next(iter(loader)) == (1, 1)
    assert not CocoDataModule(**tiny_arguments).train_dataloader().persistent_workers


@pytest.mark.parametrize("single_cls", [False, True])
def test_perfect_detections_have_ap_1(tiny_arguments: Arguments, edit_json: Any, single_cls: bool) -> None:
    """With an area of zero, a crowd, and an annotation id of zero in the file, written with the module's category ids."""
    edit_json("val", lambda content: content["annotations"][0].update(id=0, area=0))
    with pytest.warns(UserWarning, match="annotation id 0"):
        data = CocoDataModule(**tiny_arguments, single_cls=single_cls)
    detections = [
        {
            "image_id": target["image_id"],
            "category_id": data.category_ids[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": 0.9,
        }
        for batch in data.val_dataloader()
        for target in batch["targets"]
        for (x1, y1, x2, y2), label in zip(
            to_original(target["boxes"], target["letterbox"]).tolist(), target["labels"].tolist()
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = data.ground_truth("val")
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"batch_size": 2.0}, "data.batch_size is 2.0; expected a whole number, 1 or more"),
        ({"num_workers": -1}, "data.num_workers is -1; expected a whole number, 0 or more"),
        ({"augment": {"mosaik": 1}}, "unknown field of data.augment: 'mosaik'; did you mean mosaic"),
        ({"augment": 0.5}, "data.augment is 0.5; expected an Augmentation"),
    ],
)
def test_wrong_settings_are_refused(tiny_arguments: Arguments, setting: Arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CocoDataModule(**tiny_arguments | setting)


def test_augmentation_may_be_a_mapping(tiny_arguments: Arguments) -> None:
    assert CocoDataModule(**tiny_arguments | {"augment": {"mosaic": 0.5}}).augment == Augmentation(mosaic=0.5)


def test_single_cls(tiny_arguments: Arguments) -> None:
    data = CocoDataModule(**tiny_arguments, single_cls=True)
    assert (data.class_names, data.category_ids) == (["object"], [7])
    labels = [target["labels"] for batch in data.train_dataloader() for target in batch["targets"]]
    assert set(torch.cat(labels).tolist()) == {0}
    truth = data.ground_truth("train")
    assert truth["categories"] == [{"id": 7, "name": "object"}]
    assert {a["category_id"] for a in truth["annotations"]} == {7}


def test_classes_are_known_after_construction(tiny_arguments: Arguments) -> None:
    data = CocoDataModule(**tiny_arguments)
    assert data.class_names == ["red", "green", "blue"]
    assert data.category_ids == [7, 22, 90]


def test_test_split(tiny_arguments: Arguments) -> None:
    data = CocoDataModule(**tiny_arguments)
    with pytest.raises(ValueError, match=r"no split 'test', only train, val"):
        data.test_dataloader()
    test = {"test_annotations": "annotations/val.json", "test_images": "images/val"}
    data = CocoDataModule(**tiny_arguments | test)
    assert sum(len(batch["targets"]) for batch in data.test_dataloader()) == 5
    assert data.ground_truth("test") == data.ground_truth("val")


def test_a_set_without_any_objects_gives_batches(tiny_arguments: Arguments, edit_json: Any) -> None:
    for split in ("train", "val"):
        edit_json(split, lambda content: content.update(annotations=[]))
    with pytest.warns(UserWarning, match="no objects at all"):
        data = CocoDataModule(**tiny_arguments)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for batch in loader:
            for target in batch["targets"]:
                assert target["boxes"].shape == (0, 4)
                assert target["labels"].shape == (0,)
                assert target["labels"].dtype == torch.int64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 0}, r"data\.image_size is 0; expected one side"),
        ({"image_size": (64, 64, 64)}, r"data\.image_size is"),
        ({"batch_size": 0}, r"data\.batch_size is 0"),
        ({"val_batch_size": -1}, r"data\.val_batch_size is -1"),
        ({"val_batch_size": 0}, r"data\.val_batch_size is 0"),
        ({"num_workers": -1}, r"data\.num_workers is -1"),
        ({"seed": -5}, r"data\.seed is -5"),
        ({"on_bad_image": "ignore"}, r"data\.on_bad_image is 'ignore'"),
        ({"cache": "disk"}, r"data\.cache is 'disk'; expected one of none, recent, ram"),
        ({"augment": Augmentation(multi_scale=0.1)}, r"multi_scale is 0\.1, .* give at least 1\.00, or 0"),
        ({"test_annotations": "a.json"}, "belong together"),
        ({"transforms": [{"Blurr": {}}]}, "did you mean Blur"),
    ],
)
def test_bad_arguments_are_refused_at_the_start(tiny_arguments: Arguments, change: Arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CocoDataModule(**tiny_arguments | change)


def test_everything_can_be_set_from_a_configuration(tiny_arguments: Arguments) -> None:
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(CocoDataModule, "data")
    flags = [f"--data.{key}={value}" for key, value in tiny_arguments.items() if key != "image_size"]
    assert parser.parse_args([*flags, "--data.image_size=64"]).data.image_size == 64
    flags += ["--data.image_size=[64, 96]", "--data.augment.mosaic=0.5", "--data.augment.hsv=[0.1, 0.2, 0.3]"]
    flags += ['--data.transforms=[{"OneOf": {"transforms": [{"Blur": {}}, {"CLAHE": {}}], "p": 0.1}}]']
    build = getattr(parser, "instantiate", None) or parser.instantiate_classes  # its name until jsonargparse 4.49
    data = build(parser.parse_args(flags)).data
    assert data.size == (64, 96)
    assert data.augment == Augmentation(mosaic=0.5, hsv=(0.1, 0.2, 0.3))
    assert data.train_dataloader().dataset[SampleKey(0, 0, (64, 96))].image.shape == (64, 96, 3)
