"""Write the data of the study of pre-training (docs/pretraining-study.md): ``python -m benchmarks.pretraining.sources``.

It writes sets of images for classification, as FOLDER/train/<class>/*.png and FOLDER/val/<class>/*.png, into ``--out``:

    much            fractals by iterated function systems, 256 classes of 128 images (arXiv:2101.08515)
    little          a sixteenth of them: the first 64 classes, and of each the first 32 images
    openclipart     drawings in 54 topics, at most 60 of each, from Debian's package openclipart-png. It is fetched by its
                    name (131 MB), or given as ``--package FILE.deb``, and unpacked into ``--unpacked``
    single_shapes   drawn shapes, 12 classes: the labeled set where that package cannot be had

A set that exists stays as it is. ``--toy`` writes very small sets, to try the commands. ``--speed`` only measures how many
fractals are drawn in a second.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from benchmarks.common import option_parser
from benchmarks.pretraining import openclipart
from benchmarks.pretraining.fractals import SPLITS, Fractals, draw_fractal
from benchmarks.pretraining.settings import FRACTAL_LICENSE, FULL, LITTLE, MUCH, TOY, Sizes
from data.shapes.single import KINDS, draw_single
from detector.files import read_json

OPENCLIPART, SINGLE_SHAPES = "openclipart", "single_shapes"
LABELED = (OPENCLIPART, SINGLE_SHAPES)
MANIFEST = "manifest.json"  # written last: a folder with it is whole
VERSION = 1  # raise it whenever the bytes of a set change
SEED = 0  # of the fractals and shapes
FEWEST_BYTES = [cv2.IMWRITE_PNG_COMPRESSION, 4]


class Sample(NamedTuple):
    """An image and the class whose folder it belongs to."""

    split: str
    name: str  # of the class
    number: int  # of the image in its class and split
    image: np.ndarray  # (H, W, 3) uint8, BGR


def fractal_samples(classes: int, train_images: int, val_images: int, side: int) -> Iterator[Sample]:
    """Yield fractals; both numbers of images are those of one class."""
    for split, number in zip(SPLITS, (train_images, val_images)):
        for label in range(classes):
            for index in range(number):
                yield Sample(split, f"system_{label:04d}", index, draw_fractal(SEED, label, split, index, side))


def clipart_samples(drawings: Path, classes: int, images: int, side: int) -> Iterator[Sample]:
    """Yield at most ``images`` drawings of each topic: a third of them for validation."""
    for topic, paths in list(openclipart.topics(drawings).items())[:classes]:
        for number, path in enumerate(paths[:images]):
            yield Sample(split_of(number), topic.replace("/", "-"), number, openclipart.read_drawing(path, side))


def shape_samples(classes: int, images: int, side: int) -> Iterator[Sample]:
    """Yield ``images`` drawn shapes of each class: a third of them for validation."""
    for kind in KINDS[:classes]:
        for number in range(images):
            split = split_of(number)
            yield Sample(split, kind, number, draw_single(kind, SEED, split, number * len(KINDS) + KINDS.index(kind), side))


def split_of(number: int) -> str:
    """Return the split of an image by its number: every third is for validation."""
    return "val" if number % 3 == 2 else "train"


def write_set(root: Path, recipe: dict[str, Any], samples: Callable[[], Iterable[Sample]]) -> dict[str, Any]:
    """Write a set into ``root`` and return its manifest; if it exists already, return the manifest that it has."""
    recipe = json.loads(json.dumps({"version": VERSION, **recipe}))  # as it is read again
    if root.exists():
        manifest = read_json(root / MANIFEST, dict, "an empty --out, so that the set is written anew")
        if {key: manifest.get(key) for key in recipe} != recipe:
            raise ValueError(
                f"{root}: was written by another version, or with other sizes; remove it, or give another --out"
            )
        return manifest
    unfinished = root.with_name(f".{root.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was stopped
    counts = dict.fromkeys(SPLITS, 0)
    classes = set()
    for sample in samples():
        path = unfinished / sample.split / sample.name / f"{sample.number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", sample.image, FEWEST_BYTES)[1].tobytes())
        counts[sample.split] += 1
        classes.add(sample.name)
    manifest = recipe | {"images": counts, "classes": sorted(classes)}
    (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    unfinished.rename(root)
    return manifest


def fractal_set(out: Path, amount: str, sizes: Sizes) -> dict[str, Any]:
    """Write the fractals of an amount (little, much)."""
    numbers = (*getattr(sizes, amount), sizes.val_images, sizes.image_side)
    recipe = {"source": "fractals", "license": FRACTAL_LICENSE, "numbers": numbers}
    return write_set(out / amount, recipe, lambda: fractal_samples(*numbers))


def clipart_set(out: Path, sizes: Sizes, unpacked: Path, package: Path | None) -> dict[str, Any]:
    """Write the drawings by topic."""
    numbers = (*sizes.labeled, sizes.image_side)
    recipe = {"source": openclipart.PACKAGE, "license": openclipart.LICENSE, "numbers": numbers}
    return write_set(out / OPENCLIPART, recipe, lambda: clipart_samples(openclipart.fetch(unpacked, package), *numbers))


def shape_set(out: Path, sizes: Sizes) -> dict[str, Any]:
    """Write drawn shapes, as many in all as there can be drawings."""
    classes = min(sizes.labeled[0], len(KINDS))
    numbers = (classes, sizes.labeled[0] * sizes.labeled[1] // classes, sizes.image_side)
    recipe = {"source": "shapes", "license": FRACTAL_LICENSE, "numbers": numbers}
    return write_set(out / SINGLE_SHAPES, recipe, lambda: shape_samples(*numbers))


def print_speed(num_images: int = 500) -> None:
    """Print how many fractals are drawn in a second, of classes whose systems are known and of new ones."""
    images = Fractals(num_images // 20, 20)
    for what in ("with the search of the systems", "of known systems"):
        started = time.process_time()
        for n in range(len(images)):
            images[n]
        print(f"{len(images) / (time.process_time() - started):.0f} images/s of one thread, {what}")


def main() -> None:
    """Write the sets that are asked for and print what they have."""
    sets = [LITTLE, MUCH, OPENCLIPART]
    folders = {"out": Path("datasets/pretraining"), "unpacked": Path("datasets/openclipart-png"), "package": Path()}
    parser = option_parser(__doc__, **folders, sets=sets, toy=False, speed=False)
    args = parser.parse_args()
    if args.speed:
        return print_speed()
    sizes = TOY if args.toy else FULL
    writers: dict[str, Callable[[], dict[str, Any]]] = {
        LITTLE: partial(fractal_set, args.out, LITTLE, sizes),
        MUCH: partial(fractal_set, args.out, MUCH, sizes),
        OPENCLIPART: partial(clipart_set, args.out, sizes, args.unpacked, args.package if args.package.name else None),
        SINGLE_SHAPES: partial(shape_set, args.out, sizes),
    }
    if unknown := [name for name in args.sets if name not in writers]:
        parser.error(f"--sets {unknown[0]}: no such set; choose from {', '.join(writers)}")
    try:
        for name in args.sets:
            manifest = writers[name]()
            print(f"{args.out / name}: {len(manifest['classes'])} classes, images {manifest['images']}", flush=True)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
