"""The network input of a run: its size in the training and in the evaluation, tiles, and the size of objects in it.

A size is (height, width), or (side,) if it is square.
"""

from typing import Any

import numpy as np

from detector.batch import Size, as_size
from detector.report.analysis import Analysis
from detector.report.run_folder import RunFolder


def config_size(config: dict[str, Any]) -> tuple[int, ...] | None:
    """Return ``data.image_size`` of a configuration, None if it has none."""
    size = (config.get("data") or {}).get("image_size")
    sides = tuple(dict.fromkeys(size)) if isinstance(size, list) else (size,)
    return sides if all(isinstance(side, int) for side in sides) else None


def evaluated_size(run: RunFolder) -> tuple[int, ...] | None:
    """Return the size that the predictions were made with."""
    return config_size(run.evaluation_config)


def evaluated_tile(run: RunFolder) -> Size | None:
    """Return the (height, width) of the tiles that the images were cut into; None without tiles."""
    tile = run.evaluation_config.get("tile")
    return None if tile is None else as_size(tile, "tile")


def trained_size(run: RunFolder) -> tuple[int, ...] | None:
    """Return the size of the training: of the checkpoint if it has one, as a resumed run's configuration may differ."""
    return config_size(run.config) if run.trained_size is None else tuple(dict.fromkeys(run.trained_size))


def data_setting(size: tuple[int, ...]) -> str:
    """Return ``size`` as ``data.image_size`` takes it."""
    return str(size[0] if len(size) == 1 else list(size))


def in_pixels(size: tuple[int, ...]) -> str:
    """Return ``size`` in words."""
    return " x ".join(map(str, size)) + " px" + (" (height x width)" if len(size) > 1 else "")


def sides_in_input(run: RunFolder, main: Analysis) -> np.ndarray:
    """Return the square root of the box area of each object that has one, in pixels of the letterboxed network input.

    With tiles, the input is a tile. Crowds are left out.
    """
    size, (height, width) = evaluated_size(run), evaluated_tile(run) or (np.inf, np.inf)
    objects = np.flatnonzero(~main.matching.crowds)
    entries = [main.coco.imgs[image] for image in main.matching.obj_images[objects].tolist()]
    if size is None or any(not entry.get(side) for entry in entries for side in ("height", "width")):
        return np.empty(0)
    ratios = [min(size[0] / min(entry["height"], height), size[-1] / min(entry["width"], width)) for entry in entries]
    boxes = main.matching.obj_boxes[objects]
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)) * ratios
    return sides[sides > 0]  # the ground truth may have boxes without area
