"""ImageFolderDataModule: the section ``data`` of a configuration file for pre-training."""

from pathlib import Path
from typing import get_args

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader

from data.base_datamodule import BaseDataModule, check_choice
from data.classification.augmentation import ClassAugmentation, EvalTransform, TrainTransform
from data.classification.class_folders import read_class_folders
from data.classification.class_splits import ClassSplits, check_splits
from data.classification.coco_classes import read_coco_classes
from data.classification.dataset import ClassEvalDataset, ClassTrainDataset, collate_labeled
from data.classification.file_checks import FileCheck, check_image_files
from data.classification.reader import LabeledImageReader
from data.reader import BadImages
from data.sampler import EpochOrder, EpochSampler
from data.splits import Paths
from data.transforms import as_augmentation
from detector.arguments import as_number
from detector.batch import as_size
from detector.imaging.sixteen_bits import FULL_RANGE

DEFAULT_VAL_SHARE = 0.1
Sources = dict[str, tuple[Paths | None, Paths | None]]  # by split: annotation files and image folders


class ImageFolderDataModule(BaseDataModule):
    """Training and validation data of labeled images. Yields ``detector.batch.ClassBatch``.

    ``root/train/<class>/...`` has the training images: the folders directly in ``root/train`` are the classes, in the order
    of their names, and images at any depth belong to them. ``root/val`` has the same classes, or some of them. Without
    ``root/val``, or with ``val`` null, ``val_share`` of the training images is held out, chosen by a hash of each path below
    ``root/train``: the choice stays the same when images are added or the set is moved. Without ``root/train``, the folders
    in ``root`` are the classes.

    Or ``train_annotations`` and ``train_images``, relative to ``root``, are COCO files (or lists of them) and the folders of
    their images, and likewise for val. The class of an image is that of its annotations; boxes are not needed.

    ``image_size`` is that of the network input, one side or (height, width); ``batch_size`` is per device. Images are read
    upright, as viewers show them, and batches have uint8 in 0..255: subtracting a mean is up to the network. Evaluation
    resizes images to ``image_size / crop_pct`` and takes the center. Samples depend on the seed, the epoch and the index
    only.

    ``check`` is the check of files before training, see ``check_image_files``: of at most 20,000 files (auto), all or none.
    An image that cannot be decoded stops the run. With ``on_bad_image="skip"`` it is replaced by another image (training)
    or by gray (evaluation), and listed in ``skipped``. ``license`` and ``provenance`` of the images are free text for the
    files of weights.
    """

    def __init__(
        self,
        root: str = "datasets/imagenet",
        train: str = "train",
        val: str | None = "val",
        val_share: float = DEFAULT_VAL_SHARE,
        train_annotations: Paths | None = None,
        train_images: Paths | None = None,
        val_annotations: Paths | None = None,
        val_images: Paths | None = None,
        image_size: int | tuple[int, int] = 224,
        batch_size: int = 128,
        val_batch_size: int | None = None,
        num_workers: int = 4,
        seed: int = 0,
        augment: ClassAugmentation = ClassAugmentation(),  # noqa: B008  frozen, so sharing it is safe
        crop_pct: float = 0.875,
        on_bad_image: BadImages = "raise",
        check: FileCheck = "auto",
        sixteen_bit_range: tuple[int, int] | None = None,
        license: str | None = None,
        provenance: str | None = None,
    ) -> None:
        super().__init__(batch_size, val_batch_size, num_workers, seed, on_bad_image, sixteen_bit_range)
        check_choice("check", check, get_args(FileCheck))
        self.size = as_size(image_size, "data.image_size")
        self.training_sizes = [self.size]
        self.augment = as_augmentation(augment, ClassAugmentation)
        _check_val_share(val_share)
        as_number(crop_pct, "data.crop_pct", 0.01)
        self.license, self.provenance = license, provenance
        self._train_transform = TrainTransform(self.size, self.augment)
        self._eval_transform = EvalTransform(self.size, crop_pct)
        sources = {"train": (train_annotations, train_images), "val": (val_annotations, val_images)}
        if any(path is not None for pair in sources.values() for path in pair):
            self.splits = _read_coco_files(Path(root), sources, train, val, val_share)
        else:
            self.splits = read_class_folders(Path(root), train, val, val_share, on_bad_image)
        check_splits(self.splits)
        if val_share != DEFAULT_VAL_SHARE and not self.splits.is_held_out:
            rank_zero_warn(
                f"data.val_share {val_share} is not used: the data have a validation set, {self.splits.sources['val']}; "
                "leave it out, or leave out that set"
            )
        check_image_files(self.splits, check, on_bad_image)
        self.class_names, self.category_ids = self.splits.class_names, self.splits.category_ids
        samples = self.sixteen_bit_range or FULL_RANGE
        self._readers: dict[str, LabeledImageReader] = {
            split: LabeledImageReader(index, on_bad_image, samples) for split, index in self.splits.splits.items()
        }

    @property
    def num_images(self) -> dict[str, int]:
        """The number of images of each split."""
        return {split: len(index) for split, index in self.splits.splits.items()}

    def image_folder(self, split: str) -> Path:
        """Return the folder that the names of the images of ``split`` are relative to."""
        return self.splits.splits[split].root

    def image_name(self, split: str, index: int) -> str:
        """Return the path of image ``index`` of ``split``, relative to ``image_folder``."""
        return self.splits.splits[split].name(index)

    def check_split(self, split: str) -> None:
        """Raise ValueError if the data have no ``split``."""
        if split not in self.splits.splits:
            raise ValueError(f"there is no split {split!r}, only {', '.join(self.splits.splits)}")

    def train_dataloader(self) -> DataLoader:
        """Return the loader of augmented images; their order depends only on seed and epoch.

        A last batch of one image is left out, because BatchNorm may need two values of a channel.
        """
        dataset = ClassTrainDataset(self._readers["train"], self._train_transform, self.augment, self.seed)
        order = EpochOrder(len(dataset), self.seed, pool=0)
        position, replicas_and_rank = self._take_resume_position(), self._replicas_and_rank()
        sampler = EpochSampler(order, self.batch_size, self.training_sizes, *replicas_and_rank, position)
        if drop_last := self._drops_last(len(sampler)):
            rank_zero_info("train: the last batch would have one image and is left out; it is another image in each epoch")
        return self._loader(dataset, sampler, self.batch_size, collate_labeled, drop_last)

    @property
    def num_train_samples(self) -> int:
        """The number of training images: each is one sample of an epoch."""
        return self.num_images["train"]

    def _drops_last(self, num_samples: int) -> bool:
        return self.batch_size > 1 and num_samples > 1 and num_samples % self.batch_size == 1

    def val_dataloader(self) -> DataLoader:
        return self.eval_dataloader("val")

    def eval_dataloader(self, split: str) -> DataLoader:
        """Return the loader that evaluates a split, "train" included, without augmentation."""
        self.check_split(split)
        dataset = ClassEvalDataset(self._readers[split], self._eval_transform)
        order = np.arange(len(dataset))
        sampler = self._shard_sampler(split, order, np.broadcast_to(self.size, (len(dataset), 2)))
        return self._loader(dataset, sampler, self.val_batch_size, collate_labeled)


