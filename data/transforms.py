"""The training pipeline: mosaic, affine map and flip, mixup, the user's own albumentations, colors."""

import difflib
import inspect
import random
from dataclasses import dataclass
from typing import Any

import albumentations as A
import cv2
import numpy as np

from data.mosaic import MIN_SIDE, MosaicAffine, Source, map_objects, render

CONTAINERS = (A.Compose, A.OneOf, A.OneOrOther, A.RandomOrder, A.Sequential, A.SomeOf)
NOT_FROM_CONFIG = (A.DualTransform, A.ImageOnlyTransform, A.Transform3D, A.Lambda)  # bases, and one that needs functions
CONTAINER_ARGUMENTS = {A.SomeOf: {"n", "replace"}, A.RandomOrder: {"n", "replace"}}  # beside transforms and p


@dataclass(frozen=True)
class Augmentation:
    """How much training images are varied. Zero turns a part off."""

    mosaic: float = 1.0  # probability of joining four images
    mixup: float = 0.0  # probability of blending with another image or mosaic
    close_mosaic: int = 10  # the last epochs, without mosaic and mixup
    pool: int = 64  # images of an epoch that are mixed with each other (see EpochOrder); 0: all of them, four times slower
    scale: float = 0.5  # zoom is drawn from 1 - scale .. 1 + scale
    translate: float = 0.1  # share of the input size, either way
    degrees: float = 0.0  # rotation, either way
    shear: float = 0.0  # degrees, either way, per axis
    fliplr: float = 0.5  # probability of mirroring left and right
    hsv: tuple[float, float, float] = (0.015, 0.7, 0.4)  # gains of hue (share of the circle), saturation and value
    multi_scale: float = 0.0  # input sizes vary from batch to batch within 1 - multi_scale .. 1 + multi_scale

    def __post_init__(self) -> None:
        limits = {"mosaic": 1, "mixup": 1, "fliplr": 1, "scale": 0.99, "translate": 0.5, "degrees": 180, "shear": 80}
        limits["multi_scale"] = 0.9
        for name, limit in limits.items():
            if not 0 <= getattr(self, name) <= limit:
                raise ValueError(f"augment.{name} is {getattr(self, name)}; expected a number in 0..{limit}")
        if self.close_mosaic < 0:
            raise ValueError(f"augment.close_mosaic is {self.close_mosaic}; expected a number of epochs, 0 or more")
        if self.pool < 0 or 0 < self.pool < 4:
            raise ValueError(f"augment.pool is {self.pool}; expected at least the 4 images of a mosaic, or 0 for all")
        if len(self.hsv) != 3 or not all(0 <= gain <= 1 for gain in self.hsv):
            raise ValueError(f"augment.hsv is {self.hsv}; expected three gains (hue, saturation, value) in 0..1")


class HsvJitter(A.ImageOnlyTransform):
    """Turns the hue and scales saturation and value by random gains, each within ± ``gains``. RGB uint8 in and out."""

    def __init__(self, gains: tuple[float, float, float]) -> None:
        super().__init__(p=1.0 if any(gains) else 0.0)
        self.gains = gains

    def get_params(self) -> dict[str, Any]:
        return {"drawn": self.random_generator.uniform(-1, 1, 3) * self.gains}

    def apply(self, img: np.ndarray, drawn: np.ndarray, **_: Any) -> np.ndarray:
        level = np.arange(256)
        hue = np.rint(level + 180 * drawn[0]) % 180
        saturation, value = (np.rint(level * (1 + gain)).clip(0, 255) for gain in drawn[1:])
        table = np.stack([hue, saturation, value], axis=-1).astype(np.uint8)[None]  # (1, 256, 3)
        hsv = cv2.cvtColor(img, cv2.COLOR_RGB2HSV)
        cv2.LUT(hsv, table, dst=hsv)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=hsv)


