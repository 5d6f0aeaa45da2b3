"""Cut annotated aerial photographs of trees into a small set that no recipe was chosen on: not a benchmark itself.

First ``pip download --no-deps deepforest==2.1.0`` (MIT license), then ``python -m benchmarks.get_trees`` writes
``datasets/trees``: 115 images of about 224 px for training and 33 for validation, one class. The images of the package are
four scenes of NEON sites. Each is cut evenly, without overlap; a tree that shows less than 0.4 of its box in a tile is not
labeled there. The pixels of a tile decide its split. ``--wheel`` is the file of the package, ``--out`` the folder to write;
an existing one stays as it is.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from benchmarks.common import option_parser

WHEEL = "deepforest-2.1.0-py3-none-any.whl"
SCENES = ("2019_YELL_2_528000_4978000_image_crop2", "2019_YELL_2_541000_4977000_image_crop", "OSBS_029", "SOAP_061")
SIDE = 224  # of a tile, in px, about
LEAST_VISIBLE = 0.4  # share of its box that a tree at the edge of a tile must show
LEAST_SIDE = 4  # px
VAL_SHARE = 0.25
Box = tuple[float, float, float, float]  # of a scene: left, top, right, bottom; of a tile: left, top, width, height


def scene_boxes(content: bytes) -> list[Box]:
    """Return the boxes of a Pascal VOC file. Its pixels are counted from 1, and a box includes its last ones."""
    boxes = []
    for entry in ElementTree.fromstring(content).iter("object"):
        x1, y1, x2, y2 = (float(entry.findtext(f"bndbox/{side}", "0")) for side in ("xmin", "ymin", "xmax", "ymax"))
        boxes.append((x1 - 1, y1 - 1, x2, y2))
    return boxes


def edges(length: int) -> list[int]:
    """Return the edges of the tiles along a side of ``length`` px."""
    parts = max(1, round(length / SIDE))
    return [round(number * length / parts) for number in range(parts + 1)]


def boxes_in_tile(boxes: list[Box], left: int, top: int, right: int, bottom: int) -> Iterator[Box]:
    """Yield the boxes of the trees that a tile shows, clipped, relative to the tile."""
    for x1, y1, x2, y2 in boxes:
        x, y = max(x1, left), max(y1, top)
        width, height = min(x2, right) - x, min(y2, bottom) - y
        if min(width, height) >= LEAST_SIDE and width * height >= LEAST_VISIBLE * (x2 - x1) * (y2 - y1):
            yield x - left, y - top, width, height


def cut(scene: Image.Image, boxes: list[Box]) -> Iterator[tuple[tuple[int, int], Image.Image, list[Box]]]:
    """Yield left and top edge, image and boxes of each tile, row by row."""
    for (top, bottom), (left, right) in product(pairwise(edges(scene.height)), pairwise(edges(scene.width))):
        yield (left, top), scene.crop((left, top, right, bottom)), [*boxes_in_tile(boxes, left, top, right, bottom)]


def split_of(tile: Image.Image) -> str:
    """Return the split that a tile is in."""
    digest = hashlib.sha256(tile.tobytes()).hexdigest()
    return "val" if int(digest[:8], 16) < VAL_SHARE * 16**8 else "train"


def add(content: dict[str, Any], name: str, size: tuple[int, int], boxes: list[Box]) -> None:
    """Add the COCO entries of an image and its objects to ``content``."""
    image_id = len(content["images"]) + 1
    content["images"].append({"id": image_id, "file_name": name, "width": size[0], "height": size[1]})
    for number, box in enumerate(boxes, start=len(content["annotations"]) + 1):
        entry = {"id": number, "image_id": image_id, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        content["annotations"].append(entry)


def convert(wheel: Path, out: Path) -> None:
    """Write annotations and images of both splits into ``out``, which must not exist."""
    contents: dict[str, dict[str, Any]] = {}
    for split in ("train", "val"):
        (out / split).mkdir(parents=True)
        contents[split] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "tree"}]}
    with zipfile.ZipFile(wheel) as archive:
        for name in SCENES:
            scene = Image.open(io.BytesIO(archive.read(f"deepforest/data/{name}.png"))).convert("RGB")
            for (left, top), tile, boxes in cut(scene, scene_boxes(archive.read(f"deepforest/data/{name}.xml"))):
                split, file = split_of(tile), f"{name}_{left}_{top}.jpg"
                tile.save(out / split / file, quality=95)
                add(contents[split], file, tile.size, boxes)
    (out / "annotations").mkdir()
    for split, content in contents.items():
        (out / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        print(f"{out / split}: {len(content['images'])} images, {len(content['annotations'])} objects")


def main() -> None:
    """Cut the scenes in ``--wheel``."""
    args = option_parser(__doc__, wheel=Path(WHEEL), out=Path("datasets/trees")).parse_args()
    if not args.wheel.is_file() or args.wheel.name != WHEEL:
        raise SystemExit(
            f"error: {args.wheel} is missing, or another version than {WHEEL}; "
            "pip download --no-deps deepforest==2.1.0, and give the file as --wheel"
        )
    if args.out.exists():
        raise SystemExit(f"error: {args.out} exists already; remove it, or give another --out")
    convert(args.wheel, args.out)


if __name__ == "__main__":
    main()
