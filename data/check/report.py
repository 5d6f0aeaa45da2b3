"""The findings of a data check as text, and as one HTML page with plots and sample images."""

from pathlib import Path
from typing import overload

import numpy as np

from data.annotations import Annotations, clip_bboxes
from data.check.findings import MAX_EXAMPLES, Finding, ImageRef, Splits, class_counts, object_sides
from data.images import read_image
from detector.imaging.draw import draw_boxes, fit_longer_side
from detector.imaging.plot_files import Plot
from detector.imaging.plot_style import COLORS, CSS_COLORS, legible
from detector.imaging.plots import bar_plot, histogram
from detector.imaging.read import BadImageError
from detector.report.page import CaptionedImage, render
from detector.text import plural

SPLIT_COLORS = dict(zip(("train", "val", "test"), COLORS))
LEVELS = ("error", "warning", "note")
NUM_CLASSES = 40  # in the plot of class balance
MAX_LINEAR = 50  # largest / smallest number of objects on a linear scale
NUM_SAMPLES = 8  # images of a split
IMAGES_PER_FINDING = 4


def text_report(findings: list[Finding], splits: Splits) -> str:
    """Return the report as text: a summary of each split, then errors, warnings and notes, and their number."""
    lines = [annotations.summary() for annotations in splits.values()]
    for level in LEVELS:
        if of_level := [f"  {finding.line()}" for finding in findings if finding.level == level]:
            lines += ["", f"{level}s:", *of_level]
    return "\n".join([*lines, "", verdict(findings)])


def verdict(findings: list[Finding]) -> str:
    """Return the number of errors and warnings in one line."""
    errors, warnings = (sum(finding.level == level for finding in findings) for level in ("error", "warning"))
    return f"{plural(errors, 'error')}, {plural(warnings, 'warning')}" + ("" if errors else ": training can start")


def html_report(findings: list[Finding], splits: Splits, size: tuple[int, int]) -> str:
    """Return the report as a page that needs no other file: findings with images, plots, and samples of each split.

    ``size`` is (height, width) of the network input.
    """
    ordered = sorted(findings, key=lambda finding: LEVELS.index(finding.level))
    return render(
        "check.html",
        Path(__file__).parent / "templates",
        verdict=verdict(findings),
        summaries=[annotations.summary() for annotations in splits.values()],
        findings=[(finding, _images_of(finding, splits)) for finding in ordered],
        max_examples=MAX_EXAMPLES,
        colors={split: CSS_COLORS[SPLIT_COLORS[split]] for split in splits},
        plots=_plots(splits, size),
        samples={split: _samples(split, splits) for split in splits},
    )


def _images_of(finding: Finding, splits: Splits) -> list[CaptionedImage]:
    return [_sample_image(image, splits, side=240) for image in dict.fromkeys(finding.images[:IMAGES_PER_FINDING])]


def _samples(split: str, splits: Splits) -> list[CaptionedImage]:
    """Return images from the whole split, evenly spaced."""
    indices = np.unique(np.linspace(0, len(splits[split]) - 1, NUM_SAMPLES).round().astype(int)).tolist()
    return [_sample_image((split, n), splits) for n in indices]


def _sample_image(image: ImageRef, splits: Splits, side: int = 320) -> CaptionedImage:
    """Return an image with its boxes; if it cannot be read, the caption is the reason."""
    split, n = image
    annotations = splits[split]
    try:
        pixels = read_image(
            annotations.image_path(n), annotations.size(n), annotations.upright, 1, annotations.sixteen_bit_range
        )
    except BadImageError as error:
        return CaptionedImage(str(error), None)
    rows = annotations.object_slice(n)
    boxes = clip_bboxes(annotations.bboxes[rows], *pixels.shape[:2])  # with crowds: all that is in the file
    pixels, boxes = fit_longer_side(pixels, boxes, side)
    drawn = draw_boxes(pixels, boxes, annotations.labels[rows], annotations.class_names)
    return CaptionedImage(f"{annotations.file_name(n)}, {plural(len(boxes), 'object')}", drawn)


