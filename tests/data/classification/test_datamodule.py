"""ImageFolderDataModule as a whole: batches, random streams, resuming, processes, workers."""

import os
import random
import shutil
import signal
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningArgumentParser

from data import ClassAugmentation, ImageFolderDataModule
from data.sampler import SampleKey
from detector.batch import ClassBatch

Arguments = dict[str, Any]
MIXED = ClassAugmentation(mixup=0.8, cutmix=1.0, erasing=0.5)
GEOMETRY = ClassAugmentation(auto_augment=None, erasing=0)  # colors change a little, and stay those of their class


def fingerprint(batch: ClassBatch) -> list[tuple]:
    """Return for each image its index, a checksum of its pixels, both labels and the share."""
    sums = [zlib.crc32(image.numpy().tobytes()) for image in batch["images"]]
    columns = (batch[name].tolist() for name in ("indices", "labels", "other_labels", "shares"))
    return list(zip(sums, *columns))


def epoch_of(data: ImageFolderDataModule) -> list[list[tuple]]:
    return [fingerprint(batch) for batch in data.train_dataloader()]


def fake_trainer(**attributes: Any) -> Any:
    return SimpleNamespace(**{"max_epochs": 3, "num_nodes": 1, "global_rank": 0, "world_size": 1} | attributes)


def test_training_batches_keep_the_contract_and_labels_fit_the_images(class_arguments: Arguments) -> None:
    data = ImageFolderDataModule(**class_arguments | {"image_size": (32, 48), "batch_size": 5, "augment": GEOMETRY})
    batches = list(data.train_dataloader())
    assert [len(batch["labels"]) for batch in batches] == [5, 5, 2]
    for batch in batches:
        assert (batch["images"].shape[1:], batch["images"].dtype) == ((3, 32, 48), torch.uint8)
        assert {batch[name].dtype for name in ("labels", "other_labels", "indices")} == {torch.int64}
        assert (batch["shares"].dtype, batch["shares"].unique().tolist()) == (torch.float32, [1.0])
        assert torch.equal(batch["labels"], batch["other_labels"])
        brightest = 2 - batch["images"].float().mean(dim=(2, 3)).argmax(dim=1)
        assert torch.equal(batch["labels"], brightest)
    assert sorted(n for batch in batches for n in batch["indices"].tolist()) == list(range(12))