class TrainPipeline:
    """From images that are scaled to fit an input of ``size`` (height, width) to a training sample.

    Our own steps are called without ``A.Compose``, whose handling of boxes takes longer than theirs. ``sizes`` are the
    sizes that may be asked for; the user's own transforms are tried on the smallest and the largest.
    """

    def __init__(
        self,
        size: tuple[int, int],
        augment: Augmentation,
        transforms: list[dict[str, Any]] | None,
        sizes: list[tuple[int, int]] | None = None,
    ) -> None:
        self.size = size
        self.shape = MosaicAffine(size, augment.scale, augment.translate, augment.degrees, augment.shear, augment.fliplr)
        self.colors = HsvJitter(augment.hsv)
        for each in (sizes or [size])[:: max(len(sizes or [size]) - 1, 1)]:
            own = build_transforms(transforms, each)
        self.own = _compose([A.NoOp(), *own]) if own else None  # without NoOp it may warn that nothing moves boxes

    def __call__(
        self, layers: list[list[Source]], draw: np.random.Generator, size: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return an image (H, W, 3) uint8 of ``size`` and its objects (N, 5) float32: boxes and their numbers.

        A layer is one image, or four that make a mosaic; a second layer is blended with the first. All that is random
        comes from ``draw``.
        """
        size = self.size if size is None else size
        image, objects = self._lay_out(layers[0], draw, size)
        for layer in layers[1:]:
            other, others = self._lay_out(layer, draw, size)
            share = draw.beta(32, 32)
            image = cv2.addWeighted(image, share, other, 1 - share, 0)  # mixup (arXiv:1710.09412)
            objects = np.concatenate([objects, others])
        if self.own is not None:
            # One generator for all transforms: Compose.set_random_seed would give each the same draws as its neighbor.
            self.own.set_random_state(draw, random.Random(int(draw.integers(2**63))))
            result = self.own(image=image, bboxes=objects)
            image = result["image"]
            check_output(image, size)
            # Without boxes albumentations returns other shapes and types than with.
            objects = np.asarray(result["bboxes"], np.float32).reshape(-1, 5)
        if self.colors.p:
            image = self.colors.apply(image, draw.uniform(-1, 1, 3) * self.colors.gains)
        return image, objects

    def _lay_out(
        self, sources: list[Source], draw: np.random.Generator, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        layout = self.shape.draw_layout([source.image.shape[:2] for source in sources], draw, size)
        image = render([source.image for source in sources], layout)
        return image, map_objects([source.boxes for source in sources], layout)


def _compose(transforms: list[A.BasicTransform]) -> A.Compose:
    # min_width and min_height catch what the user's own transforms cut off.
    boxes = A.BboxParams("pascal_voc", clip=True, filter_invalid_bboxes=True, min_width=MIN_SIDE, min_height=MIN_SIDE)
    return A.Compose(transforms, bbox_params=boxes, is_check_shapes=False)


def build_transforms(entries: list[dict[str, Any]] | None, size: tuple[int, int]) -> list[A.BasicTransform]:
    """Build the user's own transforms from plain values and try them on a gray image of ``size`` (height, width).

    An entry is ``{name: {argument: value}}``. Containers (OneOf, SomeOf, Sequential, Compose ...) take a list of entries
    as ``transforms``. Unknown names and arguments, and transforms that cannot move boxes, are ValueErrors.
    """
    built = [_build(entry, size) for entry in entries or []]
    if built:
        _try_out(built, size)
    return built


def _build(entry: dict[str, Any], size: tuple[int, int]) -> A.BasicTransform | A.BaseCompose:
    if not isinstance(entry, dict) or len(entry) != 1:
        raise ValueError(
            f"data.transforms has the entry {entry!r}; expected one name with its arguments, {{Blur: {{p: 0.1}}}}"
        )
    name, arguments = next(iter(entry.items()))
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict):
        raise ValueError(f"data.transforms: {name} has the arguments {arguments!r}; expected names with values, {{p: 0.5}}")
    kind = _find(name)
    allowed = _argument_names(kind)
    for argument in arguments:
        if argument not in allowed:
            raise ValueError(f"data.transforms: {name} has no argument {argument!r}; {_hint(argument, sorted(allowed))}")
    if kind in CONTAINERS:
        arguments = arguments | {"transforms": _build_children(name, arguments.get("transforms"), size)}
    try:
        transform = kind(**arguments)
    except (TypeError, ValueError) as error:  # pydantic's errors are ValueErrors
        raise ValueError(f"data.transforms: {name} refuses its arguments {arguments!r}: {error}") from error
    if kind not in CONTAINERS:
        _try_alone(transform, size)
    return transform


def _build_children(name: str, entries: Any, size: tuple[int, int]) -> list[A.BasicTransform | A.BaseCompose]:
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"data.transforms: {name} has transforms {entries!r}; expected a list of at least one entry")
    return [_build(entry, size) for entry in entries]


def _find(name: str) -> type:
    names = {
        key: value
        for key, value in vars(A).items()
        if inspect.isclass(value)
        and issubclass(value, (A.ImageOnlyTransform, A.DualTransform, *CONTAINERS))
        and value not in NOT_FROM_CONFIG
    }
    del names["ReplayCompose"]  # a Compose for debugging
    if name not in names:
        hint = _hint(str(name), list(names))
        raise ValueError(f"data.transforms: albumentations {A.__version__} has no transform {name!r}; {hint}")
    return names[name]


def _argument_names(kind: type) -> set[str]:
    if kind in CONTAINERS:
        return {"transforms", "p"} | CONTAINER_ARGUMENTS.get(kind, set())
    return set(inspect.signature(kind).parameters)


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"choose one of {', '.join(known)}" if len(known) < 20 else "see the list in albumentations' documentation"


def _example(size: tuple[int, int]) -> dict[str, np.ndarray]:
    box = [size[1] / 4, size[0] / 4, size[1] / 2, size[0] / 2, 0.0]
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    return {"image": noise, "bboxes": np.array([box], np.float32)}


def _try_alone(transform: A.BasicTransform, size: tuple[int, int]) -> None:
    """Apply it once whatever its probability: some cannot move boxes, or need data which training does not give."""
    try:
        probability, transform.p = transform.p, 1.0
        _compose([A.NoOp(), transform])(**_example(size))  # without NoOp it warns that nothing moves boxes
    except Exception as error:
        name = type(transform).__name__
        raise ValueError(
            f"data.transforms: {name} does not work on an image of {size[1]} x {size[0]} with boxes: {error}"
        ) from error
    finally:
        transform.p = probability


def _try_out(transforms: list[A.BasicTransform], size: tuple[int, int]) -> None:
    pipeline = _compose([A.NoOp(), *transforms])
    for seed in range(8):
        pipeline.set_random_seed(seed)
        check_output(pipeline(**_example(size))["image"], size)


def check_output(image: Any, size: tuple[int, int]) -> None:
    """Raise a ValueError unless ``image`` is (H, W, 3) uint8 of ``size`` (height, width)."""
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", type(image).__name__)
    if shape != (*size, 3) or dtype != np.uint8:
        raise ValueError(
            f"data.transforms turn an image of {(*size, 3)} uint8 into {shape} {dtype}; keep size and type (add a "
            "Resize or PadIfNeeded after a crop; normalizing and tensors are not needed)"
        )
