"""Is a trained dynamic detector dynamic, and does its AP depend on it?

``python -m benchmarks.routing runs/dyn_n/best.ckpt`` prints two tables for the validation images of the training. Other data
are given as ``--config FILE``, whose section ``data`` is used, or as ``--root DIR``, a set laid out as in
``configs/data/bccd.yaml``. For each dynamic layer:

    variation    standard deviation of the routing weights between images, mean over units
    image share  part of the variance of the routing weights that is between images; 0: the same for all images
    rho          variation of the kernel: mean |kernel of the image - mean kernel|^2 / mean |kernel|^2
    output       the same for the output: |y - y with the mean kernel|^2 / |y - mean y|^2
    d, cosine    distance of the experts relative to their size (1.41: independent), and their mean cosine
    size         residual layers: |sum of weighted changes| / |plain kernel|
    source       how well the routing tells where the image is from, if the images in the annotation file have a "source":
                 information of the best unit as part of the most possible, less chance; share of images whose source the 5
                 nearest by routing tell, the same by the inputs of the router, and by always guessing the most frequent one
    class        the class that the routing tells most about within sources: its information, and p

Then the AP: as is; with mean kernels (averaged), without and with recomputed normalization; with the routing of other images
(shuffled); and how much is lost, with the 95 % interval over 200 bootstrap samples of the images. With sources, also the
macro AP, the mean over sources, and shuffles within and across sources. If shuffling costs nothing, the layers vary, but it
does not matter. If it costs across sources only, they are a switch between domains.

``--branch one2many`` takes the AP with NMS in place of the NMS-free one, ``--source_key camera`` another field of the images
than "source".

The numbers are written to routing.json beside the checkpoint, and are then in the report of the run.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import option_parser, print_table
from benchmarks.diagnosis import NUM_ORDERS, NUM_TRAIN, diagnose
from data import CocoDataModule
from data.splits import COCO_TRAIN, COCO_VAL
from detector import DetectorModule
from detector.config_files import read_config
from detector.evaluation.ids import Id, checked_id
from detector.files import atomic_write, check_output, read_json
from detector.network.head import BRANCHES
from detector.report.routing import ap_table, layer_table
from detector.runs.folder import CONFIG, ROUTING_NUMBERS, numbered_files
from detector.weights import read_weights

SOURCE_KEY = "source"
BCCD = {"train_images": "train", "val_images": "val"}  # the layout of configs/data/bccd.yaml
BCCD |= {f"{split}_annotations": f"annotations/instances_{split}.json" for split in ("train", "val")}
DATA_SETTINGS = ("root", *BCCD, "val_split", "single_cls", "on_bad_image")  # those that matter here


def data_settings(root: Path | None, configs: Sequence[Path], run: Path) -> dict[str, Any]:
    """Return arguments of CocoDataModule: for ``root``, else of ``configs``, in which later ones win, else of ``run``.

    Raises ValueError for a root and configurations, and if none of the three names the data.
    """
    if root is not None:
        if configs:
            raise ValueError(f"data are given twice, as --root {root} and as --config {configs[0]}; leave out one of them")
        return BCCD | {"root": str(root)}
    configs = configs or numbered_files(run, CONFIG)[-1:]  # of the last start
    if not configs:
        raise ValueError(f"{run} has no {CONFIG} that names the data; give --root DIR or --config FILE")
    settings: dict[str, Any] = {}
    for path in configs:
        settings |= read_config(path).get("data") or {}
    if "root" not in settings:
        raise ValueError(f"--config {' '.join(map(str, configs))} has no data.root; give the file that has it, too")
    return {name: value for name, value in settings.items() if name in DATA_SETTINGS}


def read_sources(annotations: Path, key: str = SOURCE_KEY) -> dict[Id, str]:
    """Return ``key`` of each image in an annotation file, by image id; without the images that have none."""
    images = read_json(annotations, dict, "a COCO annotation file")["images"]
    return {
        checked_id(image["id"], f"{annotations}: image"): str(image[key]) for image in images if image.get(key) is not None
    }


def sources_of_validation(settings: dict[str, Any], key: str, is_held_out: bool = False) -> dict[Id, str]:
    """Return the sources of the validation images of a data module with ``settings``, see ``read_sources``.

    ``is_held_out`` says that they are training images. Empty for data that are not COCO files, which have no sources, and
    for several files, whose images may be renumbered. Raises ValueError if there is none and ``key`` is not the usual one.
    """
    root = Path(settings["root"])
    name, default = ("train_annotations", COCO_TRAIN) if is_held_out else ("val_annotations", COCO_VAL)
    files = settings.get(name, default)
    paths = [root / file for file in ([files] if isinstance(files, str) else files or [])]
    is_one_file = len(paths) == 1 and paths[0].suffix == ".json" and paths[0].is_file()
    sources = read_sources(paths[0], key) if is_one_file else {}
    if not sources and key != SOURCE_KEY:
        where = paths[0] if is_one_file else f"{root}, which has no single COCO file for validation,"
        raise ValueError(f"no image in {where} has {key!r}; leave out --source_key")
    return sources


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = option_parser(
        __doc__,
        source_key=SOURCE_KEY,
        orders=NUM_ORDERS,
        train_images=NUM_TRAIN,
        branch=BRANCHES[0],
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--root", type=Path, help="folder of the data, laid out as in configs/data/bccd.yaml")
    parser.add_argument("--config", type=Path, action="append", default=[], help="by default that of the training")
    parser.add_argument("--image_size", type=int, help="by default the checkpoint's")
    parser.add_argument("--out", type=Path, help="by default routing.json beside the checkpoint; it is replaced")
    args = parser.parse_args(arguments)
    try:
        numbers = measure(args)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for table in (layer_table(numbers), ap_table(numbers)):
        print_table(table.head, *table.rows)
        print()
    print(f"{numbers['images']} images; written to {numbers['file']}")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Diagnose the checkpoint and write the numbers."""
    out: Path = args.out or args.checkpoint.parent / ROUTING_NUMBERS
    check_output(out, overwrite=True)
    if not os.access(out.parent, os.W_OK):
        raise ValueError(f"{out.parent}: no permission to write {out.name}; give --out FILE")
    if args.branch not in BRANCHES or args.orders < 1 or args.train_images < 1:
        raise ValueError(f"--branch is one of {', '.join(BRANCHES)}; --orders and --train_images are at least 1")
    if not args.checkpoint.is_file() or not read_weights(args.checkpoint).is_checkpoint:
        raise ValueError(f"{args.checkpoint} is no checkpoint of a training; expected a file such as runs/dyn_n/best.ckpt")
    settings = data_settings(args.root, args.config, args.checkpoint.parent)
    module = DetectorModule.load_from_checkpoint(args.checkpoint, map_location="cpu", weights_only=True).eval()
    size = args.image_size or module.hparams.image_size
    if size is None:
        raise ValueError(f"{args.checkpoint} does not hold the size of its input; give --image_size")
    size_and_range = {"image_size": size, "sixteen_bit_range": module.hparams.sixteen_bit_range}
    data = CocoDataModule(**settings, **size_and_range, num_workers=0)
    sources = sources_of_validation(settings, args.source_key, is_held_out=data.val_split is not None)
    numbers = diagnose(module, data, sources, args.branch, args.orders, args.train_images, log=print)
    numbers = {"checkpoint": str(args.checkpoint), "data": settings["root"], "image_size": list(data.size)} | numbers
    with atomic_write(out) as unfinished:
        unfinished.write_text(json.dumps(numbers, indent=1) + "\n")
    return numbers | {"file": str(out)}


if __name__ == "__main__":
    main()