@pytest.mark.parametrize(("batch_size", "sizes"), [(11, [11]), (1, [1] * 12), (5, [5, 5, 2]), (12, [12]), (13, [12])])
def test_a_last_batch_of_one_image_is_left_out(
    class_arguments: Arguments, batch_size: int, sizes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    loader = ImageFolderDataModule(**class_arguments | {"batch_size": batch_size}).train_dataloader()
    batches = list(loader.batch_sampler)
    assert [len(batch) for batch in batches] == sizes
    assert ("would have one image and is left out" in caplog.text) == (batch_size == 11)
    left_out = {*range(12)} - {key.index for batch in batches for key in batch}
    assert len(left_out) == (batch_size == 11)
    assert left_out != {*range(12)} - {key.index for batch in loader.batch_sampler for key in batch} or not left_out


def test_evaluation_has_each_image_once_in_order(class_arguments: Arguments) -> None:
    data = ImageFolderDataModule(**class_arguments, val_batch_size=4)
    batches = list(data.val_dataloader())
    assert torch.cat([batch["indices"] for batch in batches]).tolist() == list(range(6))
    assert torch.cat([batch["labels"] for batch in batches]).tolist() == [0, 0, 1, 1, 2, 2]
    assert [fingerprint(batch) for batch in data.val_dataloader()] == [fingerprint(batch) for batch in batches]
    train = torch.cat([batch["labels"] for batch in data.eval_dataloader("train")])
    assert train.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    with pytest.raises(ValueError, match="there is no split 'test', only train, val"):
        data.eval_dataloader("test")


def test_mixed_samples_have_both_labels_in_their_shares(class_arguments: Arguments) -> None:
    """Images are flat: with a crop alone, the pixels of mixed images are those of both classes, in the shares given."""
    augment = ClassAugmentation(auto_augment=None, color_jitter=0, erasing=0, cutmix=1.0)
    data, num_mixed = ImageFolderDataModule(**class_arguments | {"augment": augment}), 0
    for batch in data.train_dataloader():
        for image, label, other, share in zip(*(batch[k] for k in ("images", "labels", "other_labels", "shares"))):
            if label != other:
                own = (image[2 - label] > 128).float().mean()
                assert own == pytest.approx(share.item(), abs=0.03)  # one pixel of each file is dark
                num_mixed += 0.05 < share < 0.95
    assert num_mixed > 3


def test_samples_depend_on_seed_epoch_and_index_only(class_arguments: Arguments) -> None:
    arguments = class_arguments | {"augment": MIXED}
    dataset = ImageFolderDataModule(**arguments).train_dataloader().dataset
    keys = [SampleKey(index, epoch, (32, 32)) for index in (3, 7) for epoch in (0, 1)]
    samples = [dataset[key] for key in keys]
    assert len({sample.image.numpy().tobytes() for sample in samples}) == 4
    other = ImageFolderDataModule(**arguments | {"batch_size": 1}).train_dataloader().dataset
    for key, sample in reversed(list(zip(keys, samples))):
        for generator in (random.random, np.random.random, lambda: torch.rand(1)):
            generator()
        again = other[key]
        assert torch.equal(again.image, sample.image)
        assert again[1:] == sample[1:]
    assert torch.equal(dataset[3].image, samples[0].image)  # a plain index means epoch 0
    other_seed = ImageFolderDataModule(**arguments | {"seed": 1}).train_dataloader().dataset
    assert not torch.equal(other_seed[keys[0]].image, samples[0].image)


def test_samples_leave_the_global_generators_as_they_were(class_arguments: Arguments) -> None:
    def states() -> tuple:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002

    dataset = ImageFolderDataModule(**class_arguments | {"augment": MIXED}).train_dataloader().dataset
    before = states()
    assert [dataset[n].index for n in range(12)] == list(range(12))
    assert states() == before


def test_workers_draw_the_same_samples_and_a_dead_one_names_its_image(class_arguments: Arguments) -> None:
    arguments = class_arguments | {"augment": MIXED, "batch_size": 1}
    loader = ImageFolderDataModule(**arguments).train_dataloader()
    expected = [fingerprint(batch) for _ in range(2) for batch in loader]
    loader = ImageFolderDataModule(**arguments | {"num_workers": 2}).train_dataloader()
    assert [fingerprint(batch) for _ in range(2) for batch in loader] == expected
    batches = iter(loader)
    os.kill(int(loader.dataset.current_keys[0, 0]), signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"(?s)DataLoader worker \(pid.*was at training image .*png \(index .*mixed with"):
        list(batches)


def test_processes_draw_the_samples_of_one_alone(class_arguments: Arguments) -> None:
    def one_epoch(world_size: int, rank: int, batch_size: int) -> list[list[tuple]]:
        data = ImageFolderDataModule(**class_arguments | {"augment": MIXED, "batch_size": batch_size})
        data.trainer = fake_trainer(world_size=world_size, global_rank=rank)
        return epoch_of(data)

    parts = [one_epoch(2, rank, 2) for rank in range(2)]
    together = [sorted(first + second) for first, second in zip(*parts)]
    assert together == [sorted(batch) for batch in one_epoch(1, 0, 4)]


@pytest.mark.parametrize("processes", [1, 2, 4, 6])
def test_processes_evaluate_each_image_once(class_arguments: Arguments, processes: int) -> None:
    data, indices = ImageFolderDataModule(**class_arguments), []
    for rank in range(processes):
        data.trainer = fake_trainer(world_size=processes, global_rank=rank)
        indices += [n for batch in data.val_dataloader() for n in batch["indices"].tolist()]
    assert sorted(indices) == list(range(6))


def test_more_processes_than_validation_images_are_refused(class_arguments: Arguments) -> None:
    data = ImageFolderDataModule(**class_arguments)
    data.trainer = fake_trainer(world_size=7)
    with pytest.raises(ValueError, match="val has 6 images for 7 processes; use as many"):
        data.val_dataloader()


def test_a_resumed_training_goes_on_with_the_next_sample(class_arguments: Arguments) -> None:
    arguments = class_arguments | {"augment": MIXED}
    data = ImageFolderDataModule(**arguments)
    loader = data.train_dataloader()
    epochs = [[fingerprint(batch) for batch in loader] for _ in range(3)]
    assert len({row for epoch in epochs for batch in epoch for row in batch}) == 3 * 12
    resumed = ImageFolderDataModule(**arguments)
    resumed.load_state_dict({"epoch": 1, "samples": 4, "step_batch": 4})
    loader = resumed.train_dataloader()
    assert [fingerprint(batch) for batch in loader] == epochs[1][1:]
    assert [fingerprint(batch) for batch in loader] == epochs[2]


@pytest.mark.filterwarnings("ignore:skipped")
def test_bad_images_are_replaced_in_training_and_gray_in_evaluation(class_folders: Path, tmp_path: Path) -> None:
    shutil.copytree(class_folders, root := tmp_path / "set")
    (root / "train/blue/3.png").write_bytes(b"hello")
    (root / "val/red/0.png").write_bytes(b"hello")
    arguments = {"root": str(root), "image_size": 32, "batch_size": 4, "num_workers": 0, "augment": GEOMETRY}
    with pytest.raises(ValueError, match=r"2 images of 18 cannot be used"):
        ImageFolderDataModule(**arguments)
    with pytest.warns(UserWarning, match="2 images of 18 cannot be used"):
        data = ImageFolderDataModule(**arguments, on_bad_image="skip")
    sample = data.train_dataloader().dataset[2]  # the next one is of the same class
    assert sample.label == 0
    assert sample.image.float().mean(dim=(1, 2)).argmax() == 2
    evaluated = torch.cat([batch["images"] for batch in data.val_dataloader()])
    assert torch.unique(evaluated[4]).tolist() == [114]
    assert data.skipped == {"train": [str(root / "train/blue/3.png")], "val": [str(root / "val/red/0.png")]}
    with pytest.warns(UserWarning, match=r"1 image could not be decoded and was skipped"):
        data.teardown("fit")


@pytest.mark.filterwarnings("ignore:skipped")
def test_the_label_of_a_replaced_image_is_that_of_the_replacement(class_folders: Path, tmp_path: Path) -> None:
    shutil.copytree(class_folders, root := tmp_path / "set")
    (root / "train/blue/series/of 2024/2.png").write_bytes(b"hello")  # the last one of its class
    with pytest.warns(UserWarning, match="1 image of 18 cannot be used"):
        data = ImageFolderDataModule(str(root), image_size=32, num_workers=0, on_bad_image="skip", augment=GEOMETRY)
    sample = data.train_dataloader().dataset[3]
    assert (sample.label, sample.other_label, sample.index) == (1, 1, 3)
    assert sample.image.float().mean(dim=(1, 2)).argmax() == 1


def test_coco_files_are_an_alternative(tmp_path: Path) -> None:
    from tests.data.classification.test_coco_classes import write

    write(tmp_path, "train", {1: [7], 2: [90], 3: [22]})
    write(tmp_path, "val", {1: [22], 2: [7]})
    paths = {f"{split}_{kind}": f"{split}{end}" for split in ("train", "val") for kind, end in
             (("annotations", ".json"), ("images", ""))}  # fmt: skip
    arguments = {"root": str(tmp_path), "image_size": 16, "num_workers": 0}
    with pytest.warns(UserWarning, match="same content|no images there"):
        data = ImageFolderDataModule(**arguments, **paths)
    assert (data.class_names, data.category_ids) == (["cat", "newt", "dog"], [7, 22, 90])
    assert next(iter(data.val_dataloader()))["labels"].tolist() == [0, 1]
    with pytest.warns(
        UserWarning, match=r"data\.val_share 0\.3 is not used: the data have a validation set, .*val\.json; leave"
    ):
        ImageFolderDataModule(**arguments, **paths, val_share=0.3)
    for change, message in (
        ({"train_images": None}, "data.train_annotations and data.train_images belong together"),
        ({"train_annotations": None, "train_images": None}, "give the training file, too"),
        ({"train": "images"}, r"data\.train \('images'\) and data\.val \('val'\) are for class folders"),
    ):
        with pytest.raises(ValueError, match=message):
            ImageFolderDataModule(**arguments, **paths | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 0}, r"data\.image_size is 0; expected one side"),
        ({"batch_size": 2.0}, r"data\.batch_size is 2\.0; expected a whole number, 1 or more"),
        ({"val_batch_size": -1}, r"data\.val_batch_size is -1"),
        ({"val_batch_size": 0}, r"data\.val_batch_size is 0"),
        ({"num_workers": -1}, r"data\.num_workers is -1"),
        ({"seed": -5}, r"data\.seed is -5"),
        ({"on_bad_image": "ignore"}, r"data\.on_bad_image is 'ignore'; expected one of raise, skip"),
        ({"check": "some"}, r"data\.check is 'some'; expected one of auto, all, none"),
        ({"val_share": 0}, r"data\.val_share is 0, .*Leave it out if .*, such as 0\.01; add trainer\.limit_val_batches 0"),
        ({"val_share": 1.0}, r"data\.val_share is 1\.0"),
        ({"crop_pct": 1.1}, r"data\.crop_pct is 1\.1"),
        ({"augment": {"mixupp": 1}}, "unknown field of data.augment: 'mixupp'; did you mean mixup"),
        ({"augment": 0.5}, "data.augment is 0.5; expected a ClassAugmentation"),
        ({"sixteen_bit_range": (5, 1)}, r"data\.sixteen_bit_range is"),
    ],
)
def test_bad_arguments_are_refused_at_the_start(class_arguments: Arguments, change: Arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageFolderDataModule(**class_arguments | change)


@pytest.mark.filterwarnings("error:data.val_share .* is not used")
def test_a_share_beside_a_validation_set_is_warned_of(class_arguments: Arguments) -> None:
    ImageFolderDataModule(**class_arguments)
    ImageFolderDataModule(**class_arguments, val=None, val_share=0.3)
    with pytest.warns(
        UserWarning, match=r"data\.val_share 0\.3 is not used: the data have a validation set, .*/val; leave it"
    ):
        ImageFolderDataModule(**class_arguments, val_share=0.3)


def test_everything_can_be_set_from_a_configuration(class_arguments: Arguments) -> None:
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(ImageFolderDataModule, "data")
    flags = [f"--data.{key}={value}" for key, value in class_arguments.items() if key != "image_size"]
    flags += ["--data.image_size=[16, 32]", "--data.augment.mixup=0.5", "--data.augment.scale=[0.5, 1.0]", "--data.val=null"]
    flags += ["--data.augment.auto_augment=null", "--data.license=CC0-1.0", "--data.check=none"]
    build = getattr(parser, "instantiate", None) or parser.instantiate_classes  # its name until jsonargparse 4.49
    data = build(parser.parse_args(flags)).data
    assert data.size == (16, 32)
    assert data.augment == ClassAugmentation(mixup=0.5, scale=(0.5, 1.0), auto_augment=None)
    assert data.num_images["train"] + data.num_images["val"] == 12
