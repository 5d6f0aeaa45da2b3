"""Images with an EXIF orientation, above all square ones, whose size does not show that they are to be turned."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from data import Augmentation, CocoDataModule
from data.check.files import check_files
from data.check.findings import Splits
from data.check.report import _sample_image
from data.images import stored_size
from data.yolo import read_yolo
from detector import build_detector
from detector.batch import Size
from detector.predict import Predictor
from detector.predict.predictor import as_array
from detector.weights.info import WeightsInfo

STILL = Augmentation(mosaic=0, scale=0, translate=0, fliplr=0, hsv=(0, 0, 0))
BOX = (0.125, 0.125, 0.5, 0.25)  # x y width height of the object, as shares of the upright image: no turn gives it again
INPUT = 64
NUM = 8  # images of each kind: one for each EXIF orientation


def stored_pixels(shown: np.ndarray, orientation: int) -> np.ndarray:
    """Return the pixels to store so that a viewer that applies ``orientation`` shows ``shown``."""
    inverse = {6: 8, 8: 6}.get(orientation, orientation)  # a quarter turn is undone by the other one
    image = Image.fromarray(shown)
    image.getexif()[0x0112] = inverse
    return np.asarray(ImageOps.exif_transpose(image))


def shown_pixels(height: int, width: int) -> np.ndarray:
    """Return the upright image: dark, with the object in red."""
    pixels = np.full((height, width, 3), 40, np.uint8)
    x, y, w, h = (round(share * side) for share, side in zip(BOX, (width, height, width, height)))
    pixels[y : y + h, x : x + w] = (220, 30, 30)
    return pixels


def write_images(folder: Path, size: Size, suffix: str) -> None:
    """Write one image for each EXIF orientation, which all show the same."""
    folder.mkdir(parents=True, exist_ok=True)
    for orientation in range(1, NUM + 1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        pixels = stored_pixels(shown_pixels(*size), orientation)
        Image.fromarray(pixels).save(folder / f"{orientation}.{suffix}", exif=exif, quality=98)


# Square and oblong; not larger than the input, and so much larger that a JPEG is decoded at a half, or at a quarter.
KINDS = {
    "square": ((64, 64), "png"),
    "square JPEG": ((64, 64), "jpg"),
    "square JPEG at a half": ((128, 128), "jpg"),
    "square JPEG at a quarter, odd": ((263, 263), "jpg"),
    "oblong": ((48, 64), "png"),
    "oblong JPEG at a quarter": ((192, 256), "jpg"),
}


@pytest.fixture(params=KINDS)
def upright_set(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Size, str]:
    """A data.yaml with upright YOLO labels for images of all orientations, their upright size, and their suffix."""
    size, suffix = KINDS[request.param]
    write_images(tmp_path / "images", size, suffix)
    (tmp_path / "labels").mkdir()
    x, y, w, h = BOX
    for orientation in range(1, NUM + 1):
        (tmp_path / f"labels/{orientation}.txt").write_text(f"0 {x + w / 2} {y + h / 2} {w} {h}\n")
    (tmp_path / "data.yaml").write_text("{train: images, val: images, names: [red]}")
    return tmp_path / "data.yaml", size, suffix


def expected_canvas(size: Size) -> np.ndarray:
    """Return the upright image as the network gets it: letterboxed, gray around."""
    height, width = (side * INPUT // max(size) for side in size)
    canvas = np.full((INPUT, INPUT, 3), 114, np.uint8)
    top, left = (INPUT - height) // 2, (INPUT - width) // 2
    canvas[top : top + height, left : left + width] = cv2.resize(
        shown_pixels(*size), (width, height), interpolation=cv2.INTER_AREA
    )
    return canvas


def assert_upright(image: np.ndarray, box: list[float], size: Size) -> None:
    """Check the pixels of a sample, and its box."""
    assert np.abs(image.astype(int) - expected_canvas(size)).mean() < 4  # a turned image differs by 25 and more
    height, width = (side * INPUT // max(size) for side in size)
    x, y = BOX[0] * width + (INPUT - width) / 2, BOX[1] * height + (INPUT - height) / 2
    np.testing.assert_allclose(box, (x, y, x + BOX[2] * width, y + BOX[3] * height), atol=0.6)


def test_training_sees_upright_images_and_their_boxes(upright_set: tuple[Path, Size, str]) -> None:
    path, size, _ = upright_set
    for cache in ("none", "recent", "ram"):
        data = CocoDataModule(str(path), image_size=INPUT, batch_size=NUM, num_workers=0, augment=STILL, cache=cache)
        assert data.annotations["train"].sizes.tolist() == [list(size)] * NUM
        (batch,) = data.train_dataloader()
        for image, target in zip(batch["images"], batch["targets"], strict=True):
            (box,) = target["boxes"].tolist()
            assert_upright(image.permute(1, 2, 0).numpy(), box, size)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    model = build_detector("yolo26_n", 1, width=0.125, depth=0.33)
    return Predictor(model, WeightsInfo("yolo26_n"), image_size=INPUT)


def test_evaluation_and_prediction_see_the_same_upright_images(
    upright_set: tuple[Path, Size, str], predictor: Predictor
) -> None:
    path, size, suffix = upright_set
    data = CocoDataModule(str(path), image_size=INPUT, batch_size=NUM, num_workers=0)
    (batch,) = data.val_dataloader()
    for image, target in zip(batch["images"], batch["targets"], strict=True):
        (box,) = target["boxes"].tolist()
        assert_upright(image.permute(1, 2, 0).numpy(), box, size)
    assert data.ground_truth("val")["info"]["upright"] is True  # the report turns the images, too
    files = [path.parent / f"images/{orientation}.{suffix}" for orientation in range(1, NUM + 1)]
    assert {stored_size(file) for file in files} == {size}
    for images in (files, [Image.open(file) for file in files]):
        prepared, placements = predictor.prepare([as_array(image) for image in images])
        np.testing.assert_allclose(prepared * 255, batch["images"], atol=8 if suffix == "jpg" else 0.01)
        assert placements == [target["letterbox"] for target in batch["targets"]]


def test_the_page_of_the_data_check_shows_upright_images_and_their_boxes(upright_set: tuple[Path, Size, str]) -> None:
    splits: Splits = read_yolo(upright_set[0])
    first, *others = (_sample_image(("train", n), splits).pixels for n in range(NUM))
    for other in others:
        assert np.abs(first.astype(int) - other).mean() < 2


@pytest.mark.parametrize("size", [(64, 64), (48, 64), (128, 256)], ids=str)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_coco_annotations_of_stored_images_stay_with_the_stored_pixels(tmp_path: Path, size: Size, suffix: str) -> None:
    """The size on file is that of the stored image. So are the boxes: pycocotools and its users do not look at EXIF."""
    write_images(tmp_path / "images", size, suffix)
    boxes = {n: stored_box(size, n) for n in range(1, NUM + 1)}
    data = coco_data(tmp_path, suffix, {n: stored_pixels(shown_pixels(*size), n).shape[:2] for n in boxes}, boxes)
    assert_boxes_are_red(data, boxes)
    assert data.ground_truth("val")["info"]["upright"] is False


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_coco_annotations_of_upright_images_get_upright_pixels(tmp_path: Path, suffix: str) -> None:
    """The size on file is that of the turned image, which shows only in oblong images with a quarter turn."""
    size: Size = (128, 256)
    write_images(tmp_path / "images", size, suffix)
    boxes = {n: stored_box(size, 1) for n in (1, 5, 6, 7, 8)}
    data = coco_data(tmp_path, suffix, dict.fromkeys(boxes, size), boxes)
    assert_boxes_are_red(data, boxes)


def stored_box(size: Size, orientation: int) -> list[int]:
    """Return x y width height of the object in the stored pixels."""
    red = stored_pixels(shown_pixels(*size), orientation)[..., 0] > 200
    ys, xs = red.nonzero()
    return [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]


def coco_data(root: Path, suffix: str, sizes: dict[int, Size], boxes: dict[int, list[int]]) -> CocoDataModule:
    """Return the data of a COCO file with the images ``<n>.<suffix>``, by number, of some sizes and with one box each."""
    images = [{"id": n, "file_name": f"{n}.{suffix}", "height": h, "width": w} for n, (h, w) in sizes.items()]
    annotations = [{"id": n, "image_id": n, "category_id": 1, "bbox": bbox} for n, bbox in boxes.items()]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "red"}]}
    (root / "a.json").write_text(json.dumps(content))
    paths = {"train_annotations": "a.json", "train_images": "images", "val_annotations": "a.json", "val_images": "images"}
    return CocoDataModule(str(root), **paths, image_size=INPUT, batch_size=NUM, num_workers=0, augment=STILL)


def assert_boxes_are_red(data: CocoDataModule, boxes: dict[int, list[int]]) -> None:
    """Check in training and evaluation that the pixels in each box are those of the object, and no others."""
    for loader in (data.train_dataloader(), data.val_dataloader()):
        (batch,) = loader
        assert {target["image_id"] for target in batch["targets"]} == boxes.keys()
        for image, target in zip(batch["images"], batch["targets"], strict=True):
            ((x1, y1, x2, y2),) = target["boxes"].round().int().tolist()
            red = (image[0] > 130) & (image[1] < 100)
            assert red[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].all()
            assert red.sum() <= (x2 - x1 + 2) * (y2 - y1 + 2)


UPRIGHT, STORED = (128, 256), (256, 128)
SIZES: list[tuple[dict[int, Size], list[str]]] = [
    ({1: UPRIGHT}, []),
    ({n: STORED if n >= 5 else UPRIGHT for n in range(1, 9)}, ["7 images have an EXIF rotation, which is not applied"]),
    (
        dict.fromkeys(range(1, 9), UPRIGHT),
        [
            "4 images have an EXIF rotation, which is applied: the size on file is that of the turned image",
            "3 images have an EXIF rotation, which is not applied",
        ],
    ),
    ({6: UPRIGHT}, ["1 image has an EXIF rotation, which is applied"]),
    ({3: (100, 256)}, []),  # of another size, and so an error
]


@pytest.mark.parametrize(
    ("sizes", "findings"), SIZES, ids=["upright", "stored", "turned, as far as it shows", "turned", "error"]
)
def test_the_data_check_tells_which_images_are_turned(tmp_path: Path, sizes: dict[int, Size], findings: list[str]) -> None:
    """Where some images were annotated upright, the others probably were, too, but their size does not show it."""
    write_images(tmp_path / "images", UPRIGHT, "png")
    data = coco_data(tmp_path, "png", sizes, {n: [1, 1, 50, 50] for n in sizes})
    texts = [finding.text for finding in check_files({"train": data.annotations["train"]}) if "EXIF" in finding.text]
    assert [text[: len(start)] for text, start in zip(texts, findings, strict=True)] == findings
    assert (
        "4 other images here have boxes of the turned image" in texts[-1] if len(texts) == 2 else "other" not in str(texts)
    )


def test_the_data_check_knows_that_square_images_are_not_turned(tmp_path: Path) -> None:
    write_images(tmp_path / "images", (64, 64), "png")
    data = coco_data(tmp_path, "png", dict.fromkeys(range(1, 9), (64, 64)), {n: [1, 1, 50, 50] for n in range(1, 9)})
    (text,) = (finding.text for finding in check_files({"train": data.annotations["train"]}) if "EXIF" in finding.text)
    assert text.startswith("7 images have an EXIF rotation, which is not applied")
