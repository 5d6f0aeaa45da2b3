"""What all data modules share: positions for resuming, shares of processes, loaders that name images in errors."""

import math
import warnings
from collections.abc import Mapping
from typing import Any, Protocol, get_args

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from data.reader import BadImages
from data.sampler import SampleKey, ShardSampler
from data.watched_loader import WORKER_DEATH, DescribedDataset, WatchedDataset, WatchedLoader
from data.workers import check_temporary_folder, init_worker, limited_workers
from detector.arguments import as_whole_number
from detector.imaging.sixteen_bits import SampleRange, as_sample_range
from detector.text import plural


class SkippingReader(Protocol):
    """A reader of the images of a split that knows which ones it has skipped."""

    def skipped_paths(self) -> list[str]: ...


class BaseDataModule(LightningDataModule):
    """A data module whose training can be resumed at any batch, and whose errors name the image.

    The samples of an epoch depend on the seed, not on the number of workers and processes. ``batch_size`` is per device.
    Arguments are checked here; messages call them ``data.<name>``.
    """

    def __init__(
        self,
        batch_size: int,
        val_batch_size: int | None,
        num_workers: int,
        seed: int,
        on_bad_image: BadImages,
        sixteen_bit_range: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.batch_size, self.val_batch_size = batch_size, batch_size if val_batch_size is None else val_batch_size
        self.num_workers, self.seed = num_workers, seed
        for name, least in (("batch_size", 1), ("val_batch_size", 1), ("num_workers", 0), ("seed", 0)):
            as_whole_number(getattr(self, name), f"data.{name}", least)
        check_choice("on_bad_image", on_bad_image, get_args(BadImages))
        if sixteen_bit_range is not None:
            sixteen_bit_range = as_sample_range(sixteen_bit_range, "data.sixteen_bit_range")
        self.sixteen_bit_range: SampleRange | None = sixteen_bit_range
        if num_workers:
            check_temporary_folder()
            self.num_workers = limited_workers(num_workers)
        self._readers: Mapping[str, SkippingReader] = {}  # by split; subclasses fill it
        self._resume_position = (0, 0)  # the next training starts in this epoch, and each process skips so many samples
        self._watched: list[WatchedDataset] = []  # the datasets of all loaders

    @property
    def num_train_samples(self) -> int:
        """The number of samples in a training epoch, over all processes."""
        raise NotImplementedError

    def smallest_batch(self, num_replicas: int, limit: int | float | None = None) -> int:
        """Return the images of the smallest training batch of a process; ``limit`` is ``limit_train_batches``."""
        samples, size = math.ceil(self.num_train_samples / num_replicas), self.batch_size
        last = samples % size
        reached = limit is None or (limit >= 1 if isinstance(limit, float) else limit > samples // size)
        return last if last and reached and not self._drops_last(samples) else min(size, samples)

    def num_train_batches(self, num_replicas: int) -> int:
        """Return the batches of a training epoch in each of ``num_replicas`` processes."""
        samples = math.ceil(self.num_train_samples / num_replicas)
        return math.ceil(samples / self.batch_size) - self._drops_last(samples)

    def _drops_last(self, num_samples: int) -> bool:
        """Return True if the last, smaller batch of a process's ``num_samples`` is left out."""
        return False

    @property
    def skipped(self) -> dict[str, list[str]]:
        """The images that could not be decoded so far, by split; only those of this process and its workers."""
        return {split: reader.skipped_paths() for split, reader in self._readers.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the training data for a checkpoint: the epoch, and how many of its samples are done.

        It counts the samples that all processes together have trained on; prefetched samples do not count.
        """
        if self.trainer is None:
            return {}
        epochs = self.trainer.fit_loop.epoch_progress
        started = epochs.current.started  # type: ignore[attr-defined]  # Lightning declares a base class
        batches = self.trainer.fit_loop.epoch_loop.batch_progress
        global_batch_size = self.batch_size * self.trainer.world_size
        # Checkpoints are written before Lightning counts an epoch as completed, so ask if its last batch is done.
        if batches.is_last_batch or started == 0:
            return {"epoch": started, "samples": 0, "step_batch": global_batch_size}
        return {
            "epoch": started - 1,
            "samples": batches.current.processed * global_batch_size,  # type: ignore[attr-defined]  # as above
            "step_batch": global_batch_size,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start the next training at the position in ``state_dict``.

        Raises ValueError for the middle of an epoch if the batch size has changed: the rest of the epoch is then unknown.
        """
        trainer, epoch, samples = self.trainer, state_dict["epoch"], state_dict["samples"]
        if trainer is not None and trainer.state.fn != "fit":  # evaluating a checkpoint must not move a later fit
            return
        processes = 1 if trainer is None else trainer.world_size
        if samples and trainer is not None and trainer.overfit_batches:  # type: ignore[attr-defined]  # set by a connector
            raise ValueError(
                f"the checkpoint is from the middle of epoch {epoch}, and trainer.overfit_batches always starts with the "
                "first image: start this run from the beginning"
            )
        if samples and state_dict.get("step_batch") != self.batch_size * processes:
            raise ValueError(
                f"the checkpoint is from the middle of epoch {epoch}, with {state_dict.get('step_batch')} images in a batch "
                f"of all processes; here they are {self.batch_size} x {processes}. Resume with as many, or from the end of "
                "an epoch"
            )
        self._resume_position = epoch, samples // processes

    def on_exception(self, exception: BaseException) -> None:
        """Add the image to the error of a worker that died while the main process computed a step."""
        message = str(exception).strip()
        if message.startswith(WORKER_DEATH) and "was at" not in message:
            for dataset in self._watched:
                if dataset.has_worker_in(message):
                    exception.add_note(dataset.describe_workers(message))

    def teardown(self, stage: str) -> None:
        for split, paths in self.skipped.items():
            if paths:
                images = plural(len(paths), "image could not be decoded and was", "images could not be decoded and were")
                warnings.warn(f"{split}: {images} skipped, e.g. {', '.join(paths[:3])}", stacklevel=2)

    def _replicas_and_rank(self) -> tuple[int, int]:
        """Return the number of processes and the rank of this one."""
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)

    def _take_resume_position(self) -> tuple[int, int]:
        """Return the position at which the training starts, and let the one after it start at the beginning."""
        position, self._resume_position = self._resume_position, (0, 0)
        return position

    def _shard_sampler(self, split: str, order: np.ndarray, sizes: np.ndarray) -> ShardSampler:
        """Return the sampler of this process's share in evaluating a split. Raises ValueError for too few images."""
        num_replicas, rank = self._replicas_and_rank()
        if len(order) < num_replicas:  # an error in one process alone would leave the others waiting
            raise ValueError(
                f"{split} has {plural(len(order), 'image')} for {num_replicas} processes; use as many "
                "trainer.devices at most"
            )
        return ShardSampler(order, sizes, num_replicas, rank)

    def _loader(
        self,
        dataset: DescribedDataset,
        sampler: Sampler[SampleKey],
        batch_size: int,
        collate_fn: Any,
        drop_last: bool = False,
    ) -> DataLoader:
        if self.trainer is not None:  # the processes of this machine share its cores
            self.num_workers = limited_workers(self.num_workers, self.trainer.world_size // self.trainer.num_nodes)
        self._watched.append(WatchedDataset(dataset, self.num_workers))
        return WatchedLoader(
            self._watched[-1],
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=collate_fn,
            drop_last=drop_last,
            worker_init_fn=init_worker,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise ValueError if ``data.<name>`` is none of ``choices``."""
    if value not in choices:
        raise ValueError(f"data.{name} is {value!r}; expected one of {', '.join(choices)}")
