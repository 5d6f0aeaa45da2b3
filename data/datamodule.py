"""CocoDataModule: what ``data:`` in a configuration file means."""

import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from data.annotations import check_same_classes
from data.coco import check_root, read_coco
from data.dataset import EvalDataset, Pictures, TrainDataset, collate, init_worker
from data.sampler import EpochSampler, ShardSampler
from data.transforms import Augmentation, build_pipeline

Split = Literal["train", "val", "test"]
COCO_TRAIN = "annotations/instances_train2017.json"
SHAPES = Path("datasets/shapes")  # the embedded set


class CocoDataModule(LightningDataModule):
    """Training, validation and test data in COCO format. Yields ``detector.batch.Batch``.

    Annotation files are read and checked here and now, so that a mistake in them stops a run before it starts. Paths are
    relative to ``root``; ``image_size`` is that of the network input, one side or (height, width); ``batch_size`` is per
    device. Classes are numbered by ascending category id of the training file. ``transforms`` are the user's own
    albumentations, ``[{"OneOf": {"transforms": [{"Blur": {}}, {"CLAHE": {}}], "p": 0.1}}]``. ``single_cls`` takes all
    objects for one class. A picture that cannot be decoded stops the run, or with ``on_bad_image="skip"`` is replaced
    (training) or taken for grey (evaluation), and counted in ``skipped``.

    The embedded set ``datasets/shapes`` is drawn if it is not there.

    The Trainer must have ``use_distributed_sampler=False``: the samplers here know the number of processes.
    """

    def __init__(
        self,
        root: str = "datasets/coco",
        train_annotations: str = COCO_TRAIN,
        train_images: str = "train2017",
        val_annotations: str = "annotations/instances_val2017.json",
        val_images: str = "val2017",
        test_annotations: str | None = None,
        test_images: str | None = None,
        image_size: int | tuple[int, int] = 640,
        batch_size: int = 16,
        val_batch_size: int | None = None,
        num_workers: int = 4,
        seed: int = 0,
        augment: Augmentation = Augmentation(),  # noqa: B008  frozen, so sharing it is safe
        transforms: list[dict[str, Any]] | None = None,
        single_cls: bool = False,
        on_bad_image: Literal["raise", "skip"] = "raise",
    ) -> None:
        super().__init__()
        self.size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        self.batch_size, self.val_batch_size = batch_size, val_batch_size or batch_size
        self.num_workers, self.seed, self.augment = num_workers, seed, augment
        self._check_numbers()
        if on_bad_image not in ("raise", "skip"):
            raise ValueError(f"data.on_bad_image is {on_bad_image!r}; expected 'raise' or 'skip'")
        if (test_annotations is None) != (test_images is None):
            raise ValueError("data.test_annotations and data.test_images belong together; give both or neither")
        self._pipeline = build_pipeline(self.size, augment, transforms)
        files = {"train": (train_annotations, train_images), "val": (val_annotations, val_images)}
        if test_annotations is not None:
            files["test"] = (test_annotations, test_images)
        if Path(root) == SHAPES:
            from data.shapes import draw_shapes  # not above: `python -m data.shapes` imports this file first

            draw_shapes(SHAPES)  # does nothing if the set is there
        check_root(Path(root), is_coco=train_annotations == COCO_TRAIN or Path(root).name == "coco")
        self._pictures = _read_splits(Path(root), files, single_cls, on_bad_image)
        train = self._pictures["train"].annotations
        self.class_names: list[str] = train.class_names
        self.category_ids: list[int] = train.category_ids
        self._resume: tuple[int, int] | None = None  # epoch, and how many of its batches are done

    def _check_numbers(self) -> None:
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"data.image_size is {self.size}; expected one side or (height, width) in pixels")
        for name, least in (("batch_size", 1), ("val_batch_size", 1), ("num_workers", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"data.{name} is {getattr(self, name)}; expected {least} or more")

    def ground_truth(self, split: Split) -> dict[str, Any]:
        """Return the objects of a split in COCO format, with original ids, as evaluation must see them."""
        return self._split(split).annotations.ground_truth()

    @property
    def skipped(self) -> dict[str, list[str]]:
        """The pictures that could not be decoded so far, by split; each process knows those it met."""
        return {split: pictures.skipped_paths() for split, pictures in self._pictures.items()}

    def train_dataloader(self) -> DataLoader:
        pictures = self._split("train")
        trainer = self.trainer
        close_epoch = None
        if trainer is not None and (trainer.max_epochs or -1) > 0:
            close_epoch = trainer.max_epochs - self.augment.close_mosaic
        dataset = TrainDataset(pictures, self._pipeline, self.size, self.seed, self.augment.mosaic, close_epoch)
        resume, self._resume = self._resume, None
        # Read anew for every epoch; ``trainer.current_epoch`` would be one too low while a resumed run starts.
        current_epoch = None if trainer is None else lambda: trainer.fit_loop.epoch_progress.current.processed
        sampler = EpochSampler(len(dataset), self.seed, *self._place(), resume, current_epoch)
        return self._loader(dataset, sampler, self.batch_size)

    def val_dataloader(self) -> DataLoader:
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._eval_loader("test")

    def state_dict(self) -> dict[str, Any]:
        """Return where training goes on from a checkpoint: the epoch, and how many of its samples each process has done."""
        if self.trainer is None:
            return {}
        started = self.trainer.fit_loop.epoch_progress.current.started
        batches = self.trainer.fit_loop.epoch_loop.batch_progress
        # Checkpoints are written before an epoch counts as completed; whether its last batch is done tells the truth.
        if batches.is_last_batch or started == 0:
            return {"epoch": started, "samples": 0}
        return {"epoch": started - 1, "samples": batches.current.processed * self.batch_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start the next training where ``state_dict`` says."""
        if self.trainer is None or self.trainer.state.fn == "fit":  # evaluating a checkpoint must not move a later fit
            self._resume = state_dict["epoch"], state_dict["samples"]

    def teardown(self, stage: str) -> None:
        for split, paths in self.skipped.items():
            if paths:
                warnings.warn(
                    f"{split}: {len(paths)} pictures could not be decoded and were skipped, e.g. {', '.join(paths[:3])}",
                    stacklevel=2,
                )

    def _split(self, split: Split) -> Pictures:
        if split not in self._pictures:
            raise ValueError(
                f"there is no split {split!r}, only {', '.join(self._pictures)}; for 'test' set data.test_annotations "
                "and data.test_images"
            )
        return self._pictures[split]

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

    def _eval_loader(self, split: Split) -> DataLoader:
        dataset = EvalDataset(self._split(split), self.size)
        return self._loader(dataset, ShardSampler(len(dataset), *self._place()), self.val_batch_size)

    def _loader(self, dataset: Dataset, sampler: Sampler, batch_size: int) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=collate,
            worker_init_fn=init_worker,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def _read_splits(root: Path, files: dict[str, tuple[str, str]], single_cls: bool, on_bad_image: str) -> dict[str, Pictures]:
    found = {split: read_coco(root / name, root / folder) for split, (name, folder) in files.items()}
    for annotations in found.values():
        check_same_classes(found["train"], annotations)
    if single_cls:
        found = {split: annotations.as_single_class() for split, annotations in found.items()}
    return {split: Pictures(annotations, on_bad_image) for split, annotations in found.items()}
