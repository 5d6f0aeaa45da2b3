"""Measure the memory and the time of an index of as many images as ImageNet-22K has, with made-up paths.

``python -m benchmarks.image_index`` (about 5 minutes, 6 GB for the lists) writes ``benchmarks/results/image_index.json``.
Each row is measured in a new process, without image files:

1. ``arrays``: the index of ImageFolderDataModule, with a tenth of the images held out by a hash of their paths.
2. ``lists``: what torchvision's ImageFolder keeps, a list of (path, label) with Python's own objects.

Then an epoch of the sampler is started, and two worker processes that have been forked read the path and label of
``--reads`` random images each. Measured is the growth of their own memory (private pages, Linux): reading Python objects
writes their reference counts, so that each worker gets its own copy of them.
"""

import os
import time
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import in_new_process, option_parser, peak_mb, print_table, write
from data.classification.class_splits import SplitBuilder
from data.classification.index import ImageIndex, IndexBuilder
from data.sampler import EpochOrder, EpochSampler

ROOT = "/datasets/imagenet22k/train"
BATCH = 1024
Entry = Callable[[int], tuple[str, int]]  # path and label of an image


def made_up_classes(num_images: int, num_classes: int) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yield the folder and the file names of each class; names are like those of ImageNet, n01440764_10026.JPEG."""
    for label in range(num_classes):
        count = num_images * (label + 1) // num_classes - num_images * label // num_classes
        folder = b"n%08d" % (1440764 + 37 * label)
        yield folder, [b"%s_%d.JPEG" % (folder, n) for n in range(1, count + 1)]


def array_index(num_images: int, num_classes: int) -> ImageIndex:
    """Return the training index, built as from class folders."""
    builder = SplitBuilder(IndexBuilder(Path(ROOT)), IndexBuilder(Path(ROOT)), 0.1)
    for label, (folder, names) in enumerate(made_up_classes(num_images, num_classes)):
        builder.add(label, [(folder, names)], [folder.decode()])
    builder.val.build()
    return builder.train.build()


def path_list(num_images: int, num_classes: int) -> list[tuple[str, int]]:
    """Return the paths and labels as Python objects."""
    return [
        (f"{ROOT}/{folder.decode()}/{name.decode()}", label)
        for label, (folder, names) in enumerate(made_up_classes(num_images, num_classes))
        for name in names
    ]


def measure(kind: str, num_images: int, num_classes: int, reads: int) -> dict[str, float]:
    """Return the seconds and megabytes of one kind of index; call it in a new process."""
    before, start = peak_mb(), time.perf_counter()
    if kind == "arrays":
        index = array_index(num_images, num_classes)
        length, entry = len(index), lambda n: (str(index.path(n)), index.label(n))
    else:
        paths = path_list(num_images, num_classes)
        length, entry = len(paths), paths.__getitem__
    result = {"images": length, "seconds to build": time.perf_counter() - start, "MB, at most": peak_mb() - before}
    result["MB kept"] = resident_mb() - before
    sampler, start = EpochSampler(EpochOrder(length, seed=0, pool=0), BATCH, [(224, 224)]), time.perf_counter()
    keys = iter(sampler)
    next(keys)
    result["seconds to start an epoch"] = time.perf_counter() - start
    start = time.perf_counter()
    rate = sum(1 for key in islice(keys, reads) if entry(key.index)) / (time.perf_counter() - start)
    result["thousand keys and paths per second"] = rate / 1e3
    result["MB kept with the sampler"] = resident_mb() - before
    result["MB of each worker's own"] = worker_mb(entry, length, reads)
    return result


def worker_mb(entry: Entry, length: int, reads: int, num_workers: int = 2) -> float:
    """Return the mean growth of the private memory of forked processes that read random entries."""
    context = get_context("fork")
    connections = [context.Pipe(duplex=False) for _ in range(num_workers)]
    workers = [
        context.Process(target=_read_entries, args=(entry, length, reads, seed, sender))
        for seed, (_, sender) in enumerate(connections)
    ]
    for worker in workers:
        worker.start()
    growth = [receiver.recv() for receiver, _ in connections]
    for worker in workers:
        worker.join()
    return sum(growth) / num_workers


def _read_entries(entry: Entry, length: int, reads: int, seed: int, sender: Any) -> None:
    indices = np.random.default_rng(seed).integers(length, size=reads)
    before = private_mb()
    for n in indices:
        entry(int(n))
    sender.send(private_mb() - before)


def resident_mb() -> float:
    """Return the memory of this process in MB (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def private_mb() -> float:
    """Return the memory that this process shares with no other, in MB (Linux)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def main() -> None:
    """Measure, print and write the results."""
    args = option_parser(__doc__, images=14_197_122, classes=21_841, reads=200_000, kinds=["arrays", "lists"]).parse_args()
    results = {kind: in_new_process(measure, kind, args.images, args.classes, args.reads) for kind in args.kinds}
    names = list(next(iter(results.values())))
    rows = [(name, *(f"{result[name]:,.1f}" for result in results.values())) for name in names]
    print_table(("", *results), *rows)
    write("image_index", vars(args) | {"results": results})


if __name__ == "__main__":
    main()
