"""Images in any form, as RGB arrays."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from detector.imaging.pillow import rgb_pixels
from detector.imaging.read import EXIF_ORIENTATION, BadImageError, read_upright, turn
from detector.imaging.sixteen_bits import FULL_RANGE, SampleRange, to_eight_bits
from detector.text import without_secrets

Image = str | os.PathLike | np.ndarray | Tensor | PIL.Image.Image
ACCEPTED = (
    "an image is a path, a PIL image, an array (height, width), (height, width, 3) or (height, width, 4), RGB, uint8 or "
    "uint16, or a tensor (3, height, width), uint8 or floating point in 0..1; several images go into a list"
)
ROUNDING = 1e-6  # below 0, in floating-point tensors


def each_image(images: Any) -> Iterator[Image]:
    """Yield the images of ``images``, which is one image or several. Raises ValueError for anything else.

    Several are a list, or anything else that can be iterated in an order: a tuple, a generator, an array of paths.
    """
    is_array_of_paths = isinstance(images, np.ndarray) and images.dtype.kind in "OU" and images.ndim == 1
    if isinstance(images, Image) and not is_array_of_paths:
        return iter((images,))
    if not isinstance(images, Iterable) or isinstance(images, bytes | bytearray | memoryview | dict | set | frozenset):
        raise ValueError(f"images is {_described(images)}; {ACCEPTED}")
    return iter(images)


def is_repeatable(images: Any) -> bool:
    """Return True for one image, and for a list, tuple or array of images: the user has them all in memory."""
    return isinstance(images, Image | list | tuple)


def as_array(image: Image, sixteen_bit_range: SampleRange = FULL_RANGE) -> np.ndarray:
    """Return an image, see ``Predictor.__call__``, as an (H, W, 3) uint8 RGB array. Raises ValueError for anything else.

    16 bits become 8 as ``to_eight_bits`` does.
    """
    if isinstance(image, str | os.PathLike):
        return _read(image, sixteen_bit_range)
    if isinstance(image, PIL.Image.Image):
        return _upright_pixels(image, sixteen_bit_range)
    if not isinstance(image, np.ndarray | Tensor):
        raise ValueError(f"an image is {_described(image)}; {ACCEPTED}")
    pixels = _tensor_as_array(image) if isinstance(image, Tensor) else image
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:  # in either order of bytes
        pixels = to_eight_bits(pixels.astype(np.uint16), sixteen_bit_range)
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or pixels.dtype != np.uint8 or not pixels.size:
        raise _unsupported(image)
    return np.ascontiguousarray(pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3])


def _read(path: str | os.PathLike, sixteen_bit_range: SampleRange) -> np.ndarray:
    name = os.fsdecode(path)
    if "://" in name and not os.path.exists(name):  # C://a.jpg is a path of Windows
        raise BadImageError(f"{without_secrets(name)}: is an address; download the image, and give its path")
    path = Path(name)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give images, or use python -m detector predict, which takes folders")
    return read_upright(path, sixteen_bit_range)


def _upright_pixels(image: PIL.Image.Image, sixteen_bit_range: SampleRange) -> np.ndarray:
    try:
        orientation = _orientation(image)
        pixels = rgb_pixels(image, sixteen_bit_range)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"the PIL image cannot be decoded ({error}); restore its file") from None
    if not pixels.size:
        raise ValueError(f"the PIL image is {image.width} x {image.height}, without pixels")
    return turn(pixels, orientation if orientation in range(1, 9) else 1)


def _orientation(image: PIL.Image.Image) -> int:
    """Load ``image``, and return the EXIF orientation that its pixels still need."""
    image.load()
    if image.format == "TIFF":  # Pillow has turned it
        return 1
    try:
        return image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # Pillow raises many kinds of errors for damaged EXIF data; the pixels do not depend on them
        return 1


def _tensor_as_array(image: Tensor) -> np.ndarray:
    if image.ndim != 3 or image.layout != torch.strided or image.is_quantized or image.is_meta:
        raise _unsupported(image)
    image = image.detach().cpu()
    if image.is_floating_point():
        low, high = (image.min().item(), image.max().item()) if image.numel() else (0.0, 0.0)
        if not (low >= -ROUNDING and high <= 1.5):  # resizing may overshoot 1 a little; nan is neither
            raise ValueError(
                f"the tensor has values from {low:g} to {high:g}; floating-point images are in 0..1: undo a normalization, "
                "or use clamp(0, 1) if resizing has left these limits"
            )
        image = (image.float() * 255).round().clamp(0, 255).byte()
    return image.movedim(0, -1).numpy()


def _unsupported(image: np.ndarray | Tensor) -> ValueError:
    text, shape = f"the image is {image.dtype} of shape {tuple(image.shape)}", tuple(image.shape)
    hint = ""
    if isinstance(image, np.ndarray) and len(shape) == 3 and shape[0] in (1, 3, 4):
        hint = "; if its channels come first, move them: array.transpose(1, 2, 0)"
    elif isinstance(image, Tensor) and len(shape) == 3 and shape[2] in (1, 3, 4):
        hint = "; if its channels come last, move them: tensor.permute(2, 0, 1)"
    return ValueError(f"{text}; {ACCEPTED}{hint}")


def _described(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
