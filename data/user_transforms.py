"""The user's own albumentations: built from plain values, checked, and tried before training starts."""

import importlib
import inspect
import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import albumentations as A
import cv2
import numpy as np
import torch
from numpy.random import get_bit_generator, set_bit_generator  # type: ignore[attr-defined]  # not in its __all__

from data.mosaic import MIN_SIDE
from detector.batch import Size
from detector.text import nearest_names, unknown_name

CONTAINERS = (A.Compose, A.OneOf, A.OneOrOther, A.RandomOrder, A.Sequential, A.SomeOf)
NOT_FROM_CONFIG = (A.DualTransform, A.ImageOnlyTransform, A.Transform3D, A.Lambda)  # bases, and one that needs functions
CONTAINER_ARGUMENTS = {A.SomeOf: {"n", "replace"}, A.RandomOrder: {"n", "replace"}}  # besides transforms and p
NUM_TRIALS = 8  # of all transforms together, each with another seed

Transform: TypeAlias = A.BasicTransform | A.BaseCompose


def build_transforms(entries: list[dict[str, Any]] | None, sizes: Collection[Size]) -> list[Transform]:
    """Build the transforms of ``data.transforms``, and try them on a noise image of each of ``sizes``.

    An entry is ``{name: {argument: value}}``. A class that users wrote themselves is named with its module, as
    ``my_transforms.Rain``. Containers (OneOf, SomeOf, Sequential, Compose ...) take a list of entries as ``transforms``.
    Raises ValueError for unknown names and arguments, for transforms that cannot move boxes, and for transforms that
    change the size or type of the image.
    """
    transforms = [_build(entry, sizes) for entry in entries or []]
    if transforms:
        composed = compose(transforms)
        for size in sizes:
            _try_together(composed, size)
    return transforms


def compose(transforms: list[Transform]) -> A.Compose:
    """Compose transforms that take ``image`` and ``bboxes`` (N, 5): boxes x1 y1 x2 y2, then the object's number."""
    # min_width and min_height drop what the user's own transforms leave of a box.
    boxes = A.BboxParams("pascal_voc", clip=True, filter_invalid_bboxes=True, min_width=MIN_SIDE, min_height=MIN_SIDE)
    # Without NoOp albumentations may warn that no transform moves boxes.
    return A.Compose([A.NoOp(), *transforms], bbox_params=boxes, is_check_shapes=False)


@contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy, torch and OpenCV for a while, and restore those of the first three.

    Classes of albumentations never draw from them. Transforms that users wrote themselves often do, and a worker process
    has global generators of its own: samples would depend on the number of workers.
    """
    python_state, numpy_generator = random.getstate(), get_bit_generator()
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(seed)
            set_bit_generator(np.random.MT19937(seed))
            torch.default_generator.manual_seed(seed)
            cv2.setRNGSeed(seed % 2**31)  # OpenCV does not give its state, so it cannot be restored
            yield
    finally:
        random.setstate(python_state)
        set_bit_generator(numpy_generator)


def check_output(image: Any, size: Size) -> None:
    """Raise a ValueError unless ``image`` is (H, W, 3) uint8 of ``size``."""
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", type(image).__name__)
    if shape != (*size, 3) or dtype != np.uint8:
        raise ValueError(
            f"data.transforms turn an image of {(*size, 3)} uint8 into {shape} {dtype}; keep size and type (add a "
            "Resize or PadIfNeeded after a crop; normalizing and tensors are not needed)"
        )


def _build(entry: dict[str, Any], sizes: Collection[Size]) -> Transform:
    name, arguments = _split_entry(entry)
    kind = _find_class(name)
    allowed = _argument_names(kind)
    for argument in arguments:
        if argument not in allowed:
            raise ValueError(f"data.transforms: {unknown_name(f'argument of {name}:', argument, sorted(allowed))}")
    if kind in CONTAINERS:
        children = arguments.get("transforms")
        if not isinstance(children, list) or not children:
            raise ValueError(f"data.transforms: {name} has transforms {children!r}; expected a list of at least one entry")
        arguments = arguments | {"transforms": [_build(child, sizes) for child in children]}
    try:
        transform = kind(**arguments)
    except (TypeError, ValueError) as error:  # pydantic's errors are ValueErrors
        raise ValueError(f"data.transforms: {name} refuses its arguments {arguments!r}: {error}") from error
    if kind not in CONTAINERS:
        for size in sizes:
            _try_alone(transform, size)
    return transform


def _split_entry(entry: Any) -> tuple[str, dict[str, Any]]:
    """Return the name and the arguments of an entry."""
    if not isinstance(entry, dict) or len(entry) != 1:
        raise ValueError(
            f"data.transforms has the entry {entry!r}; expected one name with its arguments, {{Blur: {{p: 0.1}}}}"
        )
    name, arguments = next(iter(entry.items()))
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict):
        raise ValueError(f"data.transforms: {name} has the arguments {arguments!r}; expected names with values, {{p: 0.5}}")
    return name, arguments


def _find_class(name: str) -> type:
    """Return the class of albumentations with this name, or the user's own class for a name with dots."""
    if "." in str(name):
        return _import_class(name)
    classes = {key: value for key, value in vars(A).items() if _is_usable(value)}
    del classes["ReplayCompose"]  # a Compose for debugging
    if name not in classes:
        near = nearest_names(str(name), classes)
        hint = f"did you mean {' or '.join(near)}?" if near else "see the list in albumentations' documentation"
        raise ValueError(f"data.transforms: albumentations {A.__version__} has no transform {name!r}; {hint}")
    return classes[name]


def _import_class(name: str) -> type:
    module, _, class_name = name.rpartition(".")
    try:
        transform_class = getattr(importlib.import_module(module), class_name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:  # the last two: names that begin with a dot
        raise ValueError(
            f"data.transforms: cannot import {name}: {error}; expected the module and the class of a transform, as "
            "my_transforms.Rain for the file my_transforms.py in a folder of PYTHONPATH"
        ) from error
    if not _is_usable(transform_class):
        raise ValueError(f"data.transforms: {name} is no ImageOnlyTransform or DualTransform of albumentations")
    return transform_class


def _is_usable(value: Any) -> bool:
    """Return True for a class of transforms or containers that can be built from plain values."""
    kinds = (A.ImageOnlyTransform, A.DualTransform, *CONTAINERS)
    return inspect.isclass(value) and issubclass(value, kinds) and value not in NOT_FROM_CONFIG


def _argument_names(kind: type) -> set[str]:
    if kind in CONTAINERS:
        return {"transforms", "p"} | CONTAINER_ARGUMENTS.get(kind, set())
    return set(inspect.signature(kind).parameters)


def _example(size: Size) -> dict[str, np.ndarray]:
    """Return an image of noise with one object, as arguments of a Compose."""
    box = [size[1] / 4, size[0] / 4, size[1] / 2, size[0] / 2, 0.0]
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    return {"image": noise, "bboxes": np.array([box], np.float32)}


def _try_alone(transform: A.BasicTransform, size: Size) -> None:
    """Apply a transform once, whatever its probability: some cannot move boxes, or need data that training does not have."""
    try:
        probability, transform.p = transform.p, 1.0
        with seeded_globals(0):
            compose([transform])(**_example(size))
    except Exception as error:
        name = type(transform).__name__
        raise ValueError(
            f"data.transforms: {name} does not work on an image of {size[1]} x {size[0]} with boxes: {error}"
        ) from error
    finally:
        transform.p = probability


def _try_together(composed: A.Compose, size: Size) -> None:
    for seed in range(NUM_TRIALS):
        composed.set_random_seed(seed)
        with seeded_globals(seed):
            check_output(composed(**_example(size))["image"], size)
