"""How many images of a training step fit into a GPU: measured, before training, on made-up ones."""

import copy
from collections.abc import Callable

import torch

from detector.batch import Batch
from detector.training.module import DetectorModule

MAX_BATCH_SIZE = 1024
OBJECTS_AN_IMAGE = 50  # made up; crowded images need some more memory in the loss
DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def fitting_batch_size(peak: Callable[[int], int], limit: int) -> int:
    """Return the largest batch size, to a sixteenth and at most ``MAX_BATCH_SIZE``, whose step stays below ``limit`` bytes.

    ``peak(b)`` runs a step of ``b`` images and returns its peak in bytes, or raises torch.OutOfMemoryError. Memory is a
    constant and so much for each image: steps of growing size tell both, and what they promise is tried out. Raises
    torch.OutOfMemoryError if not even one image fits.
    """
    smaller, before = 1, peak(1)
    if before > limit:
        raise torch.OutOfMemoryError(
            f"a step of one image needs {before / 2**30:.1f} GiB, of {limit / 2**30:.1f} to be used"
        )
    larger, size = MAX_BATCH_SIZE + 1, 2  # it does not fit, or is not wanted
    while larger - smaller > max(smaller // 16, 1):
        try:
            now = peak(size)
        except torch.OutOfMemoryError:
            now = limit + 1
        if now > limit:
            larger = size
            size = (smaller + larger) // 2
        else:
            an_image = max((now - before) // (size - smaller), 1)
            smaller, before = size, now
            # What the slope promises, but no more than fourfold at a time: small steps tell little about large ones.
            size = max(smaller + 1, min(smaller + (limit - now) // an_image, 4 * smaller, larger - 1))
    return smaller


def cuda_batch_size(
    module: DetectorModule, size: tuple[int, int], precision: str, device: torch.device, share: float = 0.8
) -> int:
    """Return how many images of ``size`` (height, width) fit into ``share`` of the memory of a CUDA device.

    A copy of the module is trained on; the module stays as and where it is. Optimizer and averaged weights, of which a run
    has a copy each, are counted. Raises ValueError for another device.
    """
    if device.type != "cuda":
        raise ValueError(f"an automatic batch size needs a CUDA device, and the run is on {device}; give data.batch_size")
    trained = copy.deepcopy(module).train().to(device)
    spare = 3 * sum(p.numel() * p.element_size() for p in trained.parameters())  # average, and two moments with adamw

    def peak(batch_size: int) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        step(trained, random_batch(batch_size, size, device), precision)
        return torch.cuda.max_memory_reserved(device) + spare

    limit = int(share * torch.cuda.get_device_properties(device).total_memory)
    try:
        return fitting_batch_size(peak, limit)
    finally:
        trained.cpu()
        torch.cuda.empty_cache()


def random_batch(batch_size: int, size: tuple[int, int], device: torch.device | str) -> Batch:
    """Return a batch of noise with ``OBJECTS_AN_IMAGE`` boxes on each image."""
    height, width = size
    corner = torch.rand(OBJECTS_AN_IMAGE, 2, device=device) * torch.tensor([width / 2, height / 2], device=device)
    boxes = torch.cat([corner, corner + torch.tensor([width / 4, height / 4], device=device)], dim=1)
    labels = torch.zeros(OBJECTS_AN_IMAGE, dtype=torch.int64, device=device)
    images = torch.randint(0, 256, (batch_size, 3, height, width), dtype=torch.uint8, device=device)
    return {"images": images, "targets": [{"boxes": boxes, "labels": labels} for _ in range(batch_size)]}


def step(module: DetectorModule, batch: Batch, precision: str) -> None:
    """Do what a training step does to memory: forward, loss, backward; gradients are dropped afterwards."""
    dtype = DTYPES.get(precision)
    try:
        with torch.autocast(batch["images"].device.type, dtype, enabled=dtype is not None):
            outputs = module(batch["images"])
            terms = module.loss(outputs, batch["targets"], batch["images"].shape[-2:], 0.5)
        terms["total"].backward()
    finally:
        module.zero_grad(set_to_none=True)
