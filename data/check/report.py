"""The findings of a data check as text, and as one HTML page with plots and sample images."""

from html import escape

import numpy as np

from data.annotations import Annotations, clip_bboxes
from data.check.findings import Finding, ImageRef, Splits, class_counts, object_sides
from data.images import read_image
from detector.imaging.draw import draw_boxes, fit_longer_side
from detector.imaging.read import BadImageError
from detector.report.page import image_figure, keys, page
from detector.report.svg import COLORS, bar, figure, shortened, text
from detector.text import plural

SPLIT_COLORS = dict(zip(("train", "val", "test"), COLORS))
LEVELS = ("error", "warning", "note")
NUM_CLASSES = 40  # in the plot of class balance


def text_report(findings: list[Finding], splits: Splits) -> str:
    """Return the report as text: what was read, then errors, warnings and notes, and their number."""
    lines = [annotations.summary() for annotations in splits.values()]
    for level in LEVELS:
        found = [finding for finding in findings if finding.level == level]
        if found:
            lines += ["", f"{level}s:"] + [f"  {finding.line()}" for finding in found]
    return "\n".join([*lines, "", verdict(findings)])


def verdict(findings: list[Finding]) -> str:
    """Say in one line how many errors and warnings there are."""
    errors, warnings = (sum(finding.level == level for finding in findings) for level in ("error", "warning"))
    return f"{plural(errors, 'error')}, {plural(warnings, 'warning')}" + ("" if errors else ": training can start")


def html_report(findings: list[Finding], splits: Splits, size: tuple[int, int], num_samples: int = 8) -> str:
    """Return the report as a page that needs no other files: findings with images, plots, and ``num_samples`` a split."""
    parts = [f"<h1>Data check: {escape(verdict(findings))}</h1><ul>"]
    parts += [f"<li>{escape(annotations.summary())}</li>" for annotations in splits.values()]
    parts.append("</ul><h2>Findings</h2><ul>")
    for level in LEVELS:
        parts += [_finding(finding, splits) for finding in findings if finding.level == level]
    colors = {split: SPLIT_COLORS[split] for split in splits}
    parts += ["</ul>", f"<h2>Plots</h2><p>{keys(colors)}</p>" if splits else "", *_plots(splits, size)]
    for split, annotations in splits.items():
        chosen = np.unique(np.linspace(0, len(annotations) - 1, num_samples).round().astype(int)).tolist()
        parts += [f"<h2>Images of {split}</h2>", *(_image_figure((split, n), splits) for n in chosen)]
    return page("Data check", "".join(parts))


def _finding(finding: Finding, splits: Splits) -> str:
    examples = "".join(f"<li>{escape(example)}</li>" for example in finding.examples[:8])
    more = f"<li>... and {len(finding.examples) - 8} more</li>" if len(finding.examples) > 8 else ""
    shown = "".join(_image_figure(image, splits, side=240) for image in dict.fromkeys(finding.images[:4]))
    return (
        f'<li><b class="{finding.level}">{finding.level}</b> {escape(f"{finding.split}: {finding.text}")}'
        f"<ul>{examples}{more}</ul>{shown}</li>"
    )


def _image_figure(ref: ImageRef, splits: Splits, side: int = 320) -> str:
    split, n = ref
    annotations = splits[split]
    name = annotations.file_names[n].decode()
    try:
        image = read_image(annotations.image_path(n), tuple(annotations.sizes[n].tolist()), annotations.upright)
    except BadImageError as error:
        return f"<figure><figcaption>{escape(str(error))}</figcaption></figure>"
    own = slice(annotations.offsets[n], annotations.offsets[n + 1])
    boxes = clip_bboxes(annotations.bboxes[own], *image.shape[:2])  # crowds too: all that is on file
    image, boxes = fit_longer_side(image, boxes, side)
    drawn = draw_boxes(image, boxes, annotations.labels[own], annotations.class_names)
    return image_figure(drawn, f"{name}, {plural(len(boxes), 'object')}")