def _plots(splits: Splits, size: tuple[int, int]) -> list[Plot]:
    splits = {split: annotations for split, annotations in splits.items() if len(annotations.ids)}
    if not splits:
        return []
    counts = {split: np.diff(annotations.offsets) for split, annotations in splits.items()}
    sides = {split: object_sides(annotations, size) for split, annotations in splits.items()}
    ratios = {split: _aspect_ratios(annotations) for split, annotations in splits.items()}
    shapes = {split: annotations.sizes[:, 1] / annotations.sizes[:, 0] for split, annotations in splits.items()}
    most = max(int(max(count.max() for count in counts.values())), 1)
    step = -(-most // 20)
    side_edges, object_shapes, image_shapes = (
        2.0 ** np.arange(1, 11),
        2.0 ** np.arange(-4, 4.1),
        2.0 ** np.arange(-2, 2.1, 0.5),
    )
    colors = [SPLIT_COLORS[split] for split in splits]
    of_images, of_objects = "share of images", "share of objects"
    return [
        histogram("objects", "Objects per image", counts, np.arange(0, most + step + 1, step), colors, "objects", of_images),
        histogram("object_sizes", "Size of objects", sides, side_edges, colors, "side in the network input, px", of_objects),
        histogram("object_shapes", "Shape of objects", ratios, object_shapes, colors, "width / height", of_objects),
        histogram("image_shapes", "Shape of images", shapes, image_shapes, colors, "width / height", of_images),
        class_bars(splits, colors),
    ]


def _aspect_ratios(annotations: Annotations) -> np.ndarray:
    sides = annotations.bboxes[:, 2:][(annotations.bboxes[:, 2:] > 0).all(axis=1)]
    return sides[:, 0] / sides[:, 1]


def class_bars(splits: Splits, colors: list[str]) -> Plot:
    """Return a bar of the number of objects for each class and split.

    The scale is logarithmic, with an axis, if the numbers differ by more than a factor of MAX_LINEAR: the short bars would
    not be seen.
    """
    counts = {split: class_counts(annotations) for split, annotations in splits.items()}
    names = legible(next(iter(splits.values())).class_names)
    order = np.argsort(-next(iter(counts.values())), kind="stable")
    title = "Objects of each class" if len(names) > 1 else "Objects of the only class"
    if len(names) > NUM_CLASSES:
        order = np.concatenate([order[: NUM_CLASSES // 2], order[-NUM_CLASSES // 2 :]])
        title += f", the most and the least frequent {NUM_CLASSES // 2} of {len(names)}"
    values = {split: count[order].astype(float) for split, count in counts.items()}
    texts = {split: [f"{number:,}" for number in count[order]] for split, count in counts.items()}
    scale: tuple[str, dict[float, str]] = ("", {})
    used = np.concatenate(list(values.values()))
    used = used[used > 0]
    if len(names) > 1 and len(used) and used.max() > MAX_LINEAR * used.min():
        powers = range(int(np.log10(used.max())) + 1)
        scale = "objects, logarithmic", {_logarithm(10.0**power): f"{10**power:,}" for power in powers}
        values = {split: _logarithm(count) for split, count in values.items()}
    bars = {split: lengths.tolist() for split, lengths in values.items()}
    return bar_plot("classes", title, [names[n] for n in order], bars, texts, colors, scale=scale)


@overload
def _logarithm(count: float) -> float: ...
@overload
def _logarithm(count: np.ndarray) -> np.ndarray: ...
def _logarithm(count: np.ndarray | float) -> np.ndarray | float:
    """Return the length of a logarithmic bar: 0 for no object, and a short bar for one."""
    return np.log10(np.maximum(count, 0.5) / 0.5)
