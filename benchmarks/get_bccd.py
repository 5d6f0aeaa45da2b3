"""Convert the blood cells (BCCD, MIT license), which other benchmarks use, to COCO's format: not a benchmark itself.

First ``git clone https://github.com/Shenggan/BCCD_Dataset``, then ``python -m benchmarks.get_bccd`` writes
``datasets/bccd``. The split is that of its authors: 205 images for training, 87 for validation, 72 for tests. ``--source``
is the clone, ``--out`` the folder to write; an existing one stays as it is.
"""

import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.common import option_parser

CATEGORIES = {"WBC": 1, "RBC": 2, "Platelets": 3}


def read_image(path: Path, image_id: int, first_id: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the COCO entries of an image and its objects, whose ids start at ``first_id``, from a Pascal VOC file."""
    root = ElementTree.parse(path).getroot()
    width, height = (int(root.findtext(f"size/{side}", "0")) for side in ("width", "height"))
    image = {"id": image_id, "file_name": f"{path.stem}.jpg", "width": width, "height": height}
    annotations = []
    for number, entry in enumerate(root.iter("object"), start=first_id):
        x1, y1, x2, y2 = (float(entry.findtext(f"bndbox/{side}", "0")) for side in ("xmin", "ymin", "xmax", "ymax"))
        box, category = [x1, y1, x2 - x1, y2 - y1], CATEGORIES[entry.findtext("name", "")]
        annotation = {"id": number, "image_id": image_id, "category_id": category, "bbox": box}
        annotations.append(annotation | {"area": box[2] * box[3], "iscrowd": 0})
    return image, annotations


def convert(source: Path, out: Path) -> None:
    """Write annotations and images of each split into ``out``, which must not exist."""
    (out / "annotations").mkdir(parents=True)
    for split in ("train", "val", "test"):
        images, annotations = [], []
        (out / split).mkdir()
        for image_id, name in enumerate((source / f"BCCD/ImageSets/Main/{split}.txt").read_text().split(), start=1):
            image, objects = read_image(source / f"BCCD/Annotations/{name}.xml", image_id, len(annotations) + 1)
            images.append(image)
            annotations += objects
            shutil.copy(source / f"BCCD/JPEGImages/{name}.jpg", out / split)
        categories = [{"id": id_, "name": name} for name, id_ in CATEGORIES.items()]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (out / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        print(f"{out / split}: {len(images)} images, {len(annotations)} objects")


def main() -> None:
    """Convert the clone in ``--source``."""
    args = option_parser(__doc__, source=Path("BCCD_Dataset"), out=Path("datasets/bccd")).parse_args()
    if not (args.source / "BCCD").is_dir():
        raise SystemExit(f"error: {args.source} is no clone of BCCD_Dataset; give it as --source")
    if args.out.exists():
        raise SystemExit(f"error: {args.out} exists already; remove it, or give another --out")
    convert(args.source, args.out)


if __name__ == "__main__":
    main()
