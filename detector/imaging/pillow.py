"""Convert Pillow's images, of every mode, to the pixels that reading their file gives."""

import numpy as np
from PIL import Image

from detector.imaging.sixteen_bits import SampleRange, to_eight_bits

WHOLE_NUMBERS = ("PNG", "PPM")  # formats whose 16-bit images some versions of Pillow open in mode I


class ModeError(ValueError):
    """An image in a mode that has no pixels in 0..255; the message has the mode and the remedy."""


def rgb_pixels(image: Image.Image, sixteen_bit_range: SampleRange) -> np.ndarray:
    """Return the pixels of ``image``, as stored, (H, W, 3) uint8 RGB. Transparency is dropped.

    Raises ModeError for a mode without fixed limits, and for LAB.
    """
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format in WHOLE_NUMBERS):
        return _three_channels(to_eight_bits(np.asarray(image).astype(np.uint16), sixteen_bit_range))
    if mode == "CMYK":
        return _cmyk_to_rgb(np.asarray(image))
    if mode == "La":
        image = image.convert("LA")
    elif mode in ("P", "PA", "RGBa"):  # P may have transparent colors
        image = image.convert("RGBA")
    if mode in ("I", "F", "LAB"):
        raise ModeError(
            f"the PIL image has the mode {mode}, whose values are not those of an 8-bit or 16-bit image; convert it to RGB, "
            "L or I;16"
        )
    try:
        return np.asarray(image.convert("RGB"))
    except ValueError as error:
        raise ModeError(f"the PIL image has the mode {mode}, which is not read ({error}); convert it to RGB") from None


def _three_channels(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=2)


def _cmyk_to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Convert as OpenCV does with CMYK JPEG files."""
    inks = pixels[..., :3].astype(np.int32)
    light = 255 - pixels[..., 3:].astype(np.int32)
    return (light - (inks * light >> 8)).astype(np.uint8)