def _plots(splits: Splits, size: tuple[int, int]) -> list[str]:
    splits = {split: annotations for split, annotations in splits.items() if len(annotations.ids)}
    if not splits:
        return []
    counts = {split: np.diff(annotations.offsets) for split, annotations in splits.items()}
    sides = {split: object_sides(annotations, size) for split, annotations in splits.items()}
    ratios = {split: _aspect_ratios(annotations) for split, annotations in splits.items()}
    shapes = {split: annotations.sizes[:, 1] / annotations.sizes[:, 0] for split, annotations in splits.items()}
    many = max(int(max(count.max() for count in counts.values())), 1)
    step = -(-many // 20)
    return [
        _histogram("objects in an image", counts, np.arange(0, many + step + 1, step)),
        _histogram("size of objects, pixels of the network input (square root of the area)", sides, 2.0 ** np.arange(1, 11)),
        _histogram("width / height of objects", ratios, 2.0 ** np.arange(-4, 4.1, 0.5)),
        _histogram("width / height of images", shapes, 2.0 ** np.arange(-2, 2.1, 0.25)),
        _class_bars(splits),
    ]


def _aspect_ratios(annotations: Annotations) -> np.ndarray:
    sides = annotations.bboxes[:, 2:][(annotations.bboxes[:, 2:] > 0).all(axis=1)]
    return sides[:, 0] / sides[:, 1]


def _histogram(title: str, values: dict[str, np.ndarray], edges: np.ndarray) -> str:
    """Return bars of each split's share of ``values`` between ``edges``; what lies outside counts to the outer ones."""
    shares = {}
    for split, value in values.items():
        inside = np.clip(value, edges[0], np.nextafter(edges[-1], -np.inf))
        shares[split] = np.histogram(inside, edges)[0] / max(len(value), 1)
    highest = max(share.max() for share in shares.values()) or 1.0
    width, height, bars = 480, 200, []
    slot = width / (len(edges) - 1)
    for number, (split, share) in enumerate(shares.items()):
        wide = slot * 0.9 / len(shares)
        for i, part in enumerate(share):
            x, tall = i * slot + number * wide, part / highest * height
            label = f"{split}: {part:.1%} from {edges[i]:.3g} to {edges[i + 1]:.3g}"
            bars.append(bar(x, height - tall, wide, tall, SPLIT_COLORS[split], label))
    ticks = range(0, len(edges), max(len(edges) // 8, 1))
    texts = [text(i * slot, height + 14, f"{edges[i]:.4g}", "middle") for i in ticks]
    body = "".join([*bars, *texts, text(0, -4, f"{highest:.0%}")])
    return figure(title, body, (-15, -18, width + 30, height + 38))


def _class_bars(splits: Splits) -> str:
    counts = {split: class_counts(annotations) for split, annotations in splits.items()}
    names = next(iter(splits.values())).class_names
    order = np.argsort(-next(iter(counts.values())), kind="stable")
    if len(order) > NUM_CLASSES:  # both ends of the balance
        order = np.concatenate([order[: NUM_CLASSES // 2], order[-NUM_CLASSES // 2 :]])
    highest = max(max(int(count.max()) for count in counts.values()), 1)
    parts, line = [], 8 * len(splits) + 8
    for row, n in enumerate(order):
        parts.append(text(-6, row * line + 10, shortened(names[n], 150), "end"))
        for number, (split, count) in enumerate(counts.items()):
            # By logarithm: classes differ by orders of magnitude.
            wide = np.log1p(count[n]) / np.log1p(highest) * 380
            parts.append(bar(0, row * line + 8 * number, wide, 7, SPLIT_COLORS[split], f"{split}: {count[n]} x {names[n]}"))
            parts.append(text(wide + 4, row * line + 8 * number + 7, f"{count[n]}", style="font-size: 9px"))
    some = "" if len(order) == len(names) else f", the most and the least frequent {NUM_CLASSES // 2} of {len(names)}"
    return figure(f"objects of each class, logarithmic{some}", "".join(parts), (-160, -6, 600, len(order) * line + 12))
