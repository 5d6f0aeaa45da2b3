"""CocoDataModule: what ``data:`` in a configuration file means."""

import warnings
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Sampler

from data.annotations import Annotations, check_same_classes, join_annotations
from data.cache import BadImages, ImageReader, PoolCache, RamCache
from data.check.findings import check_annotations
from data.coco import check_root, read_coco
from data.dataset import EvalDataset, TrainDataset, collate
from data.sampler import LANES, EpochOrder, EpochSampler, ShardSampler, rectangles, side_step, training_sizes
from data.shapes.draw import SHAPES
from data.transforms import Augmentation, TrainPipeline
from data.workers import Describable, WatchedDataset, WatchedLoader, check_temporary_folder, init_worker
from data.yolo import read_yolo
from detector.batch import as_size
from detector.text import plural

Split = Literal["train", "val", "test"]
CacheKind = Literal["none", "recent", "ram"]
Paths = str | list[str]
Files = dict[str, tuple[Paths | None, Paths | None]]  # annotations and images of each split
COCO_TRAIN, COCO_VAL = "annotations/instances_train2017.json", "annotations/instances_val2017.json"
COCO_FILES = {"train": (COCO_TRAIN, "train2017"), "val": (COCO_VAL, "val2017"), "test": (None, None)}


class CocoDataModule(LightningDataModule):
    """Training, validation and test data in COCO format, or with YOLO labels. Yields ``detector.batch.Batch``.

    Annotation files are read and checked here and now, so that a mistake in them stops a run before it starts. ``root`` is
    a folder that the other paths are relative to; several annotation files may be given for a split, with an image folder
    for each or one for all. Or ``root`` is a ``data.yaml`` that says where images with YOLO labels are (see data/yolo.py);
    the other paths are left out then.

    ``image_size`` is that of the network input, one side or (height, width); ``batch_size`` is per device. Classes are
    numbered by ascending category id of the training file. ``transforms`` are the user's own albumentations,
    ``[{"OneOf": {"transforms": [{"Blur": {}}, {"CLAHE": {}}], "p": 0.1}}]``. ``single_cls`` takes all objects for one class.
    An image that cannot be decoded stops the run, or with ``on_bad_image="skip"`` is replaced (training) or taken for gray
    (evaluation), and counted in ``skipped``.

    ``cache`` says which training images stay in memory, decoded: those of the ``recent`` pools (see PoolCache), all of
    them (``ram``) or ``none``; samples are the same. ``rect`` evaluates images of similar aspect ratio together, with
    less padding: faster, and AP differs a little and with the batch size.

    The embedded set ``datasets/shapes`` is drawn if it is not there.

    The Trainer must have ``use_distributed_sampler=False``: the samplers here know the number of processes.
    """

    def __init__(
        self,
        root: str = "datasets/coco",
        train_annotations: Paths = COCO_TRAIN,
        train_images: Paths = "train2017",
        val_annotations: Paths = COCO_VAL,
        val_images: Paths = "val2017",
        test_annotations: Paths | None = None,
        test_images: Paths | None = None,
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
        rect: bool = False,
    ) -> None:
        super().__init__()
        self.size = as_size(image_size, "data.image_size")
        self.batch_size, self.val_batch_size = batch_size, val_batch_size or batch_size
        self.num_workers, self.seed, self.augment, self.rect = num_workers, seed, augment, rect
        self._check_numbers()
        for name, value, choices in (("on_bad_image", on_bad_image, BadImages), ("cache", cache, CacheKind)):
            if value not in get_args(choices):
                raise ValueError(f"data.{name} is {value!r}; expected one of {', '.join(get_args(choices))}")
        if num_workers:
            check_temporary_folder()
        self.training_sizes = training_sizes(self.size, augment.multi_scale)
        if augment.multi_scale and len(self.training_sizes) == 1:
            raise ValueError(
                f"augment.multi_scale is {augment.multi_scale}, in which there is no other size than {self.size} in steps "
                f"of {side_step(self.size)}; give at least {side_step(self.size) / max(self.size):.2f}, or 0"
            )
        self._pipeline = TrainPipeline(self.size, augment, transforms, self.training_sizes)
        files = {
            "train": (train_annotations, train_images),
            "val": (val_annotations, val_images),
            "test": (test_annotations, test_images),
        }
        self.annotations = read_splits(Path(root), files)
        if single_cls:
            self.annotations = {split: found.as_single_class() for split, found in self.annotations.items()}
        report_doubts(self.annotations, self.size)
        self._images = {split: ImageReader(found, on_bad_image) for split, found in self.annotations.items()}
        self._ram = RamCache(self._images["train"], self.size) if cache == "ram" else None
        self._keep_pools = cache == "recent" and augment.pool > 0
        train = self.annotations["train"]
        self.class_names: list[str] = train.class_names
        self.category_ids: list[int] = train.category_ids
        self._resume: tuple[int, int] | None = None  # epoch, and how many of its batches are done
        self._watched: list[WatchedDataset] = []  # what loaders have been made of

    def _check_numbers(self) -> None:
        for name, least in (("batch_size", 1), ("val_batch_size", 1), ("num_workers", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"data.{name} is {getattr(self, name)}; expected {least} or more")

    def ground_truth(self, split: Split) -> dict[str, Any]:
        """Return the objects of a split in COCO format, with original ids, as evaluation must see them."""
        self._split(split)
        return self.annotations[split].ground_truth()

    @property
    def skipped(self) -> dict[str, list[str]]:
        """The images that could not be decoded so far, by split; each process knows those it met."""
        return {split: images.skipped_paths() for split, images in self._images.items()}

    def train_dataloader(self) -> DataLoader:
        """Return the loader of augmented images; their order depends on seed, epoch and batch size alone."""
        images = self._split("train")
        trainer = self.trainer
        close_epoch = None
        if trainer is not None and (trainer.max_epochs or -1) > 0:
            close_epoch = trainer.max_epochs - self.augment.close_mosaic
        order = EpochOrder(len(self.annotations["train"]), self.seed, self.augment.pool)
        mixing = (self.augment.mosaic, self.augment.mixup, close_epoch)
        place = self._place()
        # Batches that cut across pools come pool after pool: the one before and the next are all that is needed.
        lanes = LANES if order.interleaves(self.batch_size * place[0]) else 2
        cache = PoolCache(lanes) if self._keep_pools else self._filled_ram()
        dataset = TrainDataset(images, self._pipeline, order, *mixing, cache)
        resume, self._resume = self._resume, None
        # Read anew for every epoch; ``trainer.current_epoch`` would be one too low while a resumed run starts.
        current_epoch = None if trainer is None else lambda: trainer.fit_loop.epoch_progress.current.processed
        sampler = EpochSampler(order, self.batch_size, self.training_sizes, *place, resume, current_epoch)
        return self._loader(dataset, sampler, self.batch_size)

    def _filled_ram(self) -> RamCache | None:
        if self._ram is not None and self._ram.pixels is None:
            self._ram.check(self._place()[0] // (1 if self.trainer is None else self.trainer.num_nodes))
            self._ram.fill()
        return self._ram

    def val_dataloader(self) -> DataLoader:
        return self.eval_dataloader("val")

    def test_dataloader(self) -> DataLoader:
        return self.eval_dataloader("test")

    def state_dict(self) -> dict[str, Any]:
        """Return where training goes on from a checkpoint: the epoch, and how many of its samples are done.

        Samples that were trained on count, of all processes together; not those that workers have prepared already.
        """
        if self.trainer is None:
            return {}
        started = self.trainer.fit_loop.epoch_progress.current.started
        batches = self.trainer.fit_loop.epoch_loop.batch_progress
        step_batch = self.batch_size * self.trainer.world_size
        # Checkpoints are written before an epoch counts as completed; whether its last batch is done tells the truth.
        if batches.is_last_batch or started == 0:
            return {"epoch": started, "samples": 0, "step_batch": step_batch}
        return {"epoch": started - 1, "samples": batches.current.processed * step_batch, "step_batch": step_batch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start the next training where ``state_dict`` says.

        Raises ValueError for the middle of an epoch if batches are others now: then what is left of it cannot be told.
        """
        trainer, epoch, samples = self.trainer, state_dict["epoch"], state_dict["samples"]
        if trainer is not None and trainer.state.fn != "fit":  # evaluating a checkpoint must not move a later fit
            return
        processes = 1 if trainer is None else trainer.world_size
        if samples and trainer is not None and trainer.overfit_batches:
            raise ValueError(
                f"the checkpoint is from the middle of epoch {epoch}, and trainer.overfit_batches always starts with the "
                "first image: start this run anew"
            )
        if samples and state_dict.get("step_batch") != self.batch_size * processes:
            raise ValueError(
                f"the checkpoint is from the middle of epoch {epoch}, with {state_dict.get('step_batch')} images in a batch "
                f"of all processes; here they are {self.batch_size} x {processes}. Resume with as many, or from the end of "
                "an epoch"
            )
        self._resume = epoch, samples // processes

    def on_exception(self, exception: BaseException) -> None:
        """Add where the workers were, if the exception says that one has died while a step was computed."""
        message = str(exception).strip()
        if message.startswith("DataLoader worker (pid") and "was at" not in message:
            for watched in self._watched:
                if any(str(process) in message for process in watched.board[:, 0].tolist() if process):
                    exception.add_note(watched.whereabouts(message))

    def teardown(self, stage: str) -> None:
        for split, paths in self.skipped.items():
            if paths:
                some = plural(len(paths), "image could not be decoded and was", "images could not be decoded and were")
                warnings.warn(f"{split}: {some} skipped, e.g. {', '.join(paths[:3])}", stacklevel=2)

    def _split(self, split: Split) -> ImageReader:
        if split not in self._images:
            raise ValueError(
                f"there is no split {split!r}, only {', '.join(self._images)}; for 'test' set data.test_annotations "
                "and data.test_images"
            )
        return self._images[split]

    def _place(self) -> tuple[int, int]:
        """Return the number of processes and the rank of this one."""
        trainer = self.trainer
        if trainer is None or trainer.world_size == 1:
            return 1, 0
        if trainer._accelerator_connector.use_distributed_sampler:
            raise ValueError(
                "the Trainer would divide the data among processes a second time; set trainer.use_distributed_sampler "
                "to false"
            )
        return trainer.world_size, trainer.global_rank

    def eval_dataloader(self, split: Split) -> DataLoader:
        """Return the loader that evaluates a split, without augmentation; "train" may be evaluated, too."""
        dataset = EvalDataset(self._split(split), self.size)
        images, place = self.annotations[split].sizes, self._place()
        if len(images) < place[0]:  # found by all processes alike; one alone would leave the others waiting
            raise ValueError(
                f"{split} has {plural(len(images), 'image')} for {place[0]} processes; use as many trainer.devices at most"
            )
        order, sizes = np.arange(len(images)), np.tile(self.size, (len(images), 1))
        if self.rect:
            order, sizes = rectangles(images, self.size, self.val_batch_size * place[0])
        return self._loader(dataset, ShardSampler(order, sizes, *place), self.val_batch_size)

    def _loader(self, dataset: Describable, sampler: Sampler, batch_size: int) -> DataLoader:
        self._watched.append(WatchedDataset(dataset, self.num_workers))
        return WatchedLoader(
            self._watched[-1],
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=collate,
            worker_init_fn=init_worker,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def read_splits(root: Path, files: Files) -> dict[str, Annotations]:
    """Read the annotations of each split, in COCO format or, if ``root`` is a YAML file, with YOLO labels."""
    if root.suffix in (".yaml", ".yml"):
        if differing := [split for split in files if files[split] != COCO_FILES[split]]:
            raise ValueError(
                f"data.root is {root}, which says where the {differing[0]} data are; leave out "
                f"data.{differing[0]}_annotations and data.{differing[0]}_images, which are for COCO-format sets"
            )
        return read_yolo(root)
    if root == SHAPES:
        from data.shapes.write import draw_shapes  # not above: `python -m data.shapes` would import itself

        draw_shapes(SHAPES)  # does nothing if the set is there
    check_root(root, is_coco=files["train"][0] == COCO_TRAIN or root.name == "coco")
    found = {split: read_split(root, split, *paths) for split, paths in files.items() if paths != (None, None)}
    for annotations in found.values():
        check_same_classes(found["train"], annotations)
    return found


def read_split(root: Path, split: str, names: Paths | None, folders: Paths | None) -> Annotations:
    """Read and join the COCO annotation files of a split."""
    if names is None or folders is None:
        raise ValueError(f"data.{split}_annotations and data.{split}_images belong together; give both or neither")
    names = [names] if isinstance(names, str) else names
    folders = [folders] if isinstance(folders, str) else folders
    if not names or len(folders) not in (1, len(names)):
        raise ValueError(
            f"data.{split}_annotations has {plural(len(names), 'file')} and data.{split}_images "
            f"{plural(len(folders), 'folder')}; give a folder for each file, or one for all"
        )
    folders = folders * len(names) if len(folders) == 1 else folders
    return join_annotations([read_coco(root / name, root / folder) for name, folder in zip(names, folders)])


def report_doubts(splits: dict[str, Annotations], size: tuple[int, int]) -> None:
    """Warn of what the annotations alone show to be doubtful, beside what reading them has warned of."""
    doubts = [
        finding.line()
        for finding in check_annotations(splits, size)
        if finding.level == "warning" and not finding.already_warned
    ]
    if doubts:
        rank_zero_warn("look at your data (more: python -m data check):\n    " + "\n    ".join(doubts))