def _check_val_share(val_share: float) -> None:
    """Raise ValueError for anything but a share above 0, up to 0.9."""
    if val_share == 0 and not isinstance(val_share, bool):
        raise ValueError(
            "data.val_share is 0, but a pre-training needs a validation set. Leave it out if the data have one, or set a "
            "share above 0, such as 0.01; add trainer.limit_val_batches 0 to train without looking at these images"
        )
    as_number(val_share, "data.val_share", 1e-6, 0.9)


def _read_coco_files(root: Path, sources: Sources, train: str, val: str | None, val_share: float) -> ClassSplits:
    """Read COCO files. Raises ValueError if they are given in part, or together with class folders."""
    if (train, val) != ("train", "val") and (train, val) != ("train", None):
        raise ValueError(
            f"data.train ({train!r}) and data.val ({val!r}) are for class folders, and data.train_annotations for COCO "
            "files; give one of them"
        )
    given: dict[str, tuple[Paths, Paths]] = {}
    for split, (annotations, images) in sources.items():
        if annotations is not None and images is not None:
            given[split] = annotations, images
        elif (annotations is None) != (images is None):
            raise ValueError(f"data.{split}_annotations and data.{split}_images belong together; give both or neither")
    if "train" not in given:
        raise ValueError("data.val_annotations is given without data.train_annotations; give the training file, too")
    return read_coco_classes(root, given["train"], given.get("val"), val_share)
