"""CocoDataModule: the section ``data`` of a configuration file."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader

from data.annotations import Annotations
from data.balance import repeat_factors
from data.base_datamodule import BaseDataModule, check_choice
from data.cache import PoolCache, RamCache
from data.check.findings import check_annotations, class_counts
from data.dataset import EvalDataset, TrainDataset, collate
from data.leaks import MAX_IMAGES, also_in_train
from data.reader import BadImages, ImageReader
from data.sampler import NUM_ROTATING_POOLS, EpochOrder, EpochSampler, num_samples, order_by_aspect_ratio, training_sizes
from data.splits import COCO_TRAIN, COCO_VAL, Files, Paths, Split, read_splits
from data.tiles import TileDataset
from data.transforms import Augmentation, TrainPipeline, as_augmentation
from detector.arguments import AUTO, as_bool
from detector.batch import Size, as_size
from detector.imaging.sixteen_bits import FULL_RANGE
from detector.imaging.tiles import Tiling

CacheKind = Literal["none", "recent", "ram"]


class CocoDataModule(BaseDataModule):
    """Training, validation and test data in COCO or Pascal VOC format, or with YOLO labels. Yields ``detector.batch.Batch``.

    Annotation files are read and checked in the constructor, so a mistake in them stops a run before it starts. ``root`` is
    a folder, and the other paths are relative to it. A split may have several annotation files, with an image folder for
    each or one for all. Or ``root`` is a ``data.yaml`` for images with YOLO labels (see data/yolo.py), or the folder of a
    Pascal VOC set (see data/voc.py); then leave out the other paths. For a VOC set of other names, annotations may be a
    folder of XML files, or a list of images.

    Without a validation set, ``val_split`` (by default 0.2) of the training images are held out for validation, chosen by a
    hash of the files' content. With 0 there is no validation, which a Trainer needs to know (``limit_val_batches=0``).

    ``image_size`` is that of the network input, one side or (height, width); ``batch_size`` is per device. Classes are
    numbered by ascending category id of the training file. ``transforms`` are the user's own albumentations,
    ``[{"OneOf": {"transforms": [{"Blur": {}}, {"CLAHE": {}}], "p": 0.1}}]``. ``single_cls`` puts all objects into one class.
    An image that cannot be decoded stops the run. With ``on_bad_image="skip"`` it is replaced by another image (training)
    or by gray (evaluation), and listed in ``skipped``.

    ``cache`` is the decoded training images that stay in memory: those of the ``recent`` pools (see PoolCache), all of them
    (``ram``) or ``none``. The cache does not change the samples. ``rect`` evaluates images of similar aspect ratio together,
    with less padding. That is faster, and AP differs a little and depends on the batch size.

    ``repeat_threshold`` balances classes: images with a class that is in fewer than this share of the images are repeated
    in an epoch, see ``data.balance.repeat_factors``.

    ``sixteen_bit_range`` is for images with 16 bits a sample: the darkest and the brightest value, which become 0 and 255;
    by default all 16 bits. It is saved in checkpoints, and prediction uses it, too.

    The embedded set ``datasets/shapes`` is drawn if it does not exist.
    """

    def __init__(
        self,
        root: str = "datasets/coco",
        train_annotations: Paths = COCO_TRAIN,
        train_images: Paths = "train2017",
        val_annotations: Paths | None = COCO_VAL,
        val_images: Paths | None = "val2017",
        test_annotations: Paths | None = None,
        test_images: Paths | None = None,
        val_split: float | None = None,
        image_size: int | tuple[int, int] = 640,
        batch_size: int = 16,
        val_batch_size: int | None = None,
        num_workers: int = 4,
        seed: int = 0,
        augment: Augmentation = Augmentation(),  # noqa: B008  frozen, so sharing it is safe
        transforms: list[dict[str, Any]] | None = None,
        single_cls: bool = False,
        on_bad_image: BadImages = "raise",
        cache: CacheKind = "recent",
        repeat_threshold: float | None = None,
        rect: bool = False,
        sixteen_bit_range: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(batch_size, val_batch_size, num_workers, seed, on_bad_image, sixteen_bit_range)
        check_choice("cache", cache, get_args(CacheKind))
        self.size = as_size(image_size, "data.image_size")
        self.augment = augment = as_augmentation(augment, Augmentation)
        self.rect = as_bool(rect, "data.rect")
        self.tiling: Tiling | None = None  # of evaluations; evaluate.py sets it
        self.training_sizes = training_sizes(self.size, augment.multi_scale)
        self._pipeline = TrainPipeline(self.size, augment, transforms, self.training_sizes)
        files: Files = {
            "train": (train_annotations, train_images),
            "val": (val_annotations, val_images),
            "test": (test_annotations, test_images),
        }
        self.annotations = read_splits(Path(root), files, val_split)
        # The share that is held out of train, 0 for no validation; None if the data have a validation set
        self.val_split = self.annotations["val"].held_out if "val" in self.annotations else 0.0
        if as_bool(single_cls, "data.single_cls"):
            self.annotations = {split: part.as_single_class() for split, part in self.annotations.items()}
        samples = self.sixteen_bit_range or FULL_RANGE
        self.annotations = {s: replace(part, sixteen_bit_range=samples) for s, part in self.annotations.items()}
        _warn_of_doubtful_data(self.annotations, self.size)
        self._readers: dict[str, ImageReader] = {
            split: ImageReader(part, on_bad_image) for split, part in self.annotations.items()
        }
        self._ram_cache = RamCache(self._readers["train"], self.size) if cache == "ram" else None
        self._train_dataset: TrainDataset | None = None  # of the latest training loader
        self._early_closing: int | None = None  # the first epoch without mosaic, if earlier than planned
        self._cache_pools = cache == "recent" and augment.pool > 0
        train = self.annotations["train"]
        self._repeats = None if repeat_threshold is None else repeat_factors(train, repeat_threshold)
        self.class_names: list[str] = train.class_names
        # Names of the classes without objects to learn from
        self.absent_classes = [name for name, count in zip(train.class_names, class_counts(train)) if not count]
        self.category_ids: list[int] = train.category_ids

    def check_split(self, split: Split) -> None:
        """Raise ValueError if the data have no ``split``."""
        if split == "val" and split not in self.annotations:
            raise ValueError(
                "the data have no validation set, and data.val_split is 0: set data.val_annotations and data.val_images, or "
                "another data.val_split; to train without validation, set trainer.limit_val_batches to 0"
            )
        if split not in self.annotations:
            raise ValueError(
                f"there is no split {split!r}, only {', '.join(self.annotations)}; for 'test' set data.test_annotations "
                "and data.test_images"
            )

    def ground_truth(self, split: Split) -> dict[str, Any]:
        """Return the objects of a split in COCO format, with original ids, for evaluation.

        ``info`` has the ids of images that are also in train, as ``also_in_train``, if there are some.
        """
        self.check_split(split)
        part, train = self.annotations[split], self.annotations["train"]
        content = part.ground_truth()
        compared = split != "train" and part.held_out is None and len(part) + len(train) <= MAX_IMAGES
        if compared and len(shared := also_in_train(train, part)):
            content["info"]["also_in_train"] = [part.image_id(index) for index in shared.tolist()]
        return content

    def train_dataloader(self) -> DataLoader:
        """Return the loader of augmented images; their order depends only on seed, epoch and batch size."""
        reader, augment, close_epoch = self._readers["train"], self.augment, None
        mosaic, num_closing = self._mosaic_and_closing()
        if self.trainer is not None and self.trainer.max_epochs and self.trainer.max_epochs > 0:
            close_epoch = self.trainer.max_epochs - num_closing
        order = EpochOrder(len(reader.annotations), self.seed, augment.pool, self._repeats)
        num_replicas, rank = self._replicas_and_rank()
        cache: PoolCache | RamCache | None
        if self._cache_pools:
            # Without rotation, pools come one after another, and a worker needs no pool again that it has left.
            cache = PoolCache(NUM_ROTATING_POOLS if order.can_rotate_pools(self.batch_size * num_replicas) else 2)
        else:
            cache = self._filled_ram_cache()
        dataset = TrainDataset(reader, self._pipeline, order, mosaic, augment.mixup, close_epoch, cache)
        if self._early_closing is not None:
            dataset.close_from(self._early_closing)
        self._train_dataset = dataset
        position = self._take_resume_position()
        sampler = EpochSampler(order, self.batch_size, self.training_sizes, num_replicas, rank, position)
        return self._loader(dataset, sampler, self.batch_size, collate)

    @property
    def num_train_images(self) -> int:
        """The number of training images."""
        return len(self.annotations["train"])

    @property
    def num_train_samples(self) -> int:
        """The number of samples in an epoch: the training images, repeated ones as often as they come."""
        return num_samples(self.num_train_images, self._repeats)

    @property
    def num_closing_epochs(self) -> int:
        """The number of epochs without mosaic and mixup at the end of a training."""
        return self._mosaic_and_closing()[1]

    def choose_mosaic(self, mosaic: float, close_mosaic: int) -> None:
        """Replace ``mosaic`` and ``close_mosaic`` of the augmentation, which may be "auto"."""
        self.augment = replace(self.augment, mosaic=mosaic, close_mosaic=close_mosaic)

    def _mosaic_and_closing(self) -> tuple[float, int]:
        """Return ``mosaic`` and ``close_mosaic``. Raises ValueError in a training if they are still "auto".

        Without a training, as in ``python -m data show``, "auto" is the default value.
        """
        mosaic, closing = self.augment.mosaic, self.augment.close_mosaic
        if AUTO in (mosaic, closing) and self.trainer is not None:
            raise ValueError(
                f"data.augment.mosaic is {mosaic} and close_mosaic {closing}: auto is chosen by train.py; in Python give a "
                "number, or take it from detector.training.recipe.recipe_for (docs/python.md)"
            )
        default = Augmentation()
        chosen = default.mosaic if mosaic == AUTO else mosaic, default.close_mosaic if closing == AUTO else closing
        return float(chosen[0]), int(chosen[1])

    def close_mosaic_from(self, epoch: int) -> None:
        """Train without mosaic and mixup from ``epoch`` on, which has not begun yet."""
        self._early_closing = epoch
        if self._train_dataset is not None:
            self._train_dataset.close_from(epoch)

    def val_dataloader(self) -> DataLoader:
        return self.eval_dataloader("val")

    def test_dataloader(self) -> DataLoader:
        return self.eval_dataloader("test")

    def eval_dataloader(self, split: Split) -> DataLoader:
        """Return the loader that evaluates a split, "train" included, without augmentation."""
        self.check_split(split)
        if self.tiling is not None:
            return self._tile_dataloader(split, self.tiling)
        dataset = EvalDataset(self._readers[split], self.size)
        image_sizes = self.annotations[split].sizes
        order, sizes = np.arange(len(image_sizes)), np.tile(self.size, (len(image_sizes), 1))
        if self.rect:
            order, sizes = order_by_aspect_ratio(image_sizes, self.size, self.val_batch_size * self._replicas_and_rank()[0])
        return self._loader(dataset, self._shard_sampler(split, order, sizes), self.val_batch_size, collate)

    def _tile_dataloader(self, split: Split, tiling: Tiling) -> DataLoader:
        """Return the loader of all tiles of a split, each letterboxed to the input size."""
        if self.rect:
            rank_zero_info("data.rect is not used: tiles have one size")
        dataset = TileDataset(self._readers[split], self.size, tiling)
        if (self.annotations[split].sizes <= tiling.size).all():
            rank_zero_info("tile makes no difference: every image fits into one tile; give a smaller one")
        order, sizes = np.arange(len(dataset)), np.tile(self.size, (len(dataset), 1))
        return self._loader(dataset, self._shard_sampler(split, order, sizes), self.val_batch_size, collate)

    def _filled_ram_cache(self) -> RamCache | None:
        if self._ram_cache is not None and self._ram_cache.pixels is None:
            num_nodes = 1 if self.trainer is None else self.trainer.num_nodes
            self._ram_cache.check(self._replicas_and_rank()[0] // num_nodes)
            self._ram_cache.fill()
        return self._ram_cache


def _warn_of_doubtful_data(splits: dict[str, Annotations], size: Size) -> None:
    """Log the warnings of a check of the annotations, except those already logged while the files were read."""
    findings = [finding for finding in check_annotations(splits, size) if finding.level == "warning"]
    if lines := [finding.line() for finding in findings if not finding.already_warned]:
        rank_zero_warn("look at your data (more: python -m data check):\n    " + "\n    ".join(lines))
