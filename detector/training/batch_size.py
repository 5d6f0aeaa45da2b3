"""Measure how many images of a training step fit into the memory of a GPU, on random batches, before training."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from detector.batch import Batch, Size, Target
from detector.training.classifier_module import ClassifierModule
from detector.training.module import DetectorModule

MAX_BATCH_SIZE = 1024
OBJECTS_PER_IMAGE = 50  # in random batches; the loss of more crowded images needs more memory
DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def fitting_batch_size(peak: Callable[[int], int], limit: int) -> int:
    """Return the largest batch size, up to ``MAX_BATCH_SIZE``, whose training step needs at most ``limit`` bytes.

    ``peak(b)`` runs a step of ``b`` images and returns its peak in bytes, or raises torch.OutOfMemoryError. Memory grows by
    about the same number of bytes per image, so two steps predict the size that fits, and a step of that size checks it.
    The result is exact to a sixteenth. Raises torch.OutOfMemoryError if not even one image fits.
    """
    fitting, fitting_peak = 1, peak(1)
    if fitting_peak > limit:
        needed, usable = fitting_peak / 2**30, limit / 2**30
        raise torch.OutOfMemoryError(f"a step of one image needs {needed:.1f} GiB, of {usable:.1f} to be used")
    too_large, size = MAX_BATCH_SIZE + 1, 2
    while too_large - fitting > max(fitting // 16, 1):
        try:
            size_peak = peak(size)
        except torch.OutOfMemoryError:
            size_peak = limit + 1
        if size_peak > limit:
            too_large = size
            size = (fitting + too_large) // 2
        else:
            bytes_per_image = max((size_peak - fitting_peak) // (size - fitting), 1)
            fitting, fitting_peak = size, size_peak
            predicted = fitting + (limit - fitting_peak) // bytes_per_image
            # At most four times the last size: small steps predict large ones badly.
            size = max(fitting + 1, min(predicted, 4 * fitting, too_large - 1))
    return fitting


def needs_several_images(module: DetectorModule | ClassifierModule, size: Size) -> bool:
    """Return True if the network cannot be trained with one image of ``size`` (height, width) in a batch.

    A BatchNorm that trains needs two values of a channel, and a feature map of 1 x 1 has one an image.
    """
    network = copy.deepcopy(module.model).to("meta")  # shapes without values: it computes nothing
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, *size, device="meta"))
    except Exception as error:  # any other is of a block of the user that does not run without values
        return "more than 1 value per channel" in str(error)  # of torch.nn.functional.batch_norm
    return False


def automatic_batch_size(module: DetectorModule | ClassifierModule, trainer: Trainer, size: Size, fraction: float) -> int:
    """Return how many images of ``size`` (height, width) fit into ``fraction`` of the memory of the Trainer's GPU.

    Raises ValueError for a fraction outside 0..1, several processes or another device, and if not even one image fits.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"--auto_batch_size is {fraction}; expected a fraction of the GPU's memory, above 0 and below 1")
    if trainer.world_size > 1:
        raise ValueError("--auto_batch_size works on one device; measure there, then give data.batch_size for all")
    try:
        batch_size = cuda_batch_size(module, size, trainer.precision, trainer.strategy.root_device, fraction)
    except torch.OutOfMemoryError as error:
        raise ValueError(f"--auto_batch_size: {error}; a smaller data.image_size or model.variant needs less") from None
    rank_zero_info(f"data.batch_size {batch_size} fits into {fraction:.0%} of the GPU's memory at {size} px (height, width)")
    return batch_size


def cuda_batch_size(
    module: DetectorModule | ClassifierModule, size: Size, precision: str, device: torch.device, fraction: float = 0.8
) -> int:
    """Return how many images of ``size`` (height, width) fit into ``fraction`` of the memory of a CUDA device.

    A copy of ``module`` takes the steps; ``module`` itself does not change. Optimizer state and averaged weights are
    counted, too. Raises ValueError for another device.
    """
    if device.type != "cuda":
        raise ValueError(f"an automatic batch size needs a CUDA device, and the run is on {device}; give data.batch_size")
    trained = copy.deepcopy(module).train().to(device)
    not_in_step = 3 * sum(p.nbytes for p in trained.parameters())  # averaged weights, and with adamw two moments

    def peak(batch_size: int) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        run_step(trained, batch_size, size, device, precision)
        return torch.cuda.max_memory_reserved(device) + not_in_step

    limit = int(fraction * torch.cuda.get_device_properties(device).total_memory)
    try:
        return fitting_batch_size(peak, limit)
    finally:
        trained.cpu()
        torch.cuda.empty_cache()


def run_step(
    module: DetectorModule | ClassifierModule, batch_size: int, size: Size, device: torch.device | str, precision: str
) -> None:
    """Run a training step of ``module`` on images of noise of ``size`` (height, width), then drop the gradients."""
    if isinstance(module, ClassifierModule):
        class_step(module, random_images(batch_size, size, device), precision)
    else:
        step(module, random_batch(batch_size, size, device), precision)


def random_batch(batch_size: int, size: Size, device: torch.device | str) -> Batch:
    """Return a batch of noise of ``size`` (height, width), with ``OBJECTS_PER_IMAGE`` boxes on each image."""
    height, width = size
    corner = torch.rand(OBJECTS_PER_IMAGE, 2, device=device) * torch.tensor([width / 2, height / 2], device=device)
    boxes = torch.cat([corner, corner + torch.tensor([width / 4, height / 4], device=device)], dim=1)
    labels = torch.zeros(OBJECTS_PER_IMAGE, dtype=torch.int64, device=device)
    targets: list[Target] = [{"boxes": boxes, "labels": labels} for _ in range(batch_size)]
    return {"images": random_images(batch_size, size, device), "targets": targets}


def random_images(batch_size: int, size: Size, device: torch.device | str) -> Tensor:
    """Return images of noise, (B, 3, H, W) uint8, of ``size`` (height, width)."""
    return torch.randint(0, 256, (batch_size, 3, *size), dtype=torch.uint8, device=device)


def step(module: DetectorModule, batch: Batch, precision: str) -> None:
    """Run forward, loss and backward of a training step, then drop the gradients."""
    dtype = DTYPES.get(precision)
    try:
        with torch.autocast(batch["images"].device.type, dtype, enabled=dtype is not None):
            outputs = module(batch["images"])
            height, width = batch["images"].shape[-2:]
            terms = module.loss(outputs, batch["targets"], (height, width), one2many_weight=0.5)
        terms["total"].backward()
    finally:
        module.zero_grad(set_to_none=True)


def class_step(module: ClassifierModule, images: Tensor, precision: str) -> None:
    """Run forward, loss and backward of a training step of a classifier, then drop the gradients."""
    dtype = DTYPES.get(precision)
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    try:
        with torch.autocast(images.device.type, dtype, enabled=dtype is not None):
            logits = module(images)
        F.cross_entropy(logits.float(), labels).backward()
    finally:
        module.zero_grad(set_to_none=True)
